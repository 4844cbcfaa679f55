"""ITD's maps to boxes, inside the graph: peaks of the heat, the best k of them, their boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from irforge.train.detectors.itd.network import REDUCTION, Maps
from irforge.train.ops.peaks import top_peaks


def decode(maps: Maps, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best peaks as boxes.

    Peaks are sought among logits, so that only k sigmoids are taken and scores near 1 stay apart.

    Args:
        maps: see `Maps`.
        k: at least 1.

    Returns:
        boxes float32 N x k x 4, xyxy in pixels of the network's input, not clipped to it; scores float32 N x k,
        descending; classes int64 N x k, all 0. Slots beyond the number of peaks have score 0 and an empty box.
    """
    logits, ltrb, offset = (each.float() for each in maps)
    best, cells = top_peaks(logits, k)
    width = logits.shape[-1]
    # In floats, which hold these numbers exactly: exporters spell an integer division out in many nodes.
    number = cells.float()
    row = torch.floor(number / width)
    corner = torch.stack([number - row * width, row], dim=1)
    centre = corner + _at(offset, cells)
    reach = _at(ltrb, cells)
    boxes = torch.cat([centre - reach[:, :2], centre + reach[:, 2:]], dim=1).transpose(1, 2) * REDUCTION
    scores = torch.sigmoid(best)
    boxes = torch.where((scores > 0).unsqueeze(2), boxes, 0.0)
    return boxes, scores, torch.zeros_like(cells)


def _at(planes: Tensor, cells: Tensor) -> Tensor:
    """N x c x h x w at cells N x k -> N x c x k."""
    return planes.flatten(2).gather(2, cells.unsqueeze(1).expand(-1, planes.shape[1], -1))
