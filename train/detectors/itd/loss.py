"""ITD's loss: a Gaussian-focal KL divergence of the heat, and absolute errors of box and offset at the centres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.base import BoxBatch, Plane
from irforge.train.detectors.itd.encode import encode

Divergence = Literal["half", "full"]
Distance = Literal["l1", "smooth-l1"]

CLAMP = 1e-6
EPSILON = 1.2e-7

PUBLISHED: dict[str, dict[str, Any]] = {
    "A": {
        "alpha": 2.0,
        "beta": 4.0,
        "gamma": 4.0,
        "heat_weight": 1.5,
        "ltrb_weight": 0.5,
        "offset_weight": 1.0,
        "distance": "smooth-l1",
    },
    "B": {},
}
"""The two settings that the authors' code holds; B, the later one, is the default of every field of `ItdLoss`."""


def gfkl(
    logits: Tensor,
    heat: Tensor,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 2.0,
    divergence: Divergence = "half",
) -> Tensor:
    """Gaussian-focal KL divergence of each cell, N x 1 x h x w.

    With p the probability and t the heat, both clamped to [1e-6, 1 - 1e-6]: (1 - p)^alpha t ln(t / p) at a centre,
    where t is 1 and a local maximum; (1 - t)^gamma p^beta (1 - t) ln((1 - t) / (1 - p)) elsewhere. Either is one of the
    two terms of a Bernoulli KL divergence, so the loss can be negative, and off the centres it is least below p = t.

    Args:
        logits, heat: N x 1 x h x w.
        divergence: `full` has both terms under the same weights: never negative, least at p = t.
    """
    low, high = math.log(CLAMP), math.log1p(-CLAMP)
    p, q = (torch.sigmoid(x).clamp(CLAMP, 1 - CLAMP) for x in (logits, -logits))
    log_p, log_q = (F.logsigmoid(x).clamp(low, high) for x in (logits, -logits))
    centre = (heat > 1 - CLAMP) & (heat == F.max_pool2d(heat, 3, 1, 1))
    t = heat.clamp(CLAMP, 1 - CLAMP)
    hit = t * (t.log() - log_p)
    miss = (1 - t) * (torch.log1p(-t) - log_q)
    near, far = (hit + miss, hit + miss) if divergence == "full" else (hit, miss)
    return torch.where(centre, q.pow(alpha) * near, (1 - t).pow(gamma) * p.pow(beta) * far)


@dataclass(frozen=True)
class ItdLoss:
    """Three terms: `heat`, the sum of `gfkl` over all cells; `ltrb` and `offset`, the mean absolute error at centre
    cells. All are divided by the number of centres in the batch, at least 1, and computed in float32.

    `light` and `legacy_half_pixel` are those of `encode`.
    """

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 2.0
    divergence: Divergence = "half"
    distance: Distance = "l1"
    heat_weight: float = 1.0
    ltrb_weight: float = 1.0
    offset_weight: float = 1.0
    light: bool = True
    legacy_half_pixel: bool = False

    def __post_init__(self) -> None:
        if self.divergence not in ("half", "full"):
            raise ValueError(f"divergence is 'half' or 'full', not '{self.divergence}'")
        if self.distance not in ("l1", "smooth-l1"):
            raise ValueError(f"distance is 'l1' or 'smooth-l1', not '{self.distance}'")

    def encode(self, levels: Plane, boxes: Plane, classes: npt.NDArray[np.int64]) -> dict[str, Plane]:
        return encode(levels, boxes, light=self.light, legacy_half_pixel=self.legacy_half_pixel)

    def __call__(self, network: nn.Module, frames: Tensor, truth: BoxBatch, epoch: int) -> dict[str, Tensor]:
        logits, ltrb, offset = (_full_precision(found) for found in network(frames))
        heat, weight = truth.maps["heat"].to(logits), truth.maps["weight"].to(logits)
        centres = (heat == 1).sum().clamp_min(1)
        divergence = gfkl(logits, heat, self.alpha, self.beta, self.gamma, self.divergence)
        return {
            "heat": self.heat_weight * divergence.sum() / (centres + EPSILON),
            "ltrb": self.ltrb_weight * self._error(ltrb, truth.maps["ltrb"], weight) / (4 * centres),
            "offset": self.offset_weight * self._error(offset, truth.maps["offset"], weight) / (2 * centres),
        }

    def _error(self, found: Tensor, true: Tensor, weight: Tensor) -> Tensor:
        distance = F.l1_loss if self.distance == "l1" else F.smooth_l1_loss
        return (distance(found, true.to(found), reduction="none") * weight).sum()


def itd_loss(published: Literal["A", "B"] = "B", **changes: Any) -> ItdLoss:
    """A published setting with changes.

    Raises:
        TypeError, ValueError: an unknown option, or a value that it cannot have.
    """
    if published not in PUBLISHED:
        raise ValueError(f"the published settings are {' and '.join(PUBLISHED)}, not '{published}'")
    return ItdLoss(**PUBLISHED[published] | changes)


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
