"""The page's figures of the GLMD neck on every backend."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.gpu.figures import Figure, number, table
from benchmarks.gpu.records import PartTiming, Report

BACKENDS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX", "onnxruntime-cuda": "ONNX Runtime with CUDA"}


def _timed(report: Report, backend: str, clock: str) -> list[PartTiming]:
    return [timing for timing in report.parts if timing.backend == backend and clock in timing.best]


def _times(backend: str, clock: str) -> Callable[[Report], str]:
    def value(report: Report) -> str:
        return "; ".join(f"{_name(timing)} {_cell(timing, clock)} ms" for timing in _timed(report, backend, clock))

    return value


def _gains(form: str) -> Callable[[Report], str]:
    """How many times as fast as the body a form is, by the GPU's clock where there is one."""

    def value(report: Report) -> str:
        found = {(t.backend, t.precision, *t.shape, t.form): t for t in report.parts if t.best}
        cells = []
        for timing in found.values():
            body = found.get((timing.backend, timing.precision, *timing.shape, "body"))
            if timing.form != form or body is None:
                continue
            clock = "gpu" if "gpu" in timing.best and "gpu" in body.best else "host"
            gain = body.best[clock]["p50"] / timing.best[clock]["p50"]
            cells.append(f"{timing.precision} {_map(timing)} {BACKENDS.get(timing.backend, timing.backend)} {gain:.2f}")
        return "; ".join(cells)

    return value


def _differences(report: Report) -> str:
    worst: dict[str, float] = {}
    for timing in report.parts:
        if timing.max_difference is not None and timing.largest:
            share = timing.max_difference / timing.largest
            worst[timing.precision] = max(worst.get(timing.precision, 0.0), share)
    return "; ".join(f"{precision} {share:.1e}" for precision, share in worst.items())


def neck_table(report: Report) -> str:
    rows = [
        [
            _map(timing),
            timing.precision,
            BACKENDS.get(timing.backend, timing.backend),
            timing.form,
            _cell(timing, "gpu"),
            _cell(timing, "host"),
            str(timing.proofs[0]["kernels"]) if timing.proofs else "",
            f"{timing.max_difference:.1e} of {number(timing.largest)}",
        ]
        for timing in report.parts
        if timing.best and timing.max_difference is not None and timing.largest is not None
    ]
    head = ("map", "precision", "backend", "form", "GPU ms, p50 / p99", "host ms, p50 / p99", "kernels", "difference")
    return table(head, rows) if rows else ""


def _cell(timing: PartTiming, clock: str) -> str:
    found = timing.best.get(clock)
    return f"{number(found['p50'])} / {number(found['p99'])}" if found else ""


def _name(timing: PartTiming) -> str:
    return f"{timing.precision} {_map(timing)} {timing.form}"


def _map(timing: PartTiming) -> str:
    return "x".join(map(str, timing.shape[2:]))


NECK = (
    *(
        Figure(
            f"{BACKENDS[backend]}, {words}, p50 / p99",
            f"`parts[].clocks[].{clock}`, backend `{backend}`",
            "neck",
            _times(backend, clock),
        )
        for backend, clock, words in (
            ("tensorrt", "gpu", "GPU time"),
            ("tensorrt_rtx", "gpu", "GPU time"),
            ("onnxruntime-cuda", "host", "host to host"),
        )
    ),
    Figure("the plugin, times as fast as the body", "`parts[].clocks`, form `plugin`", "neck", _gains("plugin")),
    Figure(
        "one 3x3 convolution for two, times as fast",
        "`parts[].clocks`, form `body, merged`",
        "neck",
        _gains("body, merged"),
    ),
    Figure(
        "largest difference from torch, as a share of its largest value",
        "`parts[].max_difference`, `parts[].largest`",
        "neck",
        _differences,
    ),
)
