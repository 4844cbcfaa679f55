"""The search for the fewest places in FP16, and what quantisation makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from irforge.artifact import load_model, read_contract
from irforge.calib.costs import Cost, Event, PlaceCost, Search, load_costs, save_costs
from irforge.calib.crops import render
from irforge.calib.frames import open_frames
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import load_ranges
from irforge.calib.search import fewest_in_half
from irforge.calib.sensitivity import measure_sensitivity, sensitivity
from irforge.errors import UsageError
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
