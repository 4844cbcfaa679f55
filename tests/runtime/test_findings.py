"""Promises of the findings: what a reader should not miss, said in words."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from irforge.runtime.findings import findings
from irforge.runtime.machine import environment
from irforge.runtime.report.figures import Check
from irforge.runtime.report.page import render
from irforge.runtime.report.schema import Data, Report
from irforge.runtime.report.table import print_report
from tests.runtime.report_example import Reader, engine, example_report, make, model, parity


@pytest.fixture
def example() -> Report:
    return example_report()


def test_int8_that_is_slower_on_a_cpu_is_said_in_words(example: Report) -> None:
    (caution,) = [f.text for f in example.findings if f.level == "caution"]
    assert caution == (
        "INT8 is slower than FP32 on this CPU: 1.55× at 256 × 256 (185 against 120 ms). Such a file is made for "
        "TensorRT; here it gains nothing: compiled for SM 8.0, 8.6, 8.9, 12.0, a frame of 256 × 256 moves 66.0 MB in "
        "150 kernels, 210.0 MB in 150 as FP32. No GPU was here to time it."
    )
    assert caution in Reader(render(example)).words


def test_int8_that_is_faster_is_no_caution_and_a_gpu_is_not_called_a_cpu() -> None:
    fast = make(model("a", "fp32", 100), model("b", "int8", 50))
    assert [f.level for f in fast.findings] == ["good"]
    assert fast.findings[0].text.startswith("INT8 is faster than FP32 on this CPU: 2.00× at 256 × 256")
    same = make(model("a", "fp32", 100), model("b", "fp16", 103))
    gpu = make(model("a", "fp32", 1, device="cuda:0"), model("b", "int8", 2, device="cuda:0"))
    assert not gpu.findings and not same.findings


def test_missed_limits_come_first_and_kept_ones_last() -> None:
    report = make(
        model("net.onnx", "fp32", 110),
        model("net.int8.onnx", "int8", 170, parity=parity(240.0)),
        model("net.fp16.onnx", "fp16", 110, parity=parity(2.0)),
    )
    levels = [f.level for f in report.findings]
    assert levels == ["bad", "caution", "good"]
    words = [report.findings[i].text for i in (0, -1)]
    assert words == [
        "INT8 at 256 × 256 misses its limits: more false pixels 240 per 100 frames (limit 20).",
        "Within limits: at 256 × 256 FP16 (−0.42 points of IoU, −0.33 of Pd).",
    ]


def test_a_limit_missed_by_a_single_target_of_a_small_set_is_told_from_a_fault() -> None:
    def verdict(check: Check, targets: int) -> str:
        result = parity().model_copy(update={"targets": targets, "checks": [check]})
        (finding,) = make(model("net.onnx", "fp32", 9), model("b", "int8", 9, parity=result)).findings
        assert ("on 20 frames with 36 targets, where a single target decides" in finding.text) == (
            finding.level == "caution"
        )
        return finding.level

    def loss(points: float) -> Check:
        return Check(name="Pd loss", value=points, limit=1, unit="points", passed=False)

    assert verdict(loss(100 / 36), 36) == "caution"
    assert verdict(loss(200 / 36), 36) == "bad"
    assert verdict(loss(100 / 36), 360) == "bad"
    # 25 pixels in the 20 frames that were compared.
    more = {"name": "more false pixels", "limit": 20, "unit": "per 100 frames", "passed": False}
    assert verdict(Check(value=125, **more), 36) == "caution"
    assert verdict(Check(value=126, **more), 36) == "bad"
    assert verdict(Check(name="not finite", value=3, limit=0, unit="values", passed=False), 36) == "bad"


def test_two_files_of_one_precision_are_told_apart_and_their_plans_compared() -> None:
    before = engine(400_000_000).model_copy(update={"kernels": 640})
    report = make(
        model("net.plain.onnx", "fp32", 120, variant="net.plain", engines=[before]),
        model("net.onnx", "fp32", 100, variant="net", engines=[engine(100_000_000)], parity=parity()),
        model("net.int8.onnx", "int8", 50, engines=[engine(50_000_000)]),
    )
    words = Reader(render(report)).words
    note = (
        "Compiled for SM 8.0, 8.6, 8.9, 12.0, a frame of 256 × 256 takes 150 kernels and 100.0 MB moved as net, "
        "640 kernels and 400.0 MB moved as net.plain: 0.23 of the kernels, 0.25 of the bytes."
    )
    assert [f.text for f in report.findings if f.level == "note"] == [note] and note in words
    assert "FP32 net.plain" in words and "FP32 net " in words
    assert any(f.text.startswith("Within limits: at 256 × 256 FP32 net (") for f in report.findings)
    console = Console(width=80, record=True, file=StringIO())
    print_report(report, console)
    shown = console.export_text()
    assert "640" in shown and "400.0" in shown and "…" not in shown


def test_plans_for_other_gpus_are_not_compared() -> None:
    other = engine(400_000_000).model_copy(update={"targets": ["7.5"]})
    models = [model(f"{n}.onnx", "fp32", 9, variant=n, engines=[plan]) for n, plan in (("a", other), ("b", engine(1)))]
    assert not [f for f in make(*models).findings if f.level == "note"]


def test_a_busy_machine_and_few_targets_are_confessed() -> None:
    models = [model("a", "fp32", 100)]
    here = environment(1).model_copy(update={"load_average": (1.5, 1.0, 1.0)})
    data = Data(name="S", split="t", frames=9, frames_in_split=9, targets=40)
    busy, few = findings(models, data, here)
    assert "load 1.5" in busy.text and "2.5 points of Pd" in few.text
