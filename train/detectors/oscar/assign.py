"""All-scale pseudo-box assignment: every true box is a target at both levels, whatever its size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from irforge.train.detectors.oscar.head import COARSE_STRIDE, REFINE_STRIDE
from irforge.train.ops.dense import cell_points

COARSE_SIDE = float(COARSE_STRIDE)
REFINE_SIDE = 1.5 * REFINE_STRIDE


class Assignment(NamedTuple):
    """Positive cells of one level of a batch: flat index over N x H x W cells int64 [m], and each one's box [m, 4]."""

    cells: Tensor
    boxes: Tensor


def pseudo_boxes(boxes: Tensor, side: float) -> Tensor:
    """Where cells are positive, [n, 4]: the box itself if its area exceeds side^2, else a square of that side around
    its centre. It is the area that is tested, so a long thin box stays as it is."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    square = torch.cat([centre - side / 2, centre + side / 2], dim=1)
    return torch.where((area > side * side)[:, None], boxes, square)


def positive_cells(boxes: Tensor, regions: Tensor, height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
    """(flat index of the positive cells, index of each one's box), ascending.

    A cell is positive if its point lies strictly inside a region; of several the one whose box is smallest, the first
    of equal ones.
    """
    x, y = cell_points(height, width, stride, boxes)
    x0, y0, x1, y1 = regions[:, :, None, None].unbind(1)
    inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    sizes = torch.where(inside, area[:, None, None], torch.inf).flatten(1)
    smallest, owner = sizes.min(dim=0)
    cells = torch.nonzero(smallest < torch.inf).squeeze(1)
    return cells, owner[cells]


def assign(boxes: list[Tensor], height: int, width: int, stride: int, side: float, pseudo: bool) -> Assignment:
    """The positive cells of a batch at one level.

    Args:
        boxes: for each sample float32 [n, 4], xyxy in pixels.
        height, width: of the level, in cells of `stride` pixels.
        side: of the square that stands in for small boxes, in pixels.
        pseudo: whether a positive cell's box is that region (coarse level) or the true box (fine level).
    """
    cells, targets = [boxes[0].new_empty(0, dtype=torch.int64)], [boxes[0].new_empty(0, 4)]
    for sample, true in enumerate(boxes):
        if len(true):
            regions = pseudo_boxes(true, side)
            positive, owner = positive_cells(true, regions, height, width, stride)
            cells.append(positive + sample * height * width)
            targets.append((regions if pseudo else true)[owner])
    return Assignment(torch.cat(cells), torch.cat(targets))


def assign_coarse(boxes: list[Tensor], height: int, width: int) -> Assignment:
    """Coarse cells with their pseudo boxes; height and width in cells."""
    return assign(boxes, height, width, COARSE_STRIDE, COARSE_SIDE, pseudo=True)


def assign_refine(boxes: list[Tensor], height: int, width: int) -> Assignment:
    """Fine cells with their true boxes; height and width in cells."""
    return assign(boxes, height, width, REFINE_STRIDE, REFINE_SIDE, pseudo=False)
