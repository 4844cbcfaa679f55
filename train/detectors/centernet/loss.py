"""CenterNet's three losses. All are computed in float32, also under autocast."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.base import BoxBatch, Plane
from irforge.train.detectors.centernet.assign import OVERLAP, assign
from irforge.train.detectors.centernet.network import CenterMaps


def centre_focal_loss(logits: Tensor, heat: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Sum over all cells of the penalty-reduced focal loss: -(1 - p)^alpha ln p where the heat is 1, elsewhere
    -(1 - heat)^beta p^alpha ln(1 - p)."""
    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    hit = q.pow(alpha) * F.logsigmoid(logits)
    miss = (1 - heat).pow(beta) * p.pow(alpha) * F.logsigmoid(-logits)
    return -torch.where(heat == 1, hit, miss).sum()


class CenterNetLoss:
    """`heat`, `centre_focal_loss` by the number of objects; `size` and `offset`, the mean absolute error at their
    cells.

    Args:
        overlap: see `radius_of`.
        alpha, beta: see `centre_focal_loss`.
        heat_weight, size_weight, offset_weight: of the terms.
    """

    def __init__(
        self,
        overlap: float = OVERLAP,
        alpha: float = 2.0,
        beta: float = 4.0,
        heat_weight: float = 1.0,
        size_weight: float = 0.1,
        offset_weight: float = 1.0,
    ) -> None:
        if not 0 < overlap < 1:
            raise ValueError(f"overlap is an IoU between 0 and 1, not {overlap}")
        self.overlap = overlap
        self.alpha, self.beta = alpha, beta
        self.weights = {"heat": heat_weight, "size": size_weight, "offset": offset_weight}

    def encode(self, levels: Plane, boxes: Plane, classes: npt.NDArray[np.int64]) -> dict[str, Plane]:
        return {}

    def __call__(self, network: nn.Module, frames: Tensor, truth: BoxBatch, epoch: int) -> dict[str, Tensor]:
        maps: CenterMaps = network(frames)
        side = frames.shape[3] // maps.heat.shape[3]
        with torch.autocast(frames.device.type, enabled=False):
            return self.terms(CenterMaps(*(each.float() for each in maps)), truth, side)

    def terms(self, maps: CenterMaps, truth: BoxBatch, side: int) -> dict[str, Tensor]:
        """The weighted terms of float32 maps whose cells are `side` pixels wide."""
        _, class_count, height, width = maps.heat.shape
        targets = [
            assign(boxes, classes, (height, width), side, class_count, self.overlap)
            for boxes, classes in zip(truth.boxes, truth.classes, strict=True)
        ]
        count = max(sum(len(target.cells) for target in targets), 1)
        heat = torch.stack([target.heat for target in targets])
        terms = {"heat": centre_focal_loss(maps.heat, heat, self.alpha, self.beta) / count}
        for name, planes in (("size", maps.size), ("offset", maps.offset)):
            # Of two boxes with one cell both count.
            errors = [
                F.l1_loss(plane.flatten(1)[:, target.cells].T, getattr(target, name), reduction="sum")
                for plane, target in zip(planes, targets, strict=True)
            ]
            terms[name] = torch.stack(errors).sum() / (2 * count)
        return {name: self.weights[name] * term for name, term in terms.items()}
