from __future__ import annotations

import math

import pytest
import torch

from irforge.train.detectors.twostage.boxes import (
    DETECTION_WEIGHTS,
    PROPOSAL_WEIGHTS,
    anchor_grid,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    have_area,
    iou_of,
)

SIZES, RATIOS = (32.0, 64.0, 128.0, 256.0, 512.0), (0.5, 1.0, 2.0)


def test_anchors_of_c4_are_the_published_ones() -> None:
    grid = anchor_grid(50, 76, 16, SIZES, RATIOS)
    assert grid.shape == (57_000, 4)
    first = [[-22.6274, -11.3137, 22.6274, 11.3137], [-16, -16, 16, 16], [-11.3137, -22.6274, 11.3137, 22.6274]]
    assert grid[:3].tolist() == [pytest.approx(row, abs=1e-4) for row in first]
    assert grid[15].tolist() == pytest.approx([-6.6274, -11.3137, 38.6274, 11.3137], abs=1e-4)
    below = grid[76 * 15]
    assert below.tolist() == pytest.approx([-22.6274, 16 - 11.3137, 22.6274, 16 + 11.3137], abs=1e-4)


def test_decoding_has_the_published_values() -> None:
    box = decode_boxes(torch.tensor([1, 1, 0.5, 0.5]), torch.tensor([0.0, 0, 10, 20]), DETECTION_WEIGHTS)
    assert box.tolist() == pytest.approx([0.474145, 0.948291, 11.525854, 23.051709], abs=1e-5)


def test_sides_grow_62_5_fold_at_most() -> None:
    box = decode_boxes(torch.tensor([0, 0, 100.0, math.log(2)]), torch.tensor([0.0, 0, 8, 8]), PROPOSAL_WEIGHTS)
    assert box.tolist() == pytest.approx([4 - 250, 4 - 8, 4 + 250, 4 + 8], rel=1e-5)


@pytest.mark.parametrize("weights", [PROPOSAL_WEIGHTS, DETECTION_WEIGHTS])
def test_decoding_undoes_encoding(weights: tuple[float, ...]) -> None:
    corners = torch.rand(2, 40, 2, generator=torch.Generator().manual_seed(0)) * 90
    boxes, origins = torch.cat([corners, corners + 4 + corners.flip(1) / 3], dim=2)
    assert torch.allclose(decode_boxes(encode_boxes(boxes, origins, weights), origins, weights), boxes, atol=1e-3)


def test_clipping_and_area() -> None:
    boxes = clip_boxes(torch.tensor([[-5.0, -5, 5, 5], [90, 10, 140, 200], [110, 5, 130, 9]]), 50, 100)
    assert boxes.tolist() == [[0, 0, 5, 5], [90, 10, 100, 50], [100, 5, 100, 9]]
    assert have_area(boxes).tolist() == [True, True, False]


def test_iou_of_known_pairs() -> None:
    ones = torch.tensor([[0.0, 0, 4, 4], [0, 0, 0, 0]])
    others = torch.tensor([[2.0, 0, 6, 4], [4, 4, 8, 8], [0, 0, 4, 4]])
    assert iou_of(ones, others).tolist() == [pytest.approx([1 / 3, 0, 1]), [0, 0, 0]]
