"""The page's figures of the engines: TensorRT, TensorRT-RTX and ONNX Runtime with CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gpu.figures import Figure, number
from benchmarks.gpu.records import Report


def _engines(report: Report, backend: str = "") -> list[dict[str, Any]]:
    return [r for r in report.results if backend in ("", r["backend"])]


def _engine_name(result: dict[str, Any]) -> str:
    height, width = result["height_width"]
    gates = ", native gates" if result.get("custom_ops") == "plugin" else ""
    return f"{result['precision']} {width}x{height} {result['backend']}{gates}"


def _built(backend: str) -> Callable[[Report], str]:
    def value(report: Report) -> str:
        return "; ".join(
            f"{_engine_name(r)} {number(r['build_seconds'])}" for r in _engines(report, backend) if "build_seconds" in r
        )

    return value


def _parity(show: Callable[[list[dict[str, Any]]], str]) -> Callable[[Report], str]:
    def value(report: Report) -> str:
        by_precision: dict[str, list[dict[str, Any]]] = {}
        for result in report.results:
            if "parity" in result:
                by_precision.setdefault(result["precision"], []).append(result["parity"])
        return "; ".join(f"{precision} {show(found)}" for precision, found in by_precision.items())

    return value


def _clock(name: str) -> Callable[[Report], str]:
    def value(report: Report) -> str:
        cells = []
        for result in report.results:
            latency = result.get("latency", {})
            clock = (latency.get("cuda graph") or latency.get("no graph") or {}).get(name)
            if clock:
                cells.append(f"{_engine_name(result)} {number(clock['p50'])} / {number(clock['p99'])} ms")
        return "; ".join(cells)

    return value


def _graph_gain(report: Report) -> str:
    cells = []
    for result in report.results:
        latency = result.get("latency", {})
        if {"cuda graph", "no graph"} <= latency.keys():
            gain = latency["no graph"]["host"]["p50"] / latency["cuda graph"]["host"]["p50"]
            cells.append(f"{_engine_name(result)} {gain:.2f} times as fast, host to host")
    return "; ".join(cells)


def _precision_shares(report: Report) -> str:
    cells = []
    for result in _engines(report, "tensorrt"):
        macs: dict[str, int] = {}
        for proof in result.get("proofs", []):
            for group in proof["convolutions"]:
                macs[group["reads"]] = macs.get(group["reads"], 0) + group["macs"]
        if total := sum(macs.values()):
            shares = ", ".join(f"{kind} {100 * count / total:.0f} %" for kind, count in macs.items())
            cells.append(f"{_engine_name(result)}: {shares}")
    return "; ".join(cells)


def _on_pycuda(report: Report) -> str:
    if "pycuda" not in report.versions or "cuda-python" in report.versions:
        return ""
    return "; ".join(f"{_engine_name(r)} {r['failure'] or 'runs'}" for r in _engines(report, "tensorrt"))


ENGINES = (
    Figure(
        "TensorRT builds FP32, FP16 and INT8, seconds",
        "`results[].build_seconds`, backend `tensorrt`",
        "engines",
        _built("tensorrt"),
    ),
    Figure(
        "TensorRT-RTX builds for this GPU, seconds",
        "`results[].build_seconds`, backend `tensorrt_rtx`",
        "engines",
        _built("tensorrt_rtx"),
    ),
    Figure(
        "largest difference of a probability from ONNX Runtime on the CPU, by precision",
        "`results[].parity.max_difference`",
        "engines",
        _parity(lambda found: f"{max(parity['max_difference'] for parity in found):.1e}"),
    ),
    Figure(
        "pixels that cross the threshold, by precision",
        "`results[].parity.pixels_changed`",
        "engines",
        _parity(lambda found: f"{sum(p['pixels_changed'] for p in found)} of {sum(p['pixels'] for p in found)}"),
    ),
    Figure("GPU time at 640x512 and 256x256, p50 and p99", "`results[].latency[].gpu`", "engines", _clock("gpu")),
    Figure("host-to-host time, p50 and p99", "`results[].latency[].host`", "engines", _clock("host")),
    Figure("frame to detections, p50 and p99", "`results[].latency[].frame`", "engines", _clock("frame")),
    Figure(
        "what a CUDA graph gains",
        '`latency["cuda graph"]` beside `latency["no graph"]`',
        "engines",
        _graph_gain,
    ),
    Figure(
        "share of convolutions in INT8 and FP16 in a TensorRT engine",
        "`results[].proofs`",
        "engines",
        _precision_shares,
    ),
    Figure(
        "a session on PyCUDA instead of cuda-python",
        "the same, with `cuda-python` uninstalled",
        "engines",
        _on_pycuda,
    ),
)
