"""Promises of pairing two answers to the same frame."""

from __future__ import annotations

import numpy as np

from irforge.detections import Detections
from irforge.runtime.pairing import crossings, pair_detections


def detections(*rows: tuple[float, float, float, float, float], classes: list[int] | None = None) -> Detections:
    """Rows of (left, top, right, bottom, score)."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], table[:, 4], np.array(classes or [0] * len(table)))


def pairs(one: Detections, other: Detections) -> list[tuple[int, int]]:
    found = pair_detections(one, other)
    assert sorted([*found.one, *found.only_one]) == list(range(len(one)))
    assert sorted([*found.other, *found.only_other]) == list(range(len(other)))
    return sorted(zip(found.one.tolist(), found.other.tolist(), strict=True))


def test_partners_are_found_whatever_slot_they_stand_in() -> None:
    one = detections((0, 0, 3, 3, 0.9), (20, 20, 24, 23, 0.8))
    other = detections((20, 20, 24, 23, 0.9), (0, 0, 3, 3, 0.7))
    assert pairs(one, other) == [(0, 1), (1, 0)]


def test_a_tiny_target_keeps_its_partner_without_overlap_and_a_large_one_although_its_centre_moves() -> None:
    tiny = pairs(detections((10, 10, 11, 11, 0.9)), detections((12, 10, 13, 11, 0.9)))
    large = pairs(detections((0, 0, 60, 60, 0.9)), detections((0, 0, 60, 50, 0.9)))
    assert tiny == large == [(0, 0)]
    assert pairs(detections((10, 10, 11, 11, 0.9)), detections((13, 10, 14, 11, 0.9))) == []


def test_the_nearest_are_paired_first_and_each_once() -> None:
    one = detections((10, 10, 13, 13, 0.9), (11, 10, 14, 13, 0.8))
    other = detections((11, 10, 14, 13, 0.9))
    assert pairs(one, other) == [(1, 0)]
    assert pairs(other, one) == [(0, 1)]


def test_equal_boxes_are_paired_by_score() -> None:
    one = detections((1, 1, 4, 4, 0.9), (1, 1, 4, 4, 0.3))
    other = detections((1, 1, 4, 4, 0.31))
    assert pairs(one, other) == [(1, 0)]


def test_classes_and_empty_answers_have_no_partners() -> None:
    box = (1, 1, 4, 4, 0.9)
    assert pairs(detections(box), detections(box, classes=[1])) == []
    assert pairs(detections(box), Detections.empty()) == pairs(Detections.empty(), detections(box)) == []


def test_crossings_count_pairs_and_what_stands_alone_above_the_threshold() -> None:
    one = detections((0, 0, 3, 3, 0.6), (20, 20, 23, 23, 0.55), (40, 40, 43, 43, 0.4))
    other = detections((0, 0, 3, 3, 0.4), (20, 20, 23, 23, 0.51), (50, 50, 53, 53, 0.7))
    assert crossings(one, other, pair_detections(one, other), 0.5) == 2
    assert crossings(one, other, pair_detections(one, other), 0.52) == 3
    assert crossings(one, one, pair_detections(one, one), 0.5) == 0
