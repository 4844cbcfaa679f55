"""Promises of the page: it shows what decides, and neither loads nor runs anything."""

from __future__ import annotations

import json
import re

import pytest

from irforge.runtime.report import wording
from irforge.runtime.report.page import render
from irforge.runtime.report.schema import Report, parse_report
from tests.runtime.report_example import Reader, example_report, make, model


@pytest.fixture
def example() -> Report:
    return example_report()


def test_what_stays_out_of_int8_is_named_with_its_cost() -> None:
    kept = [
        {
            "node": "a",
            "weight": "encoder_0.conv1",
            "share": 0.0257,
            "reason": "INT8 costs too much",
            "crossed": 12.5,
            "difference": 0.25,
        },
        {"node": "b", "weight": "ca.fc1", "share": 0.0001, "reason": "one pixel"},
        {"node": "c", "weight": "ca.fc2", "share": 0.0001, "reason": "one pixel"},
    ]
    contract = {"provenance": {"history": [{"tool": "quantize", "kept": kept}]}}
    words = Reader(render(make(model("net.int8.onnx", "int8", 170, contract=contract)))).words
    assert (
        "encoder_0.conv1 2.57 % INT8 costs too much 12.5 px in 100 frames cross the threshold, |Δp| sums to 0.250"
        in words
    )
    assert "2 convolutions 0.02 % one pixel" in words
    older = {"provenance": {"history": [{"tool": "quantize", "kept": ["a", "b"]}]}}
    assert "Left out of INT8" not in render(make(model("net.int8.onnx", "int8", 170, contract=older)))


def test_the_page_loads_nothing_and_runs_nothing(example: Report) -> None:
    page = Reader(render(example))
    assert not page.tags & {"script", "link", "iframe", "object", "form", "base"}
    assert page.loads and all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert "http" not in re.sub(r"http-equiv", "", render(example))


def test_the_page_shows_every_figure_that_decides(example: Report) -> None:
    words = Reader(render(example)).words
    fp32, int8 = example.models
    for figure in (
        *("74.00 %", "280 of 300", "10.00", "65.5", "0.5"),
        *("3.0e-03", "12", "−0.42", "−0.33", "+240.0"),
        *(wording.milliseconds(t) for m in (fp32, int8) for t in (m.latency.frame.p50, m.latency.host.p99)),
        *("150", "66.0 MB", "29.0 MB", "int8 96.2 %, fp16 3.8 %", "SM 8.0, 8.6, 8.9, 12.0"),
        *("ab" * 32, "irforge bench net.onnx net.int8.onnx", "CC0", "No GPU clock"),
        *("Lost", "frame 000123, row 30.5, column 41.0, 7 px, peak 0.61 → 0.47", "1 change without a picture"),
    ):
        assert figure in words, figure


def test_text_from_a_report_is_never_markup(example: Report) -> None:
    nasty = "<img src=x onerror=alert(1)>&\"'"
    raw = json.loads(example.model_dump_json())
    raw["detector"] = raw["command"] = raw["data"]["name"] = raw["environment"]["cpu"] = nasty
    raw["models"][0]["name"] = raw["models"][1]["parity"]["reference"] = nasty
    raw["models"][1]["parity"]["changes"][0]["frame"] = nasty
    raw["models"][1]["parity"]["checks"][0]["name"] = raw["models"][1]["protocol"] = nasty
    raw["models"][0]["engines"][0]["file"] = raw["models"][0]["contract"]["x"] = nasty
    page = Reader(render(parse_report(json.dumps(raw), "r")))
    assert nasty in page.words
    assert all(load.startswith("data:") for load in page.loads)


def test_a_report_of_one_model_without_truth_renders() -> None:
    lone = make(model("net.onnx", "fp32", 10, accuracy=None, latency=None))
    words = Reader(render(lone)).words
    assert "Nothing was compared" in words and "Not measured" in words and "No engine" in words
