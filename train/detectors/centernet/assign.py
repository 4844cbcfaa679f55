"""CenterNet's targets: a bell around each centre, and at the centre's cell the box's size and the centre's place.

Zhou et al., "Objects as Points", 2019; the bell's radius is CornerNet's (Law & Deng, ECCV 2018).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

OVERLAP = 0.7


class Targets(NamedTuple):
    """heat: float32 classes x h x w, 1 at centres. Of each box that has one: cells, row * w + column, int64 [m]; size
    [m, 2], width and height, and offset [m, 2], x first, in cells."""

    heat: Tensor
    cells: Tensor
    size: Tensor
    offset: Tensor


def radius_of(sides: Tensor, overlap: float = OVERLAP) -> Tensor:
    """How far, [n], both corners of boxes with sides [n, 2] may move along each axis for the IoU to stay at least
    `overlap`: the least of the shifted, the shrunk and the grown box's radius.

    The authors' code divides the last two's roots by 2 whatever the equation's first coefficient, and takes the larger
    root of two of them, so its radii are larger than the overlap allows.
    """
    half, area = sides.sum(dim=1), sides.prod(dim=1)
    shifted = _smaller_root(1.0, half, area * (1 - overlap) / (1 + overlap))
    shrunk = _smaller_root(4.0, 2 * half, area * (1 - overlap))
    p = 2 * overlap * half
    grown = (torch.sqrt(p.square() + 16 * overlap * (1 - overlap) * area) - p) / (8 * overlap)
    return torch.minimum(torch.minimum(shifted, shrunk), grown)


def _smaller_root(a: float, b: Tensor, c: Tensor) -> Tensor:
    """Of a r^2 - b r + c."""
    return (b - torch.sqrt((b.square() - 4 * a * c).clamp_min(0))) / (2 * a)


def assign(
    boxes: Tensor, classes: Tensor, size: tuple[int, int], side: int, class_count: int, overlap: float = OVERLAP
) -> Targets:
    """The targets of one sample.

    The bell of radius r, cut off beyond whole cells, has a standard deviation of (2 r + 1) / 6; where bells of a class
    meet the larger value counts. Boxes whose centre lies outside, or without a positive side, are left out.

    Args:
        boxes: float32 [n, 4], xyxy in pixels.
        classes: int64 [n].
        size: height and width of the map, in cells of `side` pixels.
        overlap: see `radius_of`.
    """
    height, width = size
    scaled = boxes.float() / side
    centres, sides = (scaled[:, :2] + scaled[:, 2:]) / 2, scaled[:, 2:] - scaled[:, :2]
    places = torch.floor(centres)
    limit = places.new_tensor([width, height])
    kept = ((places >= 0) & (places < limit) & (sides > 0)).all(dim=1)
    centres, sides, places, classes = centres[kept], sides[kept], places[kept], classes[kept]
    radius = radius_of(sides, overlap).floor()
    rows, columns = (_bells(n, places[:, axis], radius) for n, axis in ((height, 1), (width, 0)))
    heat = boxes.new_zeros(class_count, height, width, dtype=torch.float32)
    for kind in classes.unique().tolist():
        mine = classes == kind
        heat[kind] = (rows[mine][:, :, None] * columns[mine][:, None]).amax(dim=0)
    cells = (places[:, 1] * width + places[:, 0]).long()
    return Targets(heat, cells, sides, centres - places)


def _bells(length: int, places: Tensor, radius: Tensor) -> Tensor:
    away = torch.arange(length, device=places.device) - places[:, None]
    sigma = (2 * radius + 1) / 6
    return torch.exp(-away.square() / (2 * sigma.square())[:, None]) * (away.abs() <= radius[:, None])
