"""OSCAR's five losses. All are computed in float32, also under autocast."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.noco import noco_map
from irforge.train.detectors.base import BoxBatch, Plane
from irforge.train.detectors.oscar.assign import Assignment, assign_coarse, assign_refine
from irforge.train.detectors.oscar.head import REFINE_STRIDE, OscarMaps, decode_boxes
from irforge.train.ops import dense
from irforge.train.ops.dense import diou_loss

focal_loss = partial(dense.focal_loss, gamma=3.0)
"""As published: a harder focus than the usual 2."""


def quality_loss(logits: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """|sigmoid(logit) - quality|^beta x binary cross-entropy, a cell each; `quality` is soft, 0..1."""
    apart = (torch.sigmoid(logits) - quality).abs()
    return apart**beta * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def _level_losses(logits: Tensor, boxes: Tensor, positive: Assignment) -> tuple[Tensor, Tensor]:
    target = torch.zeros_like(logits).flatten()
    target[positive.cells] = 1
    count = max(len(positive.cells), 1)
    predicted = boxes.permute(0, 2, 3, 1).reshape(-1, 4)[positive.cells]
    return focal_loss(logits.flatten(), target) / count, diou_loss(predicted, positive.boxes).sum() / count


class OscarLoss:
    """Classification and boxes at both levels, and the contrast that weighs the score. Options are the terms' weights.

    Args:
        class_weight: of the focal loss, summed over cells and divided by the number of positive cells.
        box_weight: of the mean distance-IoU loss of the positive cells. The fine level's gradient reaches the coarse
            level through its anchors, as published.
        noco_weight: of the contrast's loss, a mean over all cells.
    """

    def __init__(self, class_weight: float = 2.0, box_weight: float = 1.0, noco_weight: float = 1000.0) -> None:
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.noco_weight = noco_weight

    def encode(self, levels: Plane, boxes: Plane, classes: npt.NDArray[np.int64]) -> dict[str, Plane]:
        """`noco`: normalised contrast, 1 x H/4 x W/4, of the pixels (4i + 2, 4j + 2)."""
        middle = slice(REFINE_STRIDE // 2, None, REFINE_STRIDE)
        plane = noco_map(levels, boxes)[middle, middle]
        return {"noco": np.ascontiguousarray(plane, np.float32)[None]}

    def __call__(self, network: nn.Module, frames: Tensor, truth: BoxBatch, epoch: int) -> dict[str, Tensor]:
        maps: OscarMaps = network(frames)
        with torch.autocast(frames.device.type, enabled=False):
            return self.terms(maps, truth)

    def terms(self, maps: OscarMaps, truth: BoxBatch) -> dict[str, Tensor]:
        """The weighted terms of the head's maps."""
        coarse, refined = decode_boxes(maps)
        at_coarse = assign_coarse(truth.boxes, *maps.coarse_logit.shape[2:])
        at_refine = assign_refine(truth.boxes, *maps.refine_logit.shape[2:])
        coarse_class, coarse_box = _level_losses(maps.coarse_logit, coarse, at_coarse)
        refine_class, refine_box = _level_losses(maps.refine_logit, refined, at_refine)
        return {
            "coarse_cls": self.class_weight * coarse_class,
            "coarse_box": self.box_weight * coarse_box,
            "refine_cls": self.class_weight * refine_class,
            "refine_box": self.box_weight * refine_box,
            "noco": self.noco_weight * quality_loss(maps.noco_logit, truth.maps["noco"]).mean(),
        }
