"""The cascade of dense heads: a coarse one at stride 8 whose boxes and features a fine one at stride 4 refines."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.ops.dense import cell_points

COARSE_STRIDE = 8
REFINE_STRIDE = 4
GROUPS = 32
DEPTH = 4


class OscarMaps(NamedTuple):
    """What the head gives, float32. Logits are gated.

    Attributes:
        refine_logit: N x 1 x H/4 x W/4, of a target.
        delta: N x 4 x H/4 x W/4, shifts of the anchor's x0, y0, x1, y1 in units of 4 pixels.
        noco_logit: N x 1 x H/4 x W/4, of the normalised contrast.
        coarse_logit: N x 1 x H/8 x W/8, of a target.
        ltrb: N x 4 x H/8 x W/8, distances in pixels from a cell's point to the sides of its box.
    """

    refine_logit: Tensor
    delta: Tensor
    noco_logit: Tensor
    coarse_logit: Tensor
    ltrb: Tensor


def decode_boxes(maps: OscarMaps) -> tuple[Tensor, Tensor]:
    """(coarse N x 4 x H/8 x W/8, refined N x 4 x H/4 x W/4): xyxy in pixels of the input, neither clipped nor ordered.

    The anchor of a fine cell is the box of the coarse cell that it lies in.
    """
    left, top, right, bottom = maps.ltrb.unbind(1)
    x, y = cell_points(maps.ltrb.shape[2], maps.ltrb.shape[3], COARSE_STRIDE, maps.ltrb)
    coarse = torch.stack([x - left, y - top, x + right, y + bottom], dim=1)
    anchors = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
    return coarse, anchors + REFINE_STRIDE * maps.delta


class Scale(nn.Module):
    """One learnt factor, 1 at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def _convolution(source: int, target: int, bias: bool) -> nn.Conv2d:
    conv = nn.Conv2d(source, target, 3, padding=1, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _tower(source: int, features: int) -> nn.Sequential:
    layers = []
    for depth in range(DEPTH):
        conv = _convolution(features if depth else source, features, bias=False)
        norm = nn.GroupNorm(GROUPS, features)
        layers.append(nn.Sequential(OrderedDict(conv=conv, gn=norm, activate=nn.ReLU(inplace=True))))
    return nn.Sequential(*layers)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class OscarHead(nn.Module):
    """P2 and P3 -> `OscarMaps`.

    Args:
        channels: of P2 and P3; the towers have half as many.
        prior: probability of a target that the ungated class logits start at.
    """

    def __init__(self, channels: int, prior: float) -> None:
        super().__init__()
        features = channels // 2
        self.coarse_cls_convs = _tower(channels, features)
        self.coarse_reg_convs = _tower(channels, features)
        self.refine_cls_convs = _tower(channels, features)
        self.refine_reg_convs = _tower(channels + features, features)
        self.refine_noco_convs = _tower(channels, features)
        self.coarse_conv_cls = _convolution(features, 1, bias=True)
        self.coarse_conv_reg = _convolution(features, 4, bias=True)
        self.coarse_conv_mod = _convolution(features, 1, bias=True)
        self.refine_conv_cls = _convolution(features, 1, bias=True)
        self.refine_conv_reg = _convolution(features, 4, bias=True)
        self.refine_conv_mod = _convolution(features, 1, bias=True)
        self.refine_conv_noco = _convolution(features, 1, bias=True)
        self.scales = nn.ModuleList([Scale(), Scale()])
        for predictor in (self.coarse_conv_cls, self.refine_conv_cls):
            assert predictor.bias is not None
            nn.init.constant_(predictor.bias, math.log(prior / (1 - prior)))

    def forward(self, p2: Tensor, p3: Tensor) -> OscarMaps:
        refine_scale, coarse_scale = self.scales
        coarse_class, coarse_box = self.coarse_cls_convs(p3), self.coarse_reg_convs(p3)
        refine_class, refine_noco = self.refine_cls_convs(p2), self.refine_noco_convs(p2)
        refine_box = self.refine_reg_convs(torch.cat([p2, _twice(coarse_box)], dim=1))
        # float32 from the predictors on, also under autocast: products of logits and exp() overflow float16, and its
        # steps are half a pixel wide from 512 on.
        refine_gate = torch.sigmoid(_twice(self.coarse_conv_mod(coarse_class).float()))
        coarse_gate = torch.sigmoid(F.avg_pool2d(self.refine_conv_mod(refine_class).float(), 2))
        return OscarMaps(
            refine_logit=self.refine_conv_cls(refine_class).float() * refine_gate,
            delta=refine_scale(self.refine_conv_reg(refine_box).float()),
            noco_logit=self.refine_conv_noco(refine_noco).float(),
            coarse_logit=self.coarse_conv_cls(coarse_class).float() * coarse_gate,
            ltrb=torch.exp(coarse_scale(self.coarse_conv_reg(coarse_box).float())),
        )
