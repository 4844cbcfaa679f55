"""Peaks of dense maps, with fixed output shapes and no operator whose output size depends on values.

A peak is a cell that is not below any of its eight neighbours and above those of them that come before it in raster
order (the three above and the one to the left). So of equal neighbours the first in raster order is kept, two peaks
never touch, and a plateau gives one peak, or one for each of its cells that has no equal neighbour before it. The usual
test (a cell equals its 3x3 maximum) lets all cells of a plateau through; low precision makes plateaus.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NOTHING = -1e4
"""What stands where there is no peak: finite, since parsers refuse infinite constants, yet its sigmoid is 0."""


def is_peak(scores: Tensor) -> Tensor:
    """bool N x 1 x h x w: which cells are peaks of scores N x 1 x h x w, all above `NOTHING`."""
    across = F.max_pool2d(scores, (1, 3), 1, (0, 1))
    around = F.max_pool2d(across, (3, 1), 1, (1, 0))
    above = F.pad(across[:, :, :-1], (0, 0, 1, 0), value=NOTHING)
    left = F.pad(scores[:, :, :, :-1], (1, 0), value=NOTHING)
    return (scores >= around) & (scores > torch.maximum(above, left))


def top_peaks(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest peaks.

    Two peaks never touch, so each block of 2 x 2 cells has at most one: only a quarter of the cells has to be sorted.

    Args:
        scores: float32 N x 1 x h x w, h and w even and h * w < 2^24.

    Returns:
        scores float32 N x k, descending, and cells int64 N x k, row * w + column; in slots beyond the number of peaks
        `NOTHING` and 0. Equal scores come in the order of their blocks, where the backend's sort is stable.
    """
    height, width = scores.shape[-2:]
    peak = is_peak(scores)
    heights = torch.where(peak, scores, NOTHING)
    # A float holds these numbers exactly, and pooling integers is for few backends.
    numbers = torch.arange(height * width, dtype=torch.float32, device=scores.device).view(1, 1, height, width)
    numbers = torch.where(peak, numbers, 0.0)
    # k more slots, so that small maps have enough of them.
    candidates = F.pad(F.max_pool2d(heights, 2).flatten(1), (0, k), value=NOTHING)
    cells = F.pad(F.max_pool2d(numbers, 2).flatten(1), (0, k))
    best, slots = torch.topk(candidates, k, dim=1)
    return best, cells.gather(1, slots).long()
