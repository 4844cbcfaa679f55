"""Boxes are compared as detections: rounding may reorder slots, but must not move, lose or invent a box."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from irforge.contract import Contract, InputSpec, Normalization, OutputSpec, Provenance, Squash, TensorSpec
from irforge.export.verify import differences

BOXES = [[10, 10, 16, 14], [40, 30, 43, 32], [5, 50, 9, 55]]
SCORES = [0.9, 0.5, 0.5]


def contract() -> Contract:
    names = {"boxes": "float32", "scores": "float32", "classes": "int64"}
    tensors = [TensorSpec(name=name, dtype=dtype, shape=["N"], meaning="") for name, dtype in names.items()]
    spec = InputSpec(height=64, width=64, fit=Squash(), normalization=Normalization(mean=0, std=1))
    output = OutputSpec(kind="boxes", classes=["target", "bird"], score_threshold=0.3, tensors=tensors)
    return Contract(input=spec, output=output, provenance=Provenance(detector="x"))


def answer(boxes: Any = BOXES, scores: Any = SCORES, classes: Any = (0, 0, 0)) -> dict[str, np.ndarray]:
    return {
        "boxes": np.array([boxes], np.float32).reshape(1, -1, 4),
        "scores": np.array([scores], np.float32),
        "classes": np.array([classes], np.int64),
    }


def test_equal_answers_in_another_order_of_equal_scores_do_not_differ() -> None:
    swapped = answer([BOXES[0], BOXES[2], BOXES[1]])
    assert differences(answer(), swapped, contract()) == {"boxes": 0.0, "scores": 0.0, "classes": 0.0}


def test_moved_boxes_and_changed_scores_are_measured() -> None:
    moved = np.array(BOXES, np.float32)
    moved[1, 2] += 0.25
    found = differences(answer(), answer(moved, [0.9, 0.5, 0.4]), contract())
    assert found == pytest.approx({"boxes": 0.25, "scores": 0.1, "classes": 0.0}, abs=1e-6)


@pytest.mark.parametrize("other", [answer(classes=(0, 1, 0)), answer([BOXES[0], [40, 10, 43, 12], BOXES[2]])])
def test_a_box_that_only_one_answer_has_counts_by_its_score_where_slots_are_empty(other: dict[str, np.ndarray]) -> None:
    def with_empty_slot(one: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        padding = {"boxes": ((0, 0), (0, 1), (0, 0))}
        return {name: np.pad(part, padding.get(name, ((0, 0), (0, 1)))) for name, part in one.items()}

    found = differences(with_empty_slot(answer()), with_empty_slot(other), contract())
    assert found["scores"] == pytest.approx(0.5)


def test_a_box_at_the_cut_of_full_slots_may_be_another() -> None:
    other = answer([*BOXES[:2], [50, 50, 54, 54]])
    assert differences(answer(), other, contract())["scores"] == 0.0


def test_values_that_are_not_finite_never_pass() -> None:
    broken = answer(scores=[0.9, math.nan, 0.5])
    assert all(math.isnan(value) for value in differences(answer(), broken, contract()).values())


def test_faint_boxes_without_a_partner_are_rounding() -> None:
    faint, elsewhere = [0.9, 0.5, 0.02], [*BOXES[:2], [50, 50, 54, 54]]
    empty = answer([*BOXES[:2], [0, 0, 0, 0]], [0.9, 0.5, 0.0])
    assert differences(answer(scores=faint), answer(elsewhere, faint), contract())["scores"] == 0.0
    assert differences(answer(scores=faint), empty, contract())["scores"] == 0.0


def test_where_a_faint_maximum_lies_is_rounding() -> None:
    """The cells of a plain frame are all alike, and the next one may be the highest."""
    moved = np.array(BOXES, np.float32)
    moved[1, [0, 2]] += 1
    scores = [0.9, 0.02, 0.01]
    assert differences(answer(scores=scores), answer(moved, scores), contract())["boxes"] == 0.0
