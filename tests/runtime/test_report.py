"""Promises of the report: its schema, its page, its table, and the command that shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from irforge.errors import ArtifactError
from irforge.runtime.clocks import distribution
from irforge.runtime.findings import findings
from irforge.runtime.machine import environment
from irforge.runtime.report import wording
from irforge.runtime.report.figures import (
    MASK_SIZES,
    Check,
    Crop,
    MaskAccuracy,
    MaskParity,
    OutputDifference,
    SizeCount,
    TargetChange,
)
from irforge.runtime.report.page import render
from irforge.runtime.report.schema import (
    Data,
    EngineFacts,
    Latency,
    Model,
    Report,
    json_schema,
    parse_report,
    read_report,
    write_report,
)
from irforge.runtime.report.show import report as show
from irforge.runtime.report.table import print_report

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
MakeModel = Callable[..., Model]


def latency(milliseconds: float) -> Latency:
    def times(share: float) -> Any:
        return distribution([milliseconds * share * (1 + i / 100) / 1e3 for i in range(20)])

    return Latency(
        gpu=None,
        gpu_note="no GPU computed",
        host=times(0.9),
        frame=times(1.0),
        prepare=times(0.06),
        decode=times(0.04),
        threads=1,
        rounds=4,
        frames_per_round=5,
        warm_up=1,
    )


def accuracy(iou: float = 0.74) -> MaskAccuracy:
    return MaskAccuracy(
        frames=20,
        targets=300,
        found=280,
        iou=iou,
        niou=0.75,
        pd=280 / 300,
        pd_interval=(0.9, 0.96),
        fa=1e-5,
        false_pixels_per_100_frames=65.5,
    )


def parity(more: float = 0.0, changes: tuple[TargetChange, ...] = ()) -> MaskParity:
    return MaskParity(
        reference="net.onnx",
        frames=20,
        targets=300,
        outputs=[
            OutputDifference(
                name="mask", max_abs=3e-3, mean_abs=1e-6, flipped_pixels=12, flipped_share=1e-5, not_finite=0
            )
        ],
        iou_points=-0.42,
        niou_points=0.02,
        pd_points=-0.33,
        false_pixels_per_100_frames=more,
        by_size=[SizeCount(size_class=name, targets=100, lost=0, gained=0) for name in MASK_SIZES],
        changes=list(changes),
        checks=[
            Check(name="more false pixels", value=more, limit=20, unit="per 100 frames", passed=more <= 20),
        ],
    )


def change(crop: bool = True) -> TargetChange:
    pictures = Crop(frame=PIXEL, truth=PIXEL, reference=PIXEL, candidate=PIXEL) if crop else None
    return TargetChange(
        kind="lost",
        frame="000123",
        row=30.5,
        column=41.0,
        area=7,
        size_class="up to 9 px",
        reference_peak=0.61,
        candidate_peak=0.47,
        crop=pictures,
    )


def engine(moved: int) -> EngineFacts:
    return EngineFacts(
        file="net.rtx.engine",
        file_bytes=9_000_000,
        runtime="TensorRT-RTX",
        targets=["8.0", "8.6", "8.9", "12.0"],
        kernels=150,
        int8_share=0.962,
        fp16_share=0.038,
        reads="int8 99.6 %, fp16 0.4 %",
        writes="int8 96.2 %, fp16 3.8 %",
        bytes_moved=moved,
        peak_bytes=29_000_000,
        weight_bytes={"int8": 4_000_000},
    )


def model(name: str, precision: str, milliseconds: float, **fields: Any) -> Model:
    values: dict[str, Any] = {
        "role": "candidate",
        "backend": "onnxruntime",
        "device": "cpu",
        "height": 256,
        "width": 256,
        "sha256": "ab" * 32,
        "file_bytes": 16_000_000,
        "protocol": "squash",
        "threshold": 0.5,
        "accuracy": accuracy(),
        "parity": None,
        "latency": latency(milliseconds),
        "contract": {"provenance": {"detector": "net", "trained_on": []}},
    }
    return Model(name=name, precision=precision, **values | fields)


def make(*models: Model, **fields: Any) -> Report:
    here, data = (
        environment(1).model_copy(update={"load_average": (0.1, 0.1, 0.1), "gpu": "none"}),
        Data(name="SET", split="test", frames=20, frames_in_split=20, targets=300, licence="CC0"),
    )
    return Report(
        irforge_version="1.2.3",
        command="irforge bench net.onnx net.int8.onnx",
        detector="net",
        data=data,
        environment=here,
        models=list(models),
        findings=findings(models, data, here),
        seconds=12,
        **fields,
    )


@pytest.fixture
def example() -> Report:
    return make(
        model("net.onnx", "fp32", 110, engines=[engine(210_000_000)]),
        model(
            "net.int8.onnx", "int8", 170, parity=parity(240.0, (change(), change(False))), engines=[engine(66_000_000)]
        ),
    )


class Reader(HTMLParser):
    """Checks that tags nest, and collects the text and what the page would load."""

    VOID = ("meta", "img", "rect")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)
        assert not self.open
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(data)


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


def test_the_committed_schema_is_that_of_the_code() -> None:
    committed = resources.files("irforge.runtime.report").joinpath("schema.json").read_text()
    assert committed == json_schema(), "write json_schema() to runtime/report/schema.json"


def test_a_written_report_fits_the_schema_and_reads_back_equal(example: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(example, path)
    jsonschema.validate(json.loads(path.read_text()), json.loads(json_schema()))
    assert read_report(path) == example


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r["models"][0]["latency"]["frame"].update(p90=1e9), "models.0.latency.frame"),
        (lambda r: r["models"][0]["latency"].update(rounds=7), "nothing is clipped"),
        (lambda r: r["models"][0]["latency"].update(gpu_note=""), "reason"),
        (lambda r: r["models"][0]["accuracy"].update(found=301), "more targets found"),
        (lambda r: r["models"][1]["parity"].update(reference="x"), "not here"),
        (lambda r: r["models"][1]["parity"]["changes"][0]["crop"].update(frame='"><script>'), "crop.frame"),
        (lambda r: r.update(output="boxes"), "'net.onnx' has figures of output 'mask' among 'boxes'"),
        (lambda r: r["models"][0]["accuracy"].update(kind="boxes"), "models.0.accuracy.boxes"),
        (lambda r: r.update(extra=1), "extra"),
        (lambda r: r.pop("command"), "command"),
        (lambda r: r.update(schema_version="2.0"), "schema 2.0, this irforge reads 1.2"),
    ],
)
def test_a_report_that_contradicts_itself_is_one_line(example: Report, tmp_path: Path, edit, message: str) -> None:
    raw = json.loads(example.model_dump_json())
    edit(raw)
    with pytest.raises(ArtifactError, match=re.escape(message)) as caught:
        parse_report(json.dumps(raw), "r.json")
    assert "\n" not in caught.value.line and "r.json" in caught.value.line


def test_a_report_of_schema_1_0_reads_as_one_of_masks(example: Report) -> None:
    raw = json.loads(example.model_dump_json())
    raw["schema_version"] = "1.0"
    del raw["output"]
    for entry in raw["models"]:
        del entry["variant"], entry["accuracy"]["kind"]
        if entry["parity"]:
            del entry["parity"]["kind"]
    jsonschema.validate(raw, json.loads(json_schema()))
    assert parse_report(json.dumps(raw), "old") == example.model_copy(update={"schema_version": "1.0"})


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"a": 1}', b"\xff\xfe\x00"])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArtifactError, match="is not a report"):
        read_report(path)


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


@pytest.mark.parametrize("columns", [80, 200])
def test_the_terminal_table_shows_whole_figures(example: Report, columns: int) -> None:
    console = Console(width=columns, record=True, file=StringIO())
    print_report(example, console)
    shown = console.export_text()
    for figure in ("net 256 × 256", "74.0", "93.3", "fail", "1.55× slower", "150", "66.0", "SET:test, 20 frames"):
        assert figure in shown, figure
    table = shown.splitlines()[1:5]
    assert not any("…" in line for line in table)


def test_report_command_writes_the_page_beside_the_report(example: Report, tmp_path: Path, capsys) -> None:
    write_report(example, tmp_path / "r.json")
    show([tmp_path / "r.json"], None)
    assert (tmp_path / "r.html").read_text() == render(example)
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "r.html")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (wording.milliseconds(0.1234), "0.123"),
        (wording.milliseconds(123.4), "123"),
        (wording.quantity(16_449_000), "16.4 MB"),
        (wording.quantity(None), "–"),
        (wording.percent(0.7404), "74.04 %"),
        (wording.signed(-0.004), "0.00"),
        (wording.signed(-0.42), "−0.42"),
        (wording.ratio(50, 100), "2.00× faster"),
        (wording.ratio(155, 100), "1.55× slower"),
        (wording.ratio(100.5, 100), "same"),
        (wording.plural(1, "frame"), "1 frame"),
        (wording.size_text(512, 640), "640 × 512"),
    ],
)
def test_figures_read_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected
