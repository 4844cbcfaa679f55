from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from irforge.train.detectors.twostage import rpn
from irforge.train.detectors.twostage.boxes import iou_of
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.rpn import (
    RpnMaps,
    anchors_of,
    fixed_proposals,
    rows_of,
    survivors,
    training_proposals,
)

SIZE = (64, 96)


def crowd(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    return torch.from_numpy(np.concatenate([corners, corners + rng.uniform(5, 40, (count, 2))], 1).astype(np.float32))


def one_by_one(boxes: torch.Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for index in range(len(boxes)):
        if not kept or not (iou_of(boxes[index : index + 1], boxes[kept]) > threshold).any():
            kept.append(index)
    return kept


@pytest.mark.parametrize("block", [7, 64, 1024])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_survivors_are_those_of_greedy_suppression(
    block: int, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpn, "_BLOCK", block)
    boxes = crowd(150)
    expected = one_by_one(boxes, threshold)
    assert 10 < len(expected) < 150
    assert survivors(boxes, threshold, 1000).tolist() == expected
    assert survivors(boxes, threshold, 5).tolist() == expected[:5]
    assert survivors(boxes[:0], threshold, 5).tolist() == []


def test_rows_follow_the_anchors() -> None:
    """Cell by cell, and in a cell anchor by anchor; channel 4a + c of the shifts is coordinate c of anchor a."""
    logits = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    deltas = torch.arange(2 * 12 * 2 * 2.0).view(2, 12, 2, 2)
    (score,), (shift,) = rows_of(RpnMaps([logits], [deltas]))
    assert score.shape == (2, 12) and shift.shape == (2, 12, 4)
    for row in range(2):
        for column in range(2):
            for anchor in range(3):
                place = (row * 2 + column) * 3 + anchor
                assert score[1, place] == logits[1, anchor, row, column]
                assert torch.equal(shift[1, place], deltas[1, 4 * anchor : 4 * anchor + 4, row, column])


@pytest.mark.parametrize("pyramid", [False, True])
def test_deployed_proposals_are_those_of_training(lively: Callable[..., TwoStage], pyramid: bool) -> None:
    network = lively(pyramid=pyramid)
    with torch.no_grad():
        maps = network(torch.randn(2, 1, *SIZE)).rpn
    levels = len(maps.logits)
    boxes, real = fixed_proposals(maps, network.anchors, SIZE, 60 * levels, 40)
    assert boxes.shape == (2, 40, 4) and real.shape == (2, 40)
    expected = training_proposals(maps, network.anchors, SIZE, 60, 40)
    for found, exists, wanted in zip(boxes, real, expected, strict=True):
        assert len(wanted) > 5 and int(exists.sum()) == len(wanted)
        assert torch.allclose(found[exists], wanted, atol=1e-4)


def test_missing_proposals_are_padding() -> None:
    network = TwoStage(depth=18, pyramid=False, anchor_sizes=(16,), anchor_ratios=(1.0,))
    maps = RpnMaps([torch.tensor([[[[3.0, 1.0]]]])], [torch.zeros(1, 4, 1, 2)])
    boxes, real = fixed_proposals(maps, network.anchors, (16, 32), 100, 5)
    assert real.tolist() == [[True, True, False, False, False]]
    assert boxes[0, :2].tolist() == [[0, 0, 8, 8], [8, 0, 24, 8]]


def test_all_levels_have_their_own_anchors() -> None:
    with torch.device("meta"):
        network = TwoStage(depth=18, pyramid=True)
    logits = [torch.zeros(1, 3, 64 // s, 64 // s) for s in network.strides]
    grids = anchors_of(RpnMaps(logits, []), network.anchors)
    assert [len(grid) for grid in grids] == [3 * (64 // s) ** 2 for s in network.strides]
    assert [round(float(g[1, 2] - g[1, 0])) for g in grids] == [32, 64, 128, 256, 512]
