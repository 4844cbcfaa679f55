"""Peaks of dense maps, with fixed output shapes and no operator whose output size depends on values.

A peak is a cell that is not below any of its eight neighbours and above those of them that come before it in raster
order (the three above and the one to the left). So two peaks never touch, and a plateau has a peak in each of its cells
that no equal neighbour comes before: mostly one. The usual test, that a cell equals its 3x3 maximum, lets all cells of
a plateau through, and low precision makes plateaus.
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

    Args:
        scores: float32 N x 1 x h x w, all above `NOTHING`.

    Returns:
        scores float32 N x k, descending, and cells int64 N x k, row * w + column; in slots beyond the number of peaks
        `NOTHING` and 0. Equal scores come in raster order where the backend's top-k is stable, as that of ONNX is.
    """
    heights = torch.where(is_peak(scores), scores, NOTHING).flatten(1)
    # k more slots, so that small maps have enough of them.
    best, cells = torch.topk(F.pad(heights, (0, k), value=NOTHING), k, dim=1)
    return best, torch.where(best > NOTHING, cells, 0)
