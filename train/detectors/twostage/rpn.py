"""The region proposal network: head, training proposals, and proposals of a fixed number for deployment."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.twostage.backbone import draw_normal
from irforge.train.detectors.twostage.boxes import (
    PROPOSAL_WEIGHTS,
    anchor_grid,
    clip_boxes,
    decode_boxes,
    have_area,
    iou_of,
)
from irforge.train.ops.nms import greedy_nms

IOU_THRESHOLD = 0.7
LARGEST_TOPK = 3840
"""The most that TensorRT's TopK gives."""

_BLOCK = 1024


class Anchors(NamedTuple):
    """For each level its stride in pixels and the sizes of its anchors; all levels have the same ratios."""

    strides: tuple[int, ...]
    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]

    @property
    def per_cell(self) -> int:
        return len(self.sizes[0]) * len(self.ratios)


class RpnMaps(NamedTuple):
    """What the head gives for each level, float32: logits N x A x H x W of an object, and shifts N x 4A x H x W."""

    logits: list[Tensor]
    deltas: list[Tensor]


class RpnHead(nn.Module):
    """One 3x3 convolution, and a logit and four shifts for each anchor of each cell; shared by all levels."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * anchors, 1)
        for conv in (self.conv, self.objectness_logits, self.anchor_deltas):
            draw_normal(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, levels: list[Tensor]) -> RpnMaps:
        hidden = [F.relu(self.conv(level)) for level in levels]
        # float32 from the predictors on, also under autocast.
        return RpnMaps(
            [self.objectness_logits(x).float() for x in hidden], [self.anchor_deltas(x).float() for x in hidden]
        )


def rows_of(maps: RpnMaps) -> tuple[list[Tensor], list[Tensor]]:
    """For each level the logits N x n and the shifts N x n x 4 in the order of its anchors."""
    logits = [logit.permute(0, 2, 3, 1).flatten(1) for logit in maps.logits]
    deltas = [delta.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for delta in maps.deltas]
    return logits, deltas


def anchors_of(maps: RpnMaps, anchors: Anchors) -> list[Tensor]:
    """For each level its anchors [n, 4]."""
    return [
        torch.tensor(anchor_grid(int(logit.shape[2]), int(logit.shape[3]), stride, sizes, anchors.ratios)).to(logit)
        for logit, stride, sizes in zip(maps.logits, anchors.strides, anchors.sizes, strict=True)
    ]


@torch.no_grad()
def training_proposals(
    maps: RpnMaps, anchors: Anchors, size: tuple[int, int], candidates: int, count: int
) -> list[Tensor]:
    """For each sample at most `count` boxes [n, 4], best first; `candidates` a level are suppressed at IoU 0.7."""
    logits, deltas = rows_of(maps)
    grids = anchors_of(maps, anchors)
    proposals = []
    for sample in range(len(logits[0])):
        boxes, scores = [], []
        for logit, delta, grid in zip(logits, deltas, grids, strict=True):
            score, best = logit[sample].topk(min(candidates, len(grid)))
            box = clip_boxes(decode_boxes(delta[sample, best], grid[best], PROPOSAL_WEIGHTS), *size)
            real = have_area(box) & score.isfinite()
            box, score = box[real], score[real]
            kept = survivors(box, IOU_THRESHOLD, count)
            boxes.append(box[kept])
            scores.append(score[kept])
        order = torch.cat(scores).argsort(descending=True, stable=True)[:count]
        proposals.append(torch.cat(boxes)[order])
    return proposals


def survivors(boxes: Tensor, threshold: float, most: int) -> Tensor:
    """Which of boxes [n, 4], best first, greedy suppression keeps: at most `most` indices, int64.

    For thousands of boxes, as training has them: by blocks, so that no n x n matrix is made, and with a loop whose
    length depends on the boxes.
    """
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    kept: list[Tensor] = []
    for start in range(0, len(boxes), _BLOCK):
        block = start + torch.nonzero(alive[start : start + _BLOCK]).squeeze(1)
        if not len(block):
            continue
        rounds = 16
        while not (found := greedy_nms(boxes[block][None], threshold, rounds=rounds)).converged.all():
            rounds *= 2
        kept.append(block[found.keep[0]])
        rest = start + _BLOCK + torch.nonzero(alive[start + _BLOCK :]).squeeze(1)
        if sum(map(len, kept)) >= most or not len(rest):
            break
        alive[rest[(iou_of(boxes[kept[-1]], boxes[rest]) > threshold).any(dim=0)]] = False
    return torch.cat(kept)[:most] if kept else alive.nonzero().squeeze(1)


def fixed_proposals(
    maps: RpnMaps, anchors: Anchors, size: tuple[int, int], candidates: int, count: int
) -> tuple[Tensor, Tensor]:
    """(boxes N x `count` x 4, best first; bool N x `count`: which of them are no padding), without a loop over boxes.

    `candidates`, shared evenly by the levels, are suppressed within their level. Everything is in float32.
    """
    logits, deltas = rows_of(maps)
    boxes, scores, levels = [], [], []
    for level, (logit, delta, grid) in enumerate(zip(logits, deltas, anchors_of(maps, anchors), strict=True)):
        score, best = logit.topk(min(candidates // len(logits), len(grid)), dim=1)
        shifts = delta.gather(1, best[:, :, None].expand(-1, -1, 4))
        boxes.append(clip_boxes(decode_boxes(shifts, grid[best], PROPOSAL_WEIGHTS), *size))
        scores.append(score)
        levels.append(torch.full_like(best, level))
    score, box, at = torch.cat(scores, dim=1), torch.cat(boxes, dim=1), torch.cat(levels, dim=1)
    if len(boxes) > 1:
        score, order = score.topk(score.shape[1], dim=1)
        box, at = ordered(box, order), at.gather(1, order)
    keep = greedy_nms(box, IOU_THRESHOLD, at if len(boxes) > 1 else None).keep & have_area(box)
    worst = score.amin(dim=1, keepdim=True) - 1
    rank, order = torch.where(keep, score, worst).topk(min(count, score.shape[1]), dim=1)
    missing = count - rank.shape[1]
    return F.pad(ordered(box, order), (0, 0, 0, missing)), F.pad(rank > worst, (0, missing))


def ordered(boxes: Tensor, order: Tensor) -> Tensor:
    """Boxes N x n x 4 in the order N x k."""
    return boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
