"""RFLA: a true box belongs to the cells whose receptive fields resemble it most, however small it is.

Xu et al., "RFLA: Gaussian Receptive Field based Label Assignment for Tiny Object Detection", ECCV 2022. Boxes and
receptive fields are taken for normal distributions with half their sides as standard deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-6
FIELD_SIDES = (45.5, 133.5, 213.5, 277.5, 405.5)
"""Pixels; half the theoretical receptive fields of a ResNet-50's P3..P7."""


class Assignment(NamedTuple):
    """Positive cells of a batch: flat index over N x A cells int64 [m], each one's box [m, 4] and class int64 [m]."""

    cells: Tensor
    boxes: Tensor
    classes: Tensor


class Rule(NamedTuple):
    """How cells are given away: to each box the `first` most similar ones, then of those left over the `second` most
    similar ones of fields `shrink` times the size.

    `legacy_shrink`: the authors' code shrinks the fields in place, in a tensor that the whole batch shares, so that the
    k-th sample, from 0, meets fields `shrink`^k times the size, and what it learns depends on its place in the batch.
    """

    first: int = 6
    second: int = 1
    shrink: float = 0.9
    legacy_shrink: bool = False


def divergence(boxes: Tensor, fields: Tensor) -> Tensor:
    """Kullback-Leibler divergence [n, m] of fields [m, 4] from boxes [n, 4], xyxy; not symmetric."""
    centres, sides = _centres_and_sides(boxes[:, None])
    field_centres, field_sides = _centres_and_sides(fields[None])
    ratio = (field_sides / sides).square()
    away = 4 * ((field_centres - centres) / sides).square()
    return (ratio + away - ratio.log() - 1).sum(dim=2) / 2


def similarity(boxes: Tensor, fields: Tensor) -> Tensor:
    """Receptive field distance [n, m], 1 / (1 + divergence): 1 for equals."""
    return 1 / (1 + divergence(boxes, fields))


def _centres_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low + EPSILON


def owners(boxes: Tensor, points: Tensor, sides: Tensor, rule: Rule) -> Tensor:
    """For each cell the index of its box, or -1: int64 [A].

    Cells as similar as the last one chosen are chosen too; what several boxes want goes to the last of them.

    Args:
        boxes: [n, 4]; n may be 0.
        points: the fields' middles, [A, 2].
        sides: of the square fields, [A].
    """
    owner = points.new_full((len(points),), -1, dtype=torch.int64)
    for count, factor in ((rule.first, 1.0), (rule.second, rule.shrink)):
        if len(boxes) and count:
            half = (sides * factor / 2)[:, None]
            chosen = _nearest(similarity(boxes, torch.cat([points - half, points + half], dim=1)), count)
            owner = torch.where(owner < 0, chosen, owner)
    return owner


def _nearest(similar: Tensor, count: int) -> Tensor:
    least = similar.topk(min(count, similar.shape[1]), dim=1).values[:, -1:]
    number = torch.arange(1, len(similar) + 1, device=similar.device)
    return ((similar >= least) * number[:, None]).amax(dim=0) - 1


def assign(boxes: Sequence[Tensor], classes: Sequence[Tensor], points: Tensor, sides: Tensor, rule: Rule) -> Assignment:
    """The positive cells of a batch.

    Args:
        boxes: for each sample float32 [n, 4], xyxy in pixels.
        classes: for each sample int64 [n].
        points, sides: see `owners`.
    """
    found = []
    for sample, (true, kinds) in enumerate(zip(boxes, classes, strict=True)):
        factor = rule.shrink**sample if rule.legacy_shrink else 1.0
        owner = owners(true, points, sides * factor, rule)
        cells = torch.nonzero(owner >= 0).squeeze(1)
        found.append((cells + sample * len(points), true[owner[cells]], kinds[owner[cells]]))
    return Assignment(*(torch.cat(parts) for parts in zip(*found, strict=True)))
