"""How far apart two answers of a detector of boxes lie, and what INT8 in one place of it costs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.artifact import load_model, read_contract
from irforge.calib.collect import collect_ranges
from irforge.calib.costs import Cost, load_costs, save_costs
from irforge.calib.distance import distance, read_answer
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import load_ranges, save_ranges
from irforge.calib.sensitivity import measure_sensitivity
from irforge.detections import Detections
from irforge.frames import Geometry
from irforge.runtime.report.box_view import moves
from tests.box_model import box_frame, write_box_model


def detections(*rows: tuple[float, float, float, float, float]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], table[:, 4], np.zeros(len(table), np.int64))


def apart(one: Detections, other: Detections) -> Cost:
    assert distance([one], [other], 0.5) == distance([other], [one], 0.5)
    return distance([one], [other], 0.5)


def test_the_order_of_slots_makes_no_distance() -> None:
    one = detections((0, 0, 4, 4, 0.75), (20, 20, 24, 24, 0.75))
    other = detections((20, 20, 24, 24, 0.75), (0, 0, 4, 4, 0.75))
    assert apart(one, other) == Cost(difference=0, crossed=0)


def test_a_score_that_falls_and_a_box_that_moves_both_count() -> None:
    one = detections((0, 0, 4, 4, 0.75))
    assert apart(one, detections((0, 0, 4, 4, 0.25))) == Cost(difference=0.5, crossed=100)
    # Half of each box is shared: an IoU of a third.
    assert apart(one, detections((0, 2, 4, 6, 0.75))).difference == pytest.approx(0.75 * 2 / 3)
    assert apart(one, detections((0, 2, 4, 6, 0.25))).difference == pytest.approx(0.5 + 0.25 * 2 / 3)


def test_a_detection_without_a_partner_counts_whole() -> None:
    one = detections((0, 0, 4, 4, 0.75), (30, 30, 34, 34, 0.25))
    assert apart(one, Detections.empty()) == Cost(difference=1, crossed=100)
    assert apart(one, detections((0, 0, 4, 4, 0.75), (50, 50, 54, 54, 0.625))) == Cost(difference=0.875, crossed=100)


def test_distances_are_means_over_frames() -> None:
    one, nothing = detections((0, 0, 4, 4, 0.75)), Detections.empty()
    assert distance([one, one], [one, nothing], 0.5) == Cost(difference=0.375, crossed=50)


def test_pixels_of_the_padding_are_no_part_of_a_mask(attentive: Path) -> None:
    contract = read_contract(load_model(attentive))
    within = Geometry(10, 20, model_height=32, model_width=32, content_height=10, content_width=20, top=11, left=6)
    blank, around = np.zeros((1, 1, 32, 32), np.float32), np.ones((1, 1, 32, 32), np.float32)
    around[..., 11:21, 6:26] = 0
    around[..., 15, 8] = 0.75
    answers = [read_answer({"mask": mask}, contract, within) for mask in (blank, around)]
    assert distance(answers[:1], answers[1:], 0.5) == Cost(difference=0.75, crossed=100)


def test_places_of_a_detector_of_boxes_are_judged_by_what_it_finds(tmp_path: Path) -> None:
    model = write_box_model(tmp_path / "peaks.onnx")
    frames, ranges, path, output = (tmp_path / name for name in ("frames", "r.json", "c.json", "peaks.int8.onnx"))
    frames.mkdir()
    for i in range(4):
        frame = box_frame((10 + i, 20), (40, 30 + i), level=130 + 20 * i)
        cv2.imwrite(str(frames / f"{i}.png"), frame)
    save_ranges(ranges, collect_ranges(model, str(frames), threads=1))
    costs = measure_sensitivity(model, str(frames), ranges, threads=1)
    assert len(costs.places) == 2 and all(0 < place.difference < 4 for place in costs.places)
    assert costs.frames == 4 and costs.together.difference > 0
    save_costs(path, costs)
    assert load_costs(path, load_ranges(ranges), costs.method) == costs
    quantize_model(model, output, ranges, costs_path=path, int8_share=0.4)
    kept = [entry for entry in read_contract(load_model(output)).provenance.history[-1]["kept"] if "crossed" in entry]
    assert kept and moves(kept[0]).endswith("a frame")
