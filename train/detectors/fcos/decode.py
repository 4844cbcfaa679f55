"""FCOS's maps as one list of cells, and that list as detections, inside the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from irforge.train.detectors.fcos.network import STRIDES, FcosMaps
from irforge.train.detectors.twostage.boxes import clip_boxes, have_area
from irforge.train.detectors.twostage.rpn import ordered
from irforge.train.ops.dense import cell_points
from irforge.train.ops.nms import greedy_nms

CANDIDATES = 512
LEAST_PROBABILITY = 0.05
IOU_THRESHOLD = 0.5
MAX_DETECTIONS = 100


class Cells(NamedTuple):
    """All A cells, level by level, row by row; float32.

    logits: N x A x classes. boxes: N x A x 4, xyxy in pixels of the input, not clipped. centreness: logits, N x A.
    """

    logits: Tensor
    boxes: Tensor
    centreness: Tensor


def points_of(maps: FcosMaps) -> list[Tensor]:
    """For each level the middles of its cells in pixels, [h * w, 2], x first."""
    points = []
    for stride, level in zip(STRIDES, maps.centreness, strict=True):
        height, width = level.shape[2:]
        x, y = cell_points(height, width, stride, level)
        points.append(torch.stack([x.expand(height, width), y.expand(height, width)], dim=2).flatten(0, 1))
    return points


def for_each_cell(values: Sequence[float], maps: FcosMaps) -> Tensor:
    """One value a level as one a cell, float32 [A]."""
    levels = zip(values, maps.logits, strict=True)
    return torch.cat([torch.full((level[0, 0].numel(),), value, device=level.device) for value, level in levels])


def cells_of(maps: FcosMaps) -> Cells:
    boxes = []
    for stride, reach, points in zip(STRIDES, maps.reach, points_of(maps), strict=True):
        pixels = _by_cell(reach) * stride
        boxes.append(torch.cat([points - pixels[..., :2], points + pixels[..., 2:]], dim=2))
    logits, centreness = (torch.cat([_by_cell(level) for level in levels], dim=1) for levels in (maps[0], maps[2]))
    return Cells(logits, torch.cat(boxes, dim=1), centreness[..., 0])


def _by_cell(level: Tensor) -> Tensor:
    return level.float().flatten(2).transpose(1, 2)


def detections(maps: FcosMaps, height: int, width: int, candidates: int = CANDIDATES) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes N x 100 x 4, scores N x 100, classes N x 100) of the maps, for an input of height x width pixels.

    Pairs of a cell and a class whose probability exceeds 0.05 are scored by probability x centreness; the `candidates`
    best are clipped to the input and suppressed within their class at IoU 0.5. The published evaluation takes 3000 a
    level, gives 3000, and lets boxes of no area through.
    """
    logits, boxes, centreness = cells_of(maps)
    classes = logits.shape[2]
    probability = torch.sigmoid(logits)
    scores = probability * torch.sigmoid(centreness)[:, :, None]
    scores = torch.where(probability > LEAST_PROBABILITY, scores, torch.zeros_like(scores)).flatten(1)
    # A small input has fewer pairs than candidates.
    scores, best = torch.topk(F.pad(scores, (0, candidates)), candidates, dim=1)
    best = best.clamp_max(boxes.shape[1] * classes - 1)
    cells, kinds = (best // classes, best % classes) if classes > 1 else (best, torch.zeros_like(best))
    found = clip_boxes(ordered(boxes, cells), height, width)
    kept = greedy_nms(found, IOU_THRESHOLD, kinds if classes > 1 else None).keep & have_area(found)
    scores, order = torch.topk(scores * kept.float(), MAX_DETECTIONS, dim=1)
    some = (scores > 0).long()
    return ordered(found, order) * some[:, :, None].float(), scores, kinds.gather(1, order) * some
