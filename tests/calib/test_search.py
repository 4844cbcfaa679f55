"""The search for the fewest places in FP16, and what quantisation makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.artifact import load_model, read_contract
from irforge.calib.costs import Cost, Costs, Event, PlaceCost, Search, load_costs, save_costs
from irforge.calib.crops import RADIUS, render, write_crops
from irforge.calib.frames import open_frames
from irforge.calib.losses import frames_for, too_few
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import load_ranges
from irforge.calib.search import fewest_in_half
from irforge.calib.sensitivity import measure_sensitivity, sensitivity
from irforge.errors import UsageError
from irforge.frames import read_frame
from irforge.runtime.report.pictures import neighbourhood_png
from tests.calib.conftest import SIDE

DEAR = {"a": 8.0, "b": 4.0, "c": 2.0, "d": 1.0, "e": 0.5}


def place(name: str, difference: float) -> PlaceCost:
    return PlaceCost(nodes=[name], weights=[f"{name}.weight"], share=0.2, difference=difference, crossed=0)


PLACES = [place(name, difference) for name, difference in DEAR.items()]


def added(places: Sequence[PlaceCost]) -> Cost:
    """Costs that add up, and a target lost for each whole unit."""
    total = sum(DEAR[place.nodes[0]] for place in places)
    return Cost(difference=total, crossed=0, lost=float(int(total)))


def found(max_loss: float | None = None, max_difference: float | None = None) -> Search:
    return fewest_in_half(PLACES, added, max_loss=max_loss, max_difference=max_difference)


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(0, "abcde"), (0.4, "abcde"), (0.5, "abcd"), (1.6, "abc"), (4, "ab"), (7.4, "ab"), (7.5, "a"), (15.5, "")],
)
def test_as_few_stay_in_half_precision_as_the_limit_allows(limit: float, kept: str) -> None:
    result = found(max_difference=limit)
    assert "".join(sorted(result.kept)) == kept
    assert result.cost.difference == pytest.approx(sum(DEAR.values()) - sum(DEAR[name] for name in kept))
    assert result.share == pytest.approx(0.2 * len(kept))


def test_both_limits_hold() -> None:
    assert "".join(sorted(found(max_loss=1).kept)) == "abc"
    assert "".join(sorted(found(max_loss=1, max_difference=1.2).kept)) == "abcd"


def test_a_place_that_the_joint_trial_does_not_need_goes_back_to_int8() -> None:
    """'a' looks dearest alone, but together only 'c' does harm."""

    def judge(places: Sequence[PlaceCost]) -> Cost:
        return Cost(difference=9.0 if "c" in {place.nodes[0] for place in places} else 0.1, crossed=0)

    result = fewest_in_half(PLACES, judge, max_loss=None, max_difference=1)
    assert result.kept == ["c"] and result.cost.difference == 0.1


def test_no_set_is_tried_twice() -> None:
    seen: list[tuple[str, ...]] = []

    def judge(places: Sequence[PlaceCost]) -> Cost:
        seen.append(tuple(place.nodes[0] for place in places))
        return added(places)

    result = fewest_in_half(PLACES, judge, max_loss=None, max_difference=1.6)
    assert len(seen) == len(set(seen)) == result.trials


def test_a_search_is_kept_and_quantise_goes_by_it(
    attentive: Path, attentive_ranges: Path, frame_folder: Path, tmp_path: Path
) -> None:
    whole = measure_sensitivity(attentive, str(frame_folder), attentive_ranges, limit=2, threads=1)
    allowed = whole.together.difference / 2
    costs = measure_sensitivity(
        attentive, str(frame_folder), attentive_ranges, limit=2, threads=1, max_difference=allowed
    )
    assert costs.search is not None and costs.search.cost.difference <= allowed
    assert 0 < len(costs.search.kept) < sum(len(place.nodes) for place in costs.places)
    path, output = tmp_path / "costs.json", tmp_path / "mixed.onnx"
    save_costs(path, costs)
    assert load_costs(path, load_ranges(attentive_ranges), "minmax") == costs
    quantize_model(attentive, output, attentive_ranges, costs_path=path)
    noted = read_contract(load_model(output)).provenance.history[-1]["kept"]
    assert {entry["node"] for entry in noted if "accuracy" in entry["reason"]} == set(costs.search.kept)
    # A share that is asked for goes before the search.
    quantize_model(attentive, output, attentive_ranges, costs_path=path, int8_share=1.0)
    assert not [
        e for e in read_contract(load_model(output)).provenance.history[-1]["kept"] if "accuracy" in e["reason"]
    ]


def test_the_command_searches_and_writes_a_page_with_crops(
    attentive: Path, attentive_ranges: Path, frame_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs, page = tmp_path / "costs.json", tmp_path / "crops.html"
    source = str(frame_folder)
    sensitivity(attentive, source, attentive_ranges, costs, limit=2, max_difference=1000, crops=page)
    said = " ".join(capsys.readouterr().out.split())
    assert "left in FP16 0 of" in said.replace("│ ", "")
    assert json.loads(costs.read_text())["search"]["kept"] == []
    assert "everywhere but in 0 convolutions" in page.read_text()
    with pytest.raises(UsageError, match="does not end in"):
        sensitivity(attentive, source, attentive_ranges, costs, limit=2, crops=tmp_path / "crops.txt")


def test_crops_show_what_is_lost_and_what_is_new(frame_folder: Path, attentive: Path, attentive_ranges: Path) -> None:
    costs = measure_sensitivity(attentive, str(frame_folder), attentive_ranges, limit=1, threads=1)
    lost = Event(kind="lost", frame="00", box=(4, 6, 7, 8), score=0.75)
    alarm = Event(kind="alarm", frame="01", box=(SIDE - 2, 1, SIDE, 3), score=0.5)
    place = costs.places[0].model_copy(update={"events": [lost, alarm], "lost": 100.0, "alarms": 100.0})
    samples = {sample.id: sample for sample in open_frames(str(frame_folder))}
    page = render(costs.model_copy(update={"places": [place, *costs.places[1:]]}), samples)
    assert page.count("data:image/png") == 2
    # The box, 1.5 pixels larger on each side, in a crop whose middle is the target's pixel (5, 6).
    assert '<rect class="right" x="13.5" y="14.5" width="6" height="5"/>' in page
    assert "lost, score 0.75" in page and "new alarm, score 0.50" in page
    assert "<script" not in page


def test_an_event_is_shown_on_its_own_frame_where_files_share_a_stem(tmp_path: Path) -> None:
    pictures = {}
    for row, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        frame = np.full((SIDE, SIDE), 90, np.uint8)
        frame[4 + 8 * row, 9] = 200
        path = tmp_path / folder / "0001.png"
        cv2.imwrite(str(path), frame)
        pictures[folder] = neighbourhood_png(read_frame(path), 4, 9, radius=RADIUS, stretch=True)
    source, page = tmp_path / "list.txt", tmp_path / "crops.html"
    source.write_text("a/0001.png\nb/0001.png\n")
    lost = Event(kind="lost", frame=open_frames(str(source))[0].id, box=(9, 4, 10, 5), score=0.75)
    cost = Cost(difference=1, crossed=50, lost=50, events=[lost])
    named = {"model": "m.onnx", "ranges_key": "key", "method": "minmax", "source": str(source), "frames": 2}
    write_crops(page, Costs(**named, together=cost, places=PLACES))
    assert pictures["a"] in page.read_text() and pictures["b"] not in page.read_text()
    assert "a/0001.png" in page.read_text()


@pytest.mark.parametrize(("max_loss", "frames"), [(12.5, 8), (9, 12), (4.2, 24), (1, 100), (0.3, 334)])
def test_one_target_of_so_many_frames_is_within_the_loss(max_loss: float, frames: int) -> None:
    assert frames_for(max_loss) == frames and not too_few(max_loss, frames)
    assert "one target in " in too_few(max_loss, frames - 1)
    assert not too_few(0, 8)


def test_a_loss_takes_the_frames_that_it_needs(
    attentive: Path, attentive_ranges: Path, frame_folder: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    many = tmp_path / "many.txt"
    many.write_text("".join(f"{path.resolve()}\n" for path in sorted(frame_folder.iterdir())) * 3)

    def frames(source: Path, limit: int | None) -> int:
        options = {"limit": limit, "max_loss": 9.0, "threads": 1, "on_note": notes.append}
        return measure_sensitivity(attentive, str(source), attentive_ranges, **options).frames

    assert frames(many, None) == 12 and not notes
    assert frames(frame_folder, None) == 6 and frames(many, 2) == 2
    assert [note.partition(" in 100")[0] for note in notes] == [
        "one target in 6 frames is 16.7",
        "one target in 2 frames is 50.0",
    ]


def test_costs_are_on_disk_before_the_search_and_frames_too_few_are_told_of(
    attentive: Path,
    attentive_ranges: Path,
    frame_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> Search:
        raise KeyboardInterrupt

    monkeypatch.setattr("irforge.calib.search.fewest_in_half", interrupted)
    path = tmp_path / "costs.json"
    with pytest.raises(KeyboardInterrupt):
        sensitivity(attentive, str(frame_folder), attentive_ranges, path, limit=1, max_loss=1)
    costs = load_costs(path, load_ranges(attentive_ranges), "minmax")
    assert costs.places and costs.search is None
    assert [file.name for file in tmp_path.iterdir()] == ["costs.json"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("irforge: one target in 1 frame is 100.0 in 100: ") and "100 frames" in line
