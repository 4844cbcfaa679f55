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
    """bool N x c x h x w: which cells are peaks of their plane of scores N x c x h x w, all above `NOTHING`."""
    across = F.max_pool2d(scores, (1, 3), 1, (0, 1))
    around = F.max_pool2d(across, (3, 1), 1, (1, 0))
    above = F.pad(across[:, :, :-1], (0, 0, 1, 0), value=NOTHING)
    left = F.pad(scores[:, :, :, :-1], (1, 0), value=NOTHING)
    return (scores >= around) & (scores > torch.maximum(above, left))


def top_peaks(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest peaks of all planes.

    Args:
        scores: float32 N x c x h x w, all above `NOTHING`.

    Returns:
        scores float32 N x k, descending, and cells int64 N x k, (plane * h + row) * w + column; in slots beyond the
        number of peaks `NOTHING` and 0. Equal scores come in raster order where the backend's top-k is stable, as that
        of ONNX is.
    """
    heights = torch.where(is_peak(scores), scores, NOTHING).flatten(1)
    # k more slots, so that small maps have enough of them.
    best, cells = torch.topk(F.pad(heights, (0, k), value=NOTHING), k, dim=1)
    return best, torch.where(best > NOTHING, cells, 0)


def peak_boxes(logits: Tensor, reach: Tensor, offset: Tensor, k: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best peaks as boxes.

    Peaks are sought among logits, so that only k sigmoids are taken and scores near 1 stay apart.

    Args:
        logits: of a target's centre, float32 N x c x h x w, one plane a class.
        reach: from there to the left, top, right and bottom edge, float32 N x 4 x h x w, in cells.
        offset: the centre's place within its cell, x first, float32 N x 2 x h x w, in cells.
        k: at least 1.
        side: of a cell, in pixels.

    Returns:
        boxes float32 N x k x 4, xyxy in pixels of the network's input, not clipped to it; scores float32 N x k,
        descending; classes int64 N x k. Slots beyond the number of peaks have score 0, class 0 and an empty box.
    """
    best, index = top_peaks(logits, k)
    planes, height, width = logits.shape[1:]
    kinds = torch.zeros_like(index) if planes == 1 else index // (height * width)
    cells = index if planes == 1 else index % (height * width)
    # In floats, which hold these numbers exactly: exporters spell an integer division out in many nodes.
    number = cells.float()
    row = torch.floor(number / width)
    corner = torch.stack([number - row * width, row], dim=1)
    centre = corner + _at(offset, cells)
    sides = _at(reach, cells)
    boxes = torch.cat([centre - sides[:, :2], centre + sides[:, 2:]], dim=1).transpose(1, 2) * side
    scores = torch.sigmoid(best)
    return torch.where((scores > 0).unsqueeze(2), boxes, 0.0), scores, kinds


def _at(planes: Tensor, cells: Tensor) -> Tensor:
    """N x c x h x w at cells N x k -> N x c x k."""
    return planes.flatten(2).gather(2, cells.unsqueeze(1).expand(-1, planes.shape[1], -1))
