"""Promises of the report where detectors give boxes: its schema, its page and its table."""

from __future__ import annotations

import json
import re
from io import StringIO
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from irforge.errors import ArtifactError
from irforge.metrics import SIZE_BUCKETS
from irforge.runtime.report.figures import (
    Alarms,
    BoxAccuracy,
    BoxDifference,
    BoxParity,
    BoxRates,
    Check,
    SizeAP,
    SizeCount,
    TargetChange,
)
from irforge.runtime.report.page import render
from irforge.runtime.report.schema import Model, Report, json_schema, parse_report
from irforge.runtime.report.table import print_report
from tests.runtime.report_example import Reader, engine, make, model


def rates(right: int, wrong: int, missed: int) -> BoxRates:
    return BoxRates(
        right=right,
        wrong=wrong,
        missed=missed,
        precision=right / (right + wrong),
        recall=right / (right + missed),
        f1=2 * right / (2 * right + wrong + missed),
    )


def accuracy(**fields: Any) -> BoxAccuracy:
    values: dict[str, Any] = {
        "frames": 20,
        "targets": 300,
        "found": 270,
        "pd": 0.9,
        "pd_interval": (0.86, 0.93),
        "ap": 0.412,
        "ap50": 0.853,
        "ap75": 0.333,
        "ap_by_size": [
            SizeAP(size_class=bucket.name, targets=100, ap=ap)
            for bucket, ap in zip(SIZE_BUCKETS, (0.311, 0.522, None), strict=True)
        ],
        "iou50": rates(240, 40, 60),
        "iou30": rates(260, 20, 40),
        "centre": rates(270, 10, 30),
        "false_boxes_per_100_frames": 50.0,
        "centre_error_median": 0.456,
        "centre_error_p95": 1.234,
        "alarms": Alarms(frames=8, alarms=2, frame_rate=25, per_hour=22500, interval=(2724.9, 81278)),
    }
    return BoxAccuracy(**values | fields)


def parity(*changes: TargetChange, boxes: dict[str, Any] | None = None, passed: bool = True) -> BoxParity:
    difference = {
        "floor": 0.05,
        "not_finite": 0,
        "pairs": 281,
        "max_box": 0.0123,
        "max_score": 0.2,
        "only_reference": 3,
        "only_candidate": 1,
        "alone": 2,
        "flipped": 6,
    }
    return BoxParity(
        reference="itd.onnx",
        frames=20,
        targets=300,
        pd_points=-0.33,
        by_size=[SizeCount(size_class=bucket.name, targets=100, lost=1, gained=0) for bucket in SIZE_BUCKETS],
        changes=list(changes),
        checks=[Check(name="F1 loss", value=0.42 if passed else 1.8, limit=1, unit="points", passed=passed)],
        boxes=BoxDifference(**difference | (boxes or {})),
        f1_points=-0.42,
        ap_points=-0.91,
        ap50_points=0.13,
        smallest_ap_points=-1.21,
        centre_error_p95=0.07,
        false_boxes_per_100_frames=5.0,
    )


def boxes(name: str, precision: str, milliseconds: float, **fields: Any) -> Model:
    contract = {"output": {"kind": "boxes"}, "provenance": {"detector": "itd"}}
    return model(name, precision, milliseconds, **{"accuracy": accuracy(), "contract": contract} | fields)


@pytest.fixture
def example() -> Report:
    lost = TargetChange(
        kind="lost",
        frame="000123",
        row=30.5,
        column=41.0,
        area=7.5,
        size_class="up to 25 px2",
        reference_peak=0.61,
        candidate_peak=0.0,
    )
    kept = [{"weight": "stem.conv", "share": 0.03, "reason": "INT8 costs too much", "crossed": 1.5, "difference": 0.25}]
    history = {"output": {"kind": "boxes"}, "provenance": {"history": [{"tool": "quantize", "kept": kept}]}}
    return make(
        boxes("itd.onnx", "fp32", 110, engines=[engine(210_000_000)]),
        boxes("itd.fp16.onnx", "fp16", 110, parity=parity()),
        boxes("itd.int8.onnx", "int8", 170, parity=parity(lost, passed=False), contract=history),
        output="boxes",
    )


def test_a_report_of_boxes_fits_the_schema_and_reads_back_equal(example: Report) -> None:
    raw = example.model_dump_json()
    jsonschema.validate(json.loads(raw), json.loads(json_schema()))
    assert parse_report(raw, "r") == example


def test_one_report_holds_one_kind_of_output(example: Report) -> None:
    raw = json.loads(example.model_dump_json())
    raw["models"].append(json.loads(model("net.onnx", "fp32", 9).model_dump_json()))
    with pytest.raises(ArtifactError, match=r"'net\.onnx' has figures of output 'mask' among 'boxes'"):
        parse_report(json.dumps(raw), "r")


def test_the_page_shows_every_figure_of_boxes(example: Report) -> None:
    words = Reader(render(example)).words
    for figure in (
        *("82.8 % P 85.7, R 80.0", "89.7 % P 92.9, R 86.7", "93.1 % P 96.4, R 90.0", "90.00 % 86.0 to 93.0"),
        *("270 of 300", "0.46 p95 1.23", "50.0", "22 500 2 725 to 81 278; 2 alarms in 8 frames, 25 Hz"),
        *("41.20 %", "85.30 %", "33.30 %", "31.10 % 100 targets", "AP, up to 25 px²", "– 100 targets"),
        *(
            "281",
            "1.2e-02",
            "2.0e-01",
            "3 + 1 2 above threshold",
            "−0.42",
            "−0.91",
            "+0.13",
            "−1.21",
            "−0.33",
            "+0.07",
            "+5.0",
        ),
        *("up to 25 px²", "1 lost, 0 gained", "lost, frame 000123, row 30.5, column 41.0, 7.5 px², score 0.61 → 0.00"),
        *("1.5 boxes in 100 frames cross the threshold, boxes and scores move by 0.250 a frame", "F1 loss 1.80 points"),
    ):
        assert figure in words, figure
    assert not re.search(r"\bIoU, nIoU\b|Fa, 10|px2|False px", words)


def test_what_was_not_found_is_a_dash_and_says_why() -> None:
    nothing = accuracy(centre_error_median=None, centre_error_p95=None, alarms=None, ap=None)
    words = Reader(render(make(boxes("itd.onnx", "fp32", 9, accuracy=nothing), output="boxes"))).words
    assert "– p95 –" in words and "– no frame without a target" in words


def test_findings_speak_of_f1(example: Report) -> None:
    words = [finding.text for finding in example.findings]
    assert "INT8 at 256 × 256 misses its limits: F1 loss 1.8 points (limit 1)." in words
    assert "Within limits: at 256 × 256 FP16 (−0.42 points of F1, −0.33 of Pd)." in words


def test_broken_boxes_are_named(example: Report) -> None:
    broken = parity(boxes={"not_finite": 1, "max_box": None, "max_score": None})
    words = Reader(
        render(make(boxes("a", "fp32", 9), boxes("itd.onnx", "int8", 9, parity=broken), output="boxes"))
    ).words
    assert "not finite 1 box –" in words


@pytest.mark.parametrize("columns", [80, 200])
def test_the_terminal_table_of_boxes_shows_whole_figures(example: Report, columns: int) -> None:
    console = Console(width=columns, record=True, file=StringIO())
    print_report(example, console)
    shown = console.export_text()
    for figure in (
        "net 256 × 256",
        "F1",
        "82.8",
        "90.0",
        "50.0",
        "fail",
        "1.55× slower",
        "210.0",
        "boxes per 100",
    ):
        assert figure in " ".join(shown.split()), figure
    assert not any("…" in line for line in shown.splitlines()[1:6])
