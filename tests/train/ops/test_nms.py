"""Suppression without a loop is greedy suppression, or says that it is not."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from irforge.export.convert import onnx_from_part
from irforge.train.ops.nms import greedy_nms, pairwise_iou


def iou(a: Tensor, b: Tensor) -> float:
    width = min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0]))
    height = min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1]))
    shared = max(width, 0) * max(height, 0)
    return shared / float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def by_the_book(boxes: Tensor, threshold: float, classes: Tensor | None = None) -> list[bool]:
    kept: list[int] = []
    for i, box in enumerate(boxes):
        rivals = [j for j in kept if classes is None or classes[i] == classes[j]]
        if all(iou(box, boxes[j]) <= threshold for j in rivals):
            kept.append(i)
    return [i in kept for i in range(len(boxes))]


def crowd(count: int, seed: int, spread: float = 40.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    size = torch.rand(count, 2, generator=generator) * 12 + 2
    return torch.cat([corner, corner + size], dim=1)


def chain(count: int) -> Tensor:
    """Each box overlaps its neighbours by IoU 0.6 and the ones beyond by 1/3, so every other one is kept."""
    x = torch.arange(count) * 2.5
    return torch.stack([x, torch.zeros(count), x + 10, torch.full((count,), 10.0)], dim=1)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(6))
def test_a_crowd_of_boxes_is_thinned_as_the_greedy_loop_does(seed: int, threshold: float) -> None:
    boxes = torch.stack([crowd(150, seed), crowd(150, seed + 100, spread=15.0)])
    found = greedy_nms(boxes, threshold)
    assert found.converged.all()
    assert found.keep.tolist() == [by_the_book(part, threshold) for part in boxes]
    assert not found.keep.all()


def test_boxes_of_different_classes_let_each_other_be() -> None:
    boxes = crowd(120, 3, spread=20.0)
    classes = torch.arange(120) % 3
    found = greedy_nms(boxes[None], 0.5, classes[None])
    assert found.keep[0].tolist() == by_the_book(boxes, 0.5, classes)
    assert found.keep.sum() > greedy_nms(boxes[None], 0.5).keep.sum()


@pytest.mark.parametrize("count", [2, 5, 16])
def test_a_chain_of_verdicts_that_fits_the_rounds_is_solved(count: int) -> None:
    found = greedy_nms(chain(count)[None], 0.5)
    assert found.converged.all()
    assert found.keep[0].tolist() == [i % 2 == 0 for i in range(count)] == by_the_book(chain(count), 0.5)


def test_a_chain_too_long_for_the_rounds_is_reported_and_loses_no_box() -> None:
    boxes = torch.stack([chain(40), crowd(40, 1, spread=200.0)])
    found = greedy_nms(boxes, 0.5)
    assert found.converged.tolist() == [False, True]
    exact = torch.tensor(by_the_book(boxes[0], 0.5))
    assert found.keep[0][exact].all()
    assert found.keep[0].sum() > exact.sum()
    enough = greedy_nms(boxes, 0.5, rounds=42)
    assert enough.converged.all()
    assert enough.keep[0].tolist() == exact.tolist()


def test_an_overlap_equal_to_the_threshold_suppresses_nothing() -> None:
    halves = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 8, 4]]])
    assert pairwise_iou(halves)[0, 0, 1] == 0.5
    assert greedy_nms(halves, 0.5).keep.all()
    assert greedy_nms(halves, 0.49).keep.tolist() == [[True, False]]


def test_overlaps_are_exact_for_small_boxes_far_from_the_corner_even_from_half_precision() -> None:
    near = torch.tensor([[[0.0, 0, 3, 3], [1, 0, 4, 3]]])
    far = near + 1000
    assert torch.equal(pairwise_iou(far.half()), pairwise_iou(near))
    assert pairwise_iou(far.half()).dtype == torch.float32


def test_empty_slots_suppress_nothing() -> None:
    boxes = torch.tensor([[[0.0, 0, 5, 5], [9, 9, 9, 9], [9, 9, 9, 9], [7, 3, 2, 1]]])
    assert greedy_nms(boxes, 0.5).keep.all()


@pytest.mark.parametrize("rounds", [0, 1, 7])
def test_odd_rounds_which_could_lose_boxes_are_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match="even number"):
        greedy_nms(chain(3)[None], 0.5, rounds=rounds)


class Suppression(nn.Module):
    def forward(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        found = greedy_nms(boxes, 0.5)
        return found.keep.float(), found.converged.float()


def test_the_graph_has_no_operator_of_a_size_that_depends_on_values_and_keeps_the_same_boxes() -> None:
    boxes = torch.stack([crowd(100, 7), crowd(100, 8)])
    model, _ = onnx_from_part(Suppression(), {"boxes": boxes}, ["keep", "converged"], "nms")
    assert {node.op_type for node in model.graph.node}.isdisjoint({"NonZero", "NonMaxSuppression", "Loop", "If"})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    keep, converged = session.run(None, {"boxes": boxes.numpy()})
    expected = greedy_nms(boxes, 0.5)
    assert np.array_equal(keep > 0.5, expected.keep.numpy())
    assert np.array_equal(converged > 0.5, expected.converged.numpy())
