"""Promises of what is written: JSON that checks itself, a page without network, a CSV, and a gallery of quarrels."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from irforge.datasets import BoxTruth
from irforge.detections import Detections
from irforge.errors import ArtifactError
from irforge.metrics import match_boxes
from irforge.runtime.comparison.gallery import disagreement
from irforge.runtime.comparison.page import render
from irforge.runtime.comparison.plots import chart, powers, rates, style_of
from irforge.runtime.comparison.schema import Comparison, parse_comparison, read_comparison, write_comparison
from irforge.runtime.comparison.table import COLUMNS, as_csv, print_comparison


class Page(HTMLParser):
    """Checks that tags close in order, and collects what could reach for the network."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src", "srcset", "xlink:href", "action")]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def found(bright, boxes: Path, three: Path, compared) -> Comparison:
    models = [bright(128, "<i>middle & edge.onnx"), bright(250), boxes]
    return compared(models, three, pictures=5)


def test_a_comparison_is_read_as_it_was_written(found: Comparison, tmp_path: Path) -> None:
    write_comparison(found, tmp_path / "c.json")
    assert read_comparison(tmp_path / "c.json") == found


def test_what_contradicts_itself_is_refused(found: Comparison, tmp_path: Path) -> None:
    def broken(change) -> str:
        raw = json.loads(found.model_dump_json())
        change(raw)
        return json.dumps(raw)

    def refused(text: str, words: str) -> None:
        with pytest.raises(ArtifactError, match=words):
            parse_comparison(text, "c.json")

    refused(broken(lambda raw: raw["contestants"][2]["missing"].pop("mask")), "has no mask and does not say why")
    refused(broken(lambda raw: raw["data"].update(frames=2)), "was not measured on all 2 frames")
    refused(broken(lambda raw: raw["contestants"][1].update(name="boxes.onnx")), "the same name")
    refused(broken(lambda raw: raw["gallery"][0]["seen"].pop()), "shows other contestants")
    refused(broken(lambda raw: raw.update(schema_version="2.0")), r"has schema 2\.0, this irforge reads 1\.0")
    refused("{}", "'c.json' is no comparison")
    with pytest.raises(ArtifactError, match=r"absent\.json' does not exist\. Check the path"):
        read_comparison(tmp_path / "absent.json")


def test_disagreement_is_the_variance_of_found_and_missed() -> None:
    truth = BoxTruth(np.array([(0, 0, 4, 4), (20, 20, 24, 24)], np.float32), np.zeros(2, np.int64))

    def answered(*boxes: tuple[float, float, float, float]):
        found = Detections(np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes)), np.zeros(len(boxes)))
        return match_boxes(found, truth, distance=3)

    both, one, none = answered((0, 0, 4, 4), (20, 20, 24, 24)), answered((0, 0, 4, 4)), answered()
    noisy = answered(*((30 + i, 0, 34 + i, 4) for i in range(9)))
    assert disagreement([both, both])[0] == disagreement([none, none])[0] == 0
    assert disagreement([both, one])[0] == 1
    assert disagreement([both, one, none, none])[0] == 4 * (0.5 * 0.5 + 0.25 * 0.75)
    # Nine false detections count as one: else the noisiest would choose the frames.
    assert disagreement([none, noisy])[0] == 1


def test_the_gallery_shows_the_worst_frames_first_and_no_others(found: Comparison) -> None:
    first, second, third = found.gallery
    # A model that finds nothing misses both targets of `a`, and the one of `b`; the clutter of `c` is false to others.
    assert [row.frame for row in found.gallery] == ["a", "b", "c"]
    assert first.amount == pytest.approx(2 * 4 * (2 / 3) * (1 / 3)) and second.amount == pytest.approx(8 / 9)
    assert [len(seen.found) for seen in first.seen] == [2, 0, 2] and first.seen[0].right == [True, True]
    # The picture's middle pixel, 32, is the target's: 3 x 3 around it.
    assert first.truth[0] == (31, 31, 34, 34) and third.targets == 0


def test_the_page_is_whole_and_reaches_for_nothing(found: Comparison) -> None:
    text = render(found)
    page = Page(text)
    assert "<i>middle & edge.onnx" in page.text and "i" not in page.tags and "script" not in page.tags
    assert page.links and all(link.startswith(("data:image/png;base64,", "#frame")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} == set(page.ids)
    assert len(page.ids) == len(set(page.ids)) == 3
    assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")
    assert page.tags.count("svg") == 4 + 3 * 4
    for words in (
        "it gives boxes",
        "Precision and recall",
        "Where they disagree",
        found.command,
        "3 frames, 3 targets",
    ):
        assert words in page.text


def test_the_terminal_fits_eighty_columns_and_says_what_is_missing(found: Comparison) -> None:
    out = io.StringIO()
    print_comparison(found, Console(file=out, width=80, highlight=False))
    tables, _, findings = out.getvalue().partition("Frames squashed to 64 × 64: ")
    assert findings and max(map(len, tables.splitlines())) <= 80
    (row,) = [line for line in tables.splitlines() if line.startswith("boxes.onnx") and line.count("100.0") > 2]
    assert row.split()[1:3] == ["–", "–"]


def test_the_csv_holds_every_figure_and_blanks_with_reasons(found: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["model"] for row in rows] == [one.name for one in found.contestants]
    assert tuple(rows[0]) == tuple(COLUMNS)
    assert rows[2]["iou"] == "" and "mask: it gives boxes" in rows[2]["missing"]
    assert float(rows[0]["fa"]) == found.contestants[0].mask.fa
    assert rows[1]["pd_3px"] == "0.0" and rows[0]["false_per_hour"] == "30000.0"


def test_axes_hold_all_values_and_names_do_not_cover_each_other() -> None:
    axis = powers("x", [0.0, 0.004, 20.0])
    assert (axis.low, axis.high) == (0.001, 100) and axis.share(0.0) == 0 and axis.share(100) == 1
    assert powers("x", [0.0]).ticks[0][1] == "0.01" and powers("x", [1e-7]).ticks[0][1] == "10⁻⁷"
    from irforge.runtime.comparison.plots import Series

    dots = [Series(i, name, [], (0.5, 0.5)) for i, name in enumerate(("one", "two"))]
    drawn = chart("t", rates("x"), rates("y"), dots, labels=True)
    heights = [part.split('y="')[1].split('"')[0] for part in drawn.split('class="name"')[1:]]
    assert len(set(heights)) == 2
    assert style_of(3) == "m3" and style_of(13) == "m3 dashed"
