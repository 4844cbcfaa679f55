"""What INT8 costs convolution by convolution, and what quantisation makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irforge.artifact import load_model, read_contract
from irforge.calib.costs import Costs, PlaceCost, costliest, load_costs, save_costs
from irforge.calib.distance import distance
from irforge.calib.placement import place
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import load_ranges, save_ranges
from irforge.calib.sensitivity import measure_sensitivity
from irforge.errors import CalibrationError, UsageError
from irforge.graph import Graph
from tests.calib.conftest import SIDE

SIZES = {"frames": (1, 1, SIDE, SIDE)}


@pytest.fixture(scope="module")
def costs(attentive: Path, attentive_ranges: Path, frame_folder: Path) -> Costs:
    return measure_sensitivity(attentive, str(frame_folder), attentive_ranges, limit=3, threads=1)


@pytest.fixture(scope="module")
def costs_file(costs: Costs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("costs") / "costs.json"
    save_costs(path, costs)
    return path


def cost(name: str, difference: float, share: float) -> PlaceCost:
    return PlaceCost(nodes=[name], weights=["w"], share=share, difference=difference, crossed=0)


def test_every_convolution_that_would_be_quantised_has_its_cost(
    costs: Costs, attentive: Path, attentive_ranges: Path
) -> None:
    placement = place(Graph(load_model(attentive)), load_ranges(attentive_ranges).tensors, "minmax", sizes=SIZES)
    assert sorted(node for found in costs.places for node in found.nodes) == sorted(placement.convolutions)
    assert sum(found.share for found in costs.places) == pytest.approx(placement.share)
    assert all(found.difference > 0 for found in costs.places)
    assert costs.together.difference > max(found.difference for found in costs.places)


def test_convolutions_that_read_one_tensor_are_judged_together(costs: Costs, attentive: Path) -> None:
    """They share its Q/DQ pair: leaving one of them in FP16 would leave the other's rounding in."""
    sources = {node.output[0]: node.input[0] for node in Graph(load_model(attentive)).of_type("Conv")}
    read = [{sources[node] for node in found.nodes} for found in costs.places]
    assert all(len(names) == 1 for names in read) and len(set.union(*read)) == len(read)
    assert max(len(found.nodes) for found in costs.places) == 2


def test_costs_are_the_same_each_time(
    costs: Costs, attentive: Path, attentive_ranges: Path, frame_folder: Path
) -> None:
    assert measure_sensitivity(attentive, str(frame_folder), attentive_ranges, limit=3, threads=1) == costs


def test_a_coarser_range_costs_more(
    costs: Costs, attentive: Path, attentive_ranges: Path, frame_folder: Path, tmp_path: Path
) -> None:
    """A range a hundred times too wide makes the place that reads it costlier by far."""
    ranges = load_ranges(attentive_ranges)
    index, cheapest = min(enumerate(costs.places), key=lambda pair: pair[1].difference)
    (source,) = {n.input[0] for n in Graph(load_model(attentive)).of_type("Conv") if n.output[0] in cheapest.nodes}
    found = ranges.tensors[source]
    wide = {"thresholds": {"minmax": 100 * found.absmax}, "min": 100 * found.min, "max": 100 * found.max}
    path = tmp_path / "wide.json"
    stretched = ranges.tensors | {source: found.model_copy(update=wide)}
    save_ranges(path, ranges.model_copy(update={"tensors": stretched}))
    again = measure_sensitivity(attentive, str(frame_folder), path, limit=3, threads=1)
    assert again.places[index].difference > 10 * cheapest.difference


def test_distance_counts_what_crosses_the_threshold() -> None:
    reference = [np.float32([[0.4, 0.6], [0.5, 0.0]]), np.zeros((2, 2), np.float32)]
    found = [np.float32([[0.6, 0.4], [0.5, 0.0]]), np.zeros((2, 2), np.float32)]
    assert distance(reference, found, 0.5).crossed == 100
    assert distance(reference, found, 0.5).difference == pytest.approx(0.2)


def test_what_costs_most_for_its_work_is_left_first_and_the_rest_stays_int8() -> None:
    places = [cost("dear", 5, 0.05), cost("big", 6, 0.5), cost("cheap", 0.1, 0.4), cost("second", 0.9, 0.05)]
    assert costliest(places, 0.9) == ["dear", "second"]
    assert costliest(places, 0.95) == ["dear"]
    assert costliest(places, 1.0) == []


def test_what_is_no_dearer_than_its_work_stays_int8() -> None:
    assert costliest([cost("a", 1, 0.5), cost("b", 1, 0.5)], 0.4) == []


def test_what_quantise_leaves_is_in_the_contract_with_its_cost(
    attentive: Path, attentive_ranges: Path, costs: Costs, costs_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mixed.onnx"
    report = quantize_model(attentive, output, attentive_ranges, costs_path=costs_file, int8_share=0.7)
    left = costliest(costs.places, 0.7)
    assert left and report.quantized is not None and 0.7 <= report.quantized < 0.98
    noted = {entry["node"]: entry for entry in read_contract(load_model(output)).provenance.history[-1]["kept"]}
    weights = {node.output[0]: node.input[1] for node in Graph(load_model(attentive)).of_type("Conv")}
    for name in left:
        assert "accuracy" in noted[name]["reason"]
        assert {key: noted[name][key] for key in ("difference", "crossed", "lost", "alarms")} == costs.of(name)
        assert noted[name]["weight"] == weights[name]


def test_leaving_the_costliest_brings_answers_closer(
    attentive: Path, attentive_ranges: Path, costs_file: Path, tmp_path: Path, run_model, frames_tensor: np.ndarray
) -> None:
    whole, mixed = tmp_path / "whole.onnx", tmp_path / "mixed.onnx"
    quantize_model(attentive, whole, attentive_ranges)
    quantize_model(attentive, mixed, attentive_ranges, costs_path=costs_file, int8_share=0.6)
    expected, plain, better = (run_model(path, frames_tensor) for path in (attentive, whole, mixed))
    assert np.abs(better - expected).sum() < np.abs(plain - expected).sum()


def test_costs_of_other_ranges_are_stale(attentive: Path, attentive_ranges: Path, costs: Costs, tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    save_costs(path, costs.model_copy(update={"ranges_key": "other"}))
    with pytest.raises(CalibrationError, match="stale costs"):
        quantize_model(attentive, tmp_path / "o.onnx", attentive_ranges, costs_path=path)
    save_costs(path, costs.model_copy(update={"ranges_key": "other", "model": "acm.onnx"}))
    with pytest.raises(CalibrationError, match=r"costs\.json' is of acm\.onnx, not attentive\.onnx"):
        quantize_model(attentive, tmp_path / "o.onnx", attentive_ranges, costs_path=path)
    save_costs(path, costs)
    with pytest.raises(CalibrationError, match="stale costs"):
        quantize_model(attentive, tmp_path / "o.onnx", attentive_ranges, costs_path=path, method="mse")
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": "2.0"}', '{"schema_version": "1.0"}'])
def test_an_unreadable_cost_file_is_one_line(attentive_ranges: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content)
    with pytest.raises(CalibrationError, match="costs"):
        load_costs(path, load_ranges(attentive_ranges), "minmax")
    with pytest.raises(CalibrationError, match="does not exist"):
        load_costs(tmp_path / "none.json", load_ranges(attentive_ranges), "minmax")


def test_an_int8_share_out_of_range_is_refused(attentive: Path, attentive_ranges: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="share"):
        quantize_model(attentive, tmp_path / "o.onnx", attentive_ranges, int8_share=1.5)


def test_an_int8_share_without_costs_is_refused(attentive: Path, attentive_ranges: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Give --sensitivity"):
        quantize_model(attentive, tmp_path / "o.onnx", attentive_ranges, int8_share=0.5)
    assert not (tmp_path / "o.onnx").exists()


def test_the_cost_file_is_plain_json(costs_file: Path, costs: Costs) -> None:
    assert json.loads(costs_file.read_text())["frames"] == costs.frames == 3
