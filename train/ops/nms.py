"""Greedy non-maximum suppression of a fixed shape: no loop over boxes, no size that depends on values.

It exports to operators that every TensorRT has, where ONNX's own NonMaxSuppression has a size that depends on values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDS = 16


class Kept(NamedTuple):
    """keep: bool N x K. converged: bool N; True proves that `keep` is what greedy suppression keeps."""

    keep: Tensor
    converged: Tensor


def pairwise_iou(boxes: Tensor) -> Tensor:
    """IoU of all pairs, float32 N x K x K, of boxes N x K x 4 as xyxy; 0 with a box whose sides are not positive."""
    x0, y0, x1, y1 = boxes.float().unbind(-1)
    across = torch.minimum(x1[:, :, None], x1[:, None]) - torch.maximum(x0[:, :, None], x0[:, None])
    down = torch.minimum(y1[:, :, None], y1[:, None]) - torch.maximum(y0[:, :, None], y0[:, None])
    shared = across.clamp_min(0) * down.clamp_min(0)
    area = (x1 - x0).clamp_min(0) * (y1 - y0).clamp_min(0)
    union = area[:, :, None] + area[:, None] - shared
    return shared / union.clamp_min(torch.finfo(torch.float32).tiny)


def greedy_nms(boxes: Tensor, threshold: float, classes: Tensor | None = None, rounds: int = ROUNDS) -> Kept:
    """Which boxes greedy suppression keeps: those that no kept box of a higher score overlaps with IoU > `threshold`.

    Kept boxes solve keep = 1 - max over higher scores of (overlaps * keep), whose solution is unique. It is iterated
    from "all kept"; after r rounds all boxes are right whose verdict hangs on a chain of at most r others. Even rounds
    keep too many and odd ones too few, so two rounds that agree have met the solution. Where the last two do not agree,
    no box is lost, and some are kept that greedy suppression would drop.

    Args:
        boxes: N x K x 4, xyxy, highest score first.
        threshold: IoU, strict.
        classes: N x K; boxes of different classes let each other be. None means one class.
        rounds: even; the work grows with it, K and K once more.
    """
    if rounds < 2 or rounds % 2:
        raise ValueError(f"rounds is an even number from 2 on, not {rounds}")
    overlaps = (pairwise_iou(boxes) > threshold).float().triu(diagonal=1)
    if classes is not None:
        overlaps = overlaps * (classes[:, :, None] == classes[:, None]).float()
    keep = before = torch.ones_like(overlaps[:, 0])
    for _ in range(rounds):
        before, keep = keep, 1 - (overlaps * keep[:, :, None]).amax(dim=1)
    return Kept(keep > 0.5, (keep == before).all(dim=1))
