"""Which anchors and proposals learn what: matching by IoU, and sampling. All draws are from torch's own generator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from irforge.train.detectors.twostage.boxes import iou_of

IGNORED = -1


class AnchorTargets(NamedTuple):
    """Of the anchors of one sample: labels int64 [n] (1 object, 0 background, -1 ignored) and the index of the best
    true box int64 [n]."""

    labels: Tensor
    owners: Tensor


class RoiTargets(NamedTuple):
    """Sampled boxes of one sample: boxes [r, 4], labels int64 [r] (K means background), and the true box of each
    [r, 4], which only those of objects learn."""

    boxes: Tensor
    labels: Tensor
    targets: Tensor


def match_anchors(anchors: Tensor, true: Tensor, low: float = 0.3, high: float = 0.7) -> AnchorTargets:
    """Objects have IoU >= `high` with a true box or are one of its best anchors; background has IoU < `low` with all.

    Args:
        anchors: [n, 4].
        true: [m, 4]; m may be 0.
    """
    labels = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    if not len(true):
        return AnchorTargets(labels, torch.zeros_like(labels))
    iou = iou_of(true, anchors)
    best, owners = iou.max(dim=0)
    labels[best >= low] = IGNORED
    labels[best >= high] = 1
    # An anchor may be the best of a box and still belong to another that overlaps it more, as published.
    of_box = iou.max(dim=1, keepdim=True).values
    labels[((iou == of_box) & (of_box > 0)).any(dim=0)] = 1
    return AnchorTargets(labels, owners)


def sample_labels(labels: Tensor, count: int, share: float, background: int) -> Tensor:
    """Indices of at most `count` labels, at most `share` of them objects, the rest background; ignored ones never."""
    objects = torch.nonzero((labels != background) & (labels != IGNORED)).squeeze(1)
    others = torch.nonzero(labels == background).squeeze(1)
    objects = _some(objects, int(count * share))
    return torch.cat([objects, _some(others, count - len(objects))])


def _some(indices: Tensor, most: int) -> Tensor:
    return indices[torch.randperm(len(indices), device=indices.device)[:most]]


def sample_rois(
    proposals: Tensor, true: Tensor, classes: Tensor, background: int, count: int, share: float, least_iou: float = 0.5
) -> RoiTargets:
    """Proposals and the true boxes themselves, labelled and sampled; no label is ignored.

    Args:
        proposals: [n, 4].
        true, classes: [m, 4] and int64 [m]; m may be 0.
        background: K.
    """
    boxes = torch.cat([true.to(proposals), proposals])
    labels = torch.full((len(boxes),), background, dtype=torch.int64, device=boxes.device)
    targets = torch.zeros_like(boxes)
    if len(true):
        best, owners = iou_of(true.to(boxes), boxes).max(dim=0)
        labels = torch.where(best >= least_iou, classes[owners], labels)
        targets = true.to(boxes)[owners]
    chosen = sample_labels(labels, count, share, background)
    return RoiTargets(boxes[chosen], labels[chosen], targets[chosen])
