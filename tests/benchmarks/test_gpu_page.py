"""The page that the GPU script makes of its figures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu import engines, gates, library, networks, ops, render
from benchmarks.gpu.records import (
    Copy,
    GateTiming,
    KernelCheck,
    NativeTest,
    NetworkTiming,
    Note,
    PartTiming,
    Report,
    Target,
    Times,
)
from irforge.errors import UsageError
from tests.benchmarks.gpu_records import ROOT, new_report


def test_the_committed_page_is_what_the_committed_figures_make() -> None:
    reports = [Report.read(path) for path in sorted((ROOT / "benchmarks" / "gpu" / "measured").glob("*.json"))]
    assert (ROOT / "docs" / "gpu-validation.md").read_text() == render.render(reduce(Report.joined, reports))


def test_without_figures_each_one_is_named_as_pending() -> None:
    figures = sum(len(section) for _, section, _, _ in render.SECTIONS)
    assert render.render(None).count(f"| {render.PENDING} |") == figures


def test_every_figure_is_rendered_from_its_record(
    spot_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ROUNDS", 2)
    monkeypatch.setattr(engines, "FRAMES_A_ROUND", 2)
    report = filled(engines.check(spot_model(), "onnxruntime-cpu", tmp_path))
    report.write(tmp_path / "gpu.json")
    assert Report.read(tmp_path / "gpu.json") == report
    page = render.render(report)
    assert render.PENDING not in page
    for value in (
        "Measured on 2026-01-02: some GPU, SM 9.0, 80 GiB, 50 MiB of L2 cache",
        "2000 GB/s (1000 MB moved)",
        "0.9, promised at least 0.85: kept",
        "2, promised at least 2.3: missed",
        "| 1024x50x76: 1.5 |",
        "1 of 2 problems; largest error over its limit: MutualGate 0.25",
        "float16, linear 0.9; float16 -> int8, linear 0.45",
        "| 16x256x256: 4 |",
        "| 16x256x256 hwc8: 8 |",
        "tensorrt.enqueue passed",
        "graph: kernel 100 us",
        "kernel 10.0 % of FP16, channels last, CUDA graph",
        "1x1x256x256: 1 / 1.2 (FP16, channels last, CUDA graph)",
        "fp16 50x76 body 2 / 3 ms; fp16 50x76 plugin 1 / 1.5 ms",
        "| fp16 50x76 TensorRT 2.00; fp16 50x76 ONNX Runtime with CUDA 4.00 |",
        "| fp16 50x76 ONNX Runtime with CUDA 0.50 |",
        "fp16 1.0e-03",
        "| 50x76 | fp16 | TensorRT | plugin | 1 / 1.5 | 4 / 6 | 41 | 4.0e-03 of 4 |",
        "2.00 times as fast, host to host",
        "int8 75 %, fp16 25 %",
        "- build: no headers",
        "## Known without a GPU",
    ):
        assert value in page, value
    failed = page[page.index("## What failed") : page.index("## What was skipped")]
    assert failed.count("\n- ") == len(report.failures()) == 3


def test_runs_of_different_steps_are_one_page() -> None:
    def network(mode: str, milliseconds: float | None) -> NetworkTiming:
        times = None if milliseconds is None else Times(p10=1, p50=milliseconds, p90=3, p99=4, n=20)
        return NetworkTiming(network="MSHNet", shape=[1, 1, 8, 8], mode=mode, times=times)

    first, second = new_report(), new_report()
    first.networks, second.networks = [network("FP32", 2.0)], [network("FP16", 1.5)]
    first.skipped = [
        Note(step="networks", reason=f"{network(m, None).label}: out of time") for m in ("FP16", "FP16, graph")
    ]
    first.seconds, second.seconds = {"build": 3.0, "networks": 1.0}, {"networks": 2.5}
    first.l2_bytes = 50 << 20
    both = first.joined(second)
    assert [made.mode for made in both.networks] == ["FP32", "FP16"] and both.l2_bytes == 50 << 20
    assert [note.reason for note in both.skipped] == ["MSHNet [1, 1, 8, 8] in FP16, graph: out of time"]
    assert both.seconds == {"build": 3.0, "networks": 3.5}
    second.gpu = {**second.gpu, "name": "another GPU"}
    with pytest.raises(UsageError, match="one run was on some GPU, the other on another GPU"):
        first.joined(second)


def filled(result: dict[str, object]) -> Report:
    """A report with a record behind every figure; the numbers are chosen so that the page's are easy to name."""

    def times(milliseconds: float) -> Times:
        ends = {"p10": 0.9 * milliseconds, "p90": 1.1 * milliseconds, "p99": 1.2 * milliseconds}
        return Times(p50=milliseconds, n=200, **ends)

    def gate(problem: library.Op, form: str, milliseconds: float, graph: bool = False) -> GateTiming:
        return GateTiming(
            op=type(problem).__name__,
            variant=problem.variant,
            shape=list(problem.shape),
            form=form,
            cuda_graph=graph,
            sets=2,
            set_bytes=problem.set_bytes,
            times=times(milliseconds),
            gb_per_s=1800 / milliseconds,
        )

    report = new_report()
    report.l2_bytes = 50 << 20
    report.copies = [Copy(bytes_moved=10**9, times=times(0.5), gb_per_s=2000.0)]
    large, single = ops.MutualGate((8, *gates.MAP)), ops.MutualGate((1, *gates.MAP))
    maps = ops.SpatialGate((1, 16, 256, 256))
    channels = ops.ChannelGate((1, 16, 256, 256), layout="hwc8")
    report.gates = [
        gate(large, "kernel", 1.0),
        gate(large, "eager", 2.0),
        gate(large, "torch.compile", 1.5),
        gate(replace(large, output="int8"), "kernel", 2.0),
        gate(single, "kernel", 0.2),
        gate(single, "kernel", 0.1, True),
        gate(maps, "kernel", 0.5, True),
        gate(maps, "eager", 2.0, True),
        gate(maps, "torch.compile", 1.0, True),
        gate(channels, "kernel", 0.5, True),
        gate(channels, "eager", 4.0, True),
        gate(channels, "torch.compile", 3.0, True),
    ]
    report.targets = gates.targets(report)
    assert [(target.value, bool(target.failure)) for target in report.targets] == [(0.9, False), (2.0, True)]
    assert all(isinstance(target, Target) for target in report.targets)
    good = KernelCheck(op="MutualGate", variant="float32", shape=[1, 1, 1, 1], max_error=2.0, limit=8.0)
    report.checks = [good, replace(good, variant="float16", max_error=None, failure="refused: no")]
    report.native_tests = [
        NativeTest(tool="ctest", name="kernels.cuda", outcome="passed", seconds=1.0),
        NativeTest(tool="ctest", name="tensorrt.enqueue", outcome="passed", seconds=1.0),
        NativeTest(tool="compute-sanitizer", name="kernels.cuda", outcome="passed", seconds=1.0),
    ]
    report.networks = [
        NetworkTiming(network=name, shape=shape, mode=mode.name, times=times(milliseconds), max_difference=1e-3)
        for name, shape in (("MSHNet", [1, 1, 256, 256]), ("GLMD neck", list(single.shape)))
        for mode, milliseconds in ((networks.REFERENCE, 5.0), (networks.MODES[4], 1.0))
    ]
    latency = result["latency"]["no graph"]  # type: ignore[index]
    clock = {"p50": 1.0, "p99": 1.5}
    engine = {
        **result,
        "backend": "tensorrt",
        "build_seconds": 12.3,
        "latency": {
            "cuda graph": {**latency, "gpu": clock, "host": clock},
            "no graph": {**latency, "host": {"p50": 2.0, "p99": 3.0}},
        },
        "proofs": [{"convolutions": [{"reads": "int8", "macs": 3}, {"reads": "fp16", "macs": 1}]}],
    }
    report.results = [engine, {**engine, "backend": "tensorrt_rtx"}, {**engine, "failure": "probabilities differ"}]
    report.results[2]["backend"] = "onnxruntime-cuda"
    body = PartTiming(
        part="GLMD neck",
        shape=list(single.shape),
        precision="fp16",
        form="body",
        backend="tensorrt",
        proofs=[{"kernels": 41}],
        max_difference=4e-3,
        largest=4.0,
        clocks={"cuda graph": {"gpu": {"p50": 2.0, "p99": 3.0}, "host": {"p50": 4.0, "p99": 6.0}}},
    )
    plugin = {"cuda graph": {**body.clocks["cuda graph"], "gpu": {"p50": 1.0, "p99": 1.5}}}
    runtime = replace(body, backend="onnxruntime-cuda", clocks={"no graph": {"host": {"p50": 8.0, "p99": 9.0}}})
    report.parts = [
        body,
        replace(body, form="plugin", clocks=plugin),
        replace(body, backend="tensorrt_rtx"),
        runtime,
        replace(runtime, form="plugin", clocks={"no graph": {"host": {"p50": 2.0, "p99": 2.5}}}),
        replace(runtime, form="body, merged", clocks={"no graph": {"host": {"p50": 16.0, "p99": 17.0}}}),
    ]
    report.failed, report.targets = [], report.targets
    report.skipped = [Note(step="build", reason="no headers")]
    return report
