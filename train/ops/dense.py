"""What detectors share that give a box at every cell of a map: the cells' points, and the losses of class and box."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cell_points(height: int, width: int, stride: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Edge coordinates (x [W], y [H, 1]) of the centres of cells `stride` pixels wide, on the device of `like`."""
    x = (torch.arange(width, device=like.device).float() + 0.5) * stride
    y = (torch.arange(height, device=like.device).float() + 0.5) * stride
    return x, y[:, None]


def focal_loss(logits: Tensor, positive: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum over all cells (Lin et al., ICCV 2017); `positive` holds 1 for targets and 0 for background."""
    sign = 2 * positive - 1
    weight = alpha * positive + (1 - alpha) * (1 - positive)
    wrong = torch.sigmoid(-sign * logits)
    return -(weight * wrong**gamma * F.logsigmoid(sign * logits)).sum()


def diou_loss(boxes: Tensor, targets: Tensor, eps: float = 1e-6) -> Tensor:
    """1 - IoU + squared distance of the centres / squared diagonal of the enclosing box, [m], of boxes [m, 4] (Zheng et
    al., AAAI 2020)."""
    low, high = torch.maximum(boxes[:, :2], targets[:, :2]), torch.minimum(boxes[:, 2:], targets[:, 2:])
    shared = (high - low).clamp_min(0).prod(dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (targets[:, 2:] - targets[:, :2]).prod(dim=1)
    outer = torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])
    diagonal = outer.clamp_min(0).square().sum(dim=1)
    apart = (boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]).square().sum(dim=1) / 4
    return 1 - shared / (areas - shared + eps) + apart / (diagonal + eps)
