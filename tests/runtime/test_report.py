"""Promises of the report: its schema, its figures in words, its table, and the command that shows it."""

from __future__ import annotations

import json
import re
from importlib import resources
from io import StringIO
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from irforge.errors import ArtifactError
from irforge.runtime.report import wording
from irforge.runtime.report.page import render
from irforge.runtime.report.schema import Report, json_schema, parse_report, read_report, write_report
from irforge.runtime.report.show import report as show
from irforge.runtime.report.table import print_report
from tests.runtime.report_example import example_report


@pytest.fixture
def example() -> Report:
    return example_report()


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
        (lambda r: r.update(schema_version="2.0"), "schema 2.0, this irforge reads 1.3"),
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
    words = "is not a report" if content is not None else r"r\.json' does not exist\. Check the path"
    with pytest.raises(ArtifactError, match=words):
        read_report(path)


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
