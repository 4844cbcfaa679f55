"""FCOS's three losses, with RFLA's assignment. All are computed in float32, also under autocast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.base import BoxBatch, Plane
from irforge.train.detectors.fcos.assign import FIELD_SIDES, Rule, assign
from irforge.train.detectors.fcos.decode import cells_of, for_each_cell, points_of
from irforge.train.detectors.fcos.network import STRIDES, FcosMaps
from irforge.train.ops.dense import diou_loss, focal_loss

SMALLEST_REACH = 0.01


def centreness_of(points: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
    """How near points [m, 2] are to the middles of boxes [m, 4]: 1 there, [m].

    The root of min / max of left and right times that of top and bottom. A point outside, which RFLA may choose, has
    0.01 strides for the smaller one; `strides` [m] are those of the points' levels, in pixels.
    """
    reach = torch.stack([points - boxes[:, :2], boxes[:, 2:] - points], dim=2) / strides[:, None, None]
    return (reach.amin(dim=2).clamp_min(SMALLEST_REACH) / reach.amax(dim=2)).prod(dim=1).sqrt()


class FcosLoss:
    """`cls`, the focal loss (gamma 2) of all cells by the number of positive ones; `box`, their mean distance-IoU loss,
    weighted by centreness; `centreness`, their binary cross-entropy.

    Args:
        first, second, shrink, legacy_shrink: see `Rule`.
        field_sides: of the receptive fields of P3..P7, in pixels.
        class_weight, box_weight, centreness_weight: of the terms.
    """

    def __init__(
        self,
        first: int = 6,
        second: int = 1,
        shrink: float = 0.9,
        legacy_shrink: bool = False,
        field_sides: Sequence[float] = FIELD_SIDES,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        centreness_weight: float = 1.0,
    ) -> None:
        if first < 1 or second < 0 or not 0 < shrink <= 1:
            raise ValueError(f"first >= 1, second >= 0 and 0 < shrink <= 1, not {first}, {second}, {shrink}")
        if len(field_sides) != len(STRIDES) or min(field_sides) <= 0:
            raise ValueError(f"field_sides are {len(STRIDES)} positive numbers, not {list(field_sides)}")
        self.rule = Rule(first, second, shrink, legacy_shrink)
        self.field_sides = tuple(field_sides)
        self.weights = {"cls": class_weight, "box": box_weight, "centreness": centreness_weight}

    def encode(self, levels: Plane, boxes: Plane, classes: npt.NDArray[np.int64]) -> dict[str, Plane]:
        return {}

    def __call__(self, network: nn.Module, frames: Tensor, truth: BoxBatch, epoch: int) -> dict[str, Tensor]:
        maps: FcosMaps = network(frames)
        with torch.autocast(frames.device.type, enabled=False):
            return self.terms(maps, truth)

    def terms(self, maps: FcosMaps, truth: BoxBatch) -> dict[str, Tensor]:
        """The weighted terms of the head's maps."""
        found = cells_of(maps)
        points = torch.cat(points_of(maps))
        positive = assign(truth.boxes, truth.classes, points, for_each_cell(self.field_sides, maps), self.rule)
        count = max(len(positive.cells), 1)
        logits = found.logits.flatten(0, 1)
        target = torch.zeros_like(logits)
        target[positive.cells, positive.classes] = 1
        place = positive.cells % len(points)
        central = centreness_of(points[place], positive.boxes, for_each_cell(STRIDES, maps)[place])
        apart = diou_loss(found.boxes.flatten(0, 1)[positive.cells], positive.boxes)
        sure = found.centreness.flatten()[positive.cells]
        terms = {
            "cls": focal_loss(logits, target) / count,
            "box": (apart * central).sum() / central.sum().clamp_min(1e-6),
            "centreness": F.binary_cross_entropy_with_logits(sure, central.clamp_max(1), reduction="sum") / count,
        }
        return {name: self.weights[name] * term for name, term in terms.items()}
