"""Losses for mask targets: scale and location sensitive (SLS), soft IoU, Dice, BCE, and their deep supervision.

Any mask network trains by any of them, and by any weighted sum: see `mixed_loss`, and `weights_of` for their names.
SLS follows Liu et al. (CVPR 2024) as its authors' corrected code computes it. Every loss is computed in float32 (or in
float64 if given it), also under autocast: the squared area difference overflows float16 from some 500 pixels on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Location = Literal["moment", "centroid", "none"]
Empty = Literal["legacy", "null-risk"]
MaskLoss = Callable[[Tensor, Tensor], Tensor]

TINY = 1e-12
TERMS = ("sls", "soft-iou", "batch-iou", "dice", "bce")


def _full_precision(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.to(dtype), target.to(dtype)


def _areas(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    over = tuple(range(1, p.ndim))
    return (p * y).sum(over), p.sum(over), y.sum(over)


def scale_weight(predicted: Tensor, true: Tensor) -> Tensor:
    """(min + v) / (max + v) of two areas in pixels, with v = ((predicted - true) / 2)^2; 1 where they agree."""
    variance = ((predicted - true) / 2) ** 2
    return (torch.minimum(predicted, true) + variance) / (torch.maximum(predicted, true) + variance).clamp_min(TINY)


def location_loss(p: Tensor, y: Tensor, location: Location = "moment") -> Tensor:
    """Polar disagreement of the two centres of each image: N values in [0, 2).

    `moment`: the centre is the mean of coordinate x probability over all pixels, with coordinates column / W and
    row / H. It is not divided by the mass, so it pulls on the mass too: that is how the published weights were trained.
    `centroid`: divided by the mass, at pixel centres, with an epsilon that does not drown targets of a few pixels.
    """
    height, width = p.shape[-2:]
    half = 0.5 if location == "centroid" else 0.0
    x = ((torch.arange(width, device=p.device) + half) / width).to(p.dtype)
    row = ((torch.arange(height, device=p.device) + half) / height).to(p.dtype).unsqueeze(1)
    eps = TINY if location == "centroid" else 1e-8

    def centre(mass: Tensor) -> tuple[Tensor, Tensor]:
        over = tuple(range(1, mass.ndim))
        cx, cy = (x * mass).mean(over), (row * mass).mean(over)
        if location == "centroid":
            total = mass.mean(over).clamp_min(TINY)
            return cx / total, cy / total
        return cx, cy

    (px, py), (tx, ty) = centre(p), centre(y)
    angle = (4 / math.pi**2) * (torch.atan(py / (px + eps)) - torch.atan(ty / (tx + eps))) ** 2
    reach_p, reach_t = torch.sqrt(px**2 + py**2 + eps), torch.sqrt(tx**2 + ty**2 + eps)
    return 1 - torch.minimum(reach_p, reach_t) / (torch.maximum(reach_p, reach_t) + eps) + angle


def sls_loss(
    logits: Tensor,
    target: Tensor,
    warm: bool,
    location: Location = "moment",
    smooth: float = 0.0,
    empty: Empty = "legacy",
) -> Tensor:
    """Scale and location sensitive loss.

    Args:
        logits: N x 1 x H x W.
        target: N x 1 x H x W, 0 or 1.
        warm: True in the warm-up epochs: plain soft IoU. False: scale-weighted IoU plus the location term.
        location: see `location_loss`; `none` leaves the term out.
        smooth: added to both sides of the IoU fraction; 0 as published.
        empty: what an image without a target contributes. `legacy`: as published, a constant 1 (plus the location term
            after warm-up), whose gradient is zero. `null-risk`: the mean probability, so that false alarms cost.

    Returns:
        A scalar; it can exceed 2 after warm-up.
    """
    logits, target = _full_precision(logits, target)
    p = torch.sigmoid(logits)
    inter, predicted, true = _areas(p, target)
    iou = (inter + smooth) / (predicted + true - inter + smooth).clamp_min(TINY)
    if warm:
        per_image = 1 - iou
    else:
        per_image = 1 - scale_weight(predicted, true) * iou
        if location != "none":
            per_image = per_image + location_loss(p, target, location)
    if empty == "null-risk":
        per_image = torch.where(true > 0, per_image, p.mean(tuple(range(1, p.ndim))))
    return per_image.mean()


def soft_iou_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - mean of (I + smooth) / (P + T - I + smooth)."""
    logits, target = _full_precision(logits, target)
    inter, predicted, true = _areas(torch.sigmoid(logits), target)
    return 1 - ((inter + smooth) / (predicted + true - inter + smooth)).mean()


def dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - mean of (2I + smooth) / (P + T + smooth); 0 for a perfect prediction."""
    logits, target = _full_precision(logits, target)
    inter, predicted, true = _areas(torch.sigmoid(logits), target)
    return 1 - ((2 * inter + smooth) / (predicted + true + smooth)).mean()


def bce_loss(logits: Tensor, target: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy, averaged over pixels; `positive_weight` multiplies that of target pixels."""
    logits, target = _full_precision(logits, target)
    weight = logits.new_tensor(positive_weight)
    return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)


def batch_iou_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft IoU of the areas summed over the whole batch: the soft form of the pooled IoU that is reported."""
    logits, target = _full_precision(logits, target)
    inter, predicted, true = _areas(torch.sigmoid(logits), target)
    union = (predicted + true - inter).sum()
    return 1 - (inter.sum() + 1) / (union + 1)


def mixed_loss(
    logits: Tensor,
    target: Tensor,
    *,
    warm: bool,
    sls: float = 1.0,
    location: Location = "moment",
    smooth: float = 0.0,
    empty: Empty = "legacy",
    bce: float = 0.0,
    positive_weight: float = 1.0,
    batch_iou: float = 0.0,
    soft_iou: float = 0.0,
    dice: float = 0.0,
) -> Tensor:
    """Weighted sum of the losses above; the defaults are SLS as published.

    `location`, `smooth` and `empty` are those of `sls_loss`; `positive_weight` is that of `bce_loss`.
    """
    total = logits.new_zeros(())
    if sls:
        total = total + sls * sls_loss(logits, target, warm, location, smooth, empty)
    if bce:
        total = total + bce * bce_loss(logits, target, positive_weight)
    if batch_iou:
        total = total + batch_iou * batch_iou_loss(logits, target)
    if soft_iou:
        total = total + soft_iou * soft_iou_loss(logits, target)
    if dice:
        total = total + dice * dice_loss(logits, target)
    return total


def weights_of(name: str) -> dict[str, float]:
    """The weights that `mixed_loss` takes, of a loss's name: one of `TERMS`, or several with `+` between.

    Raises:
        ValueError: a term that there is not, or twice; the message lists those there are.
    """
    terms = [term.strip() for term in name.split("+")]
    if not set(terms) <= set(TERMS) or len(set(terms)) < len(terms):
        raise ValueError(f"there is no loss '{name}'; losses: {', '.join(TERMS)}, and sums such as dice+bce")
    return {term.replace("-", "_"): float(term in terms) for term in TERMS}


def deep_supervision(
    heads: list[Tensor], final: Tensor, target: Tensor, loss: MaskLoss, head_weight: float = 1.0
) -> Tensor:
    """Weighted mean of `loss` over the final output (weight 1) and each head (`head_weight`).

    Heads come finest first. For each the mask is max-pooled by 2 until it has the head's size. With no heads it is the
    loss of `final` alone.
    """
    total = loss(final, target)
    for head in heads:
        while target.shape[-1] > head.shape[-1]:
            target = F.max_pool2d(target, 2)
        total = total + head_weight * loss(head, target)
    return total / (1 + head_weight * len(heads))
