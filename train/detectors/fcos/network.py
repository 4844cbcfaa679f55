"""FCOS: a box, a class and a centreness at every cell of five pyramid levels, by heads that the levels share.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, in the form that RFLA (Xu et al., ECCV
2022) trains: centreness beside the box, distances in units of the level's stride.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.boxes import count_of
from irforge.train.detectors.twostage.backbone import (
    BLOCKS,
    NORMS,
    Body,
    Norm,
    ResNet,
    draw_normal,
    stage_channels,
)

STRIDES = (8, 16, 32, 64, 128)
STRIDE = 32
"""Sides of the frames are multiples of it: the pyramid's sums need equal sizes up to there."""
DEPTH_OF_TOWERS = 4
PRIOR = 0.01


class FcosMaps(NamedTuple):
    """One map a level, P3..P7, of cells 8..128 pixels wide.

    logits: N x classes x h x w. reach: N x 4 x h x w, distances from the cell's point to the left, top, right and
    bottom edge in strides, at least 0. centreness: logits, N x 1 x h x w.
    """

    logits: list[Tensor]
    reach: list[Tensor]
    centreness: list[Tensor]


def _convolution(source: int, target: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(source, target, kernel, stride, padding=kernel // 2)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class Pyramid(nn.Module):
    """A ResNet and its pyramid from res3 on: P3..P5 by way down, P6 and P7 by strided convolutions of P5."""

    def __init__(self, body: Body, in_channels: int, channels: int) -> None:
        super().__init__()
        self.bottom_up = ResNet(body, in_channels, 5)
        for index, width in enumerate(stage_channels(body.depth)[1:], start=3):
            self.add_module(f"fpn_lateral{index}", _convolution(width, channels, 1))
        for index in range(3, 8):
            self.add_module(f"fpn_output{index}", _convolution(channels, channels, stride=2 if index > 5 else 1))
        for module in self.children():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor) -> list[Tensor]:
        _, *maps = self.bottom_up(x)
        merged = self._convolve("fpn_lateral5", maps[2])
        levels = [self._convolve("fpn_output5", merged)]
        for index in (4, 3):
            lateral = self._convolve(f"fpn_lateral{index}", maps[index - 3])
            merged = lateral + F.interpolate(merged, scale_factor=2.0, mode="nearest")
            levels.insert(0, self._convolve(f"fpn_output{index}", merged))
        p6 = self._convolve("fpn_output6", levels[-1])
        return [*levels, p6, self._convolve("fpn_output7", F.relu(p6))]

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        result: Tensor = self.get_submodule(name)(x)
        return result


def _tower(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(DEPTH_OF_TOWERS):
        layers += [_convolution(channels, channels), nn.ReLU()]
    return nn.Sequential(*layers)


class Head(nn.Module):
    """Two towers without norms; the levels differ by one learnt factor on their distances."""

    def __init__(self, channels: int, class_count: int, prior: float) -> None:
        super().__init__()
        self.class_tower = _tower(channels)
        self.box_tower = _tower(channels)
        self.logits = _convolution(channels, class_count)
        self.reach = _convolution(channels, 4)
        self.centreness = _convolution(channels, 1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                draw_normal(module.weight, std=0.01)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -math.log((1 - prior) / prior))

    def forward(self, levels: list[Tensor]) -> FcosMaps:
        maps = FcosMaps([], [], [])
        for scale, level in zip(self.scales, levels, strict=True):
            box = self.box_tower(level)
            maps.logits.append(self.logits(self.class_tower(level)))
            maps.reach.append(F.relu(self.reach(box) * scale))
            maps.centreness.append(self.centreness(box))
        return maps


class Fcos(nn.Module):
    """The network. Module names below `backbone.bottom_up` are detectron2's, as those of the two-stage detectors.

    Args:
        classes: their names, in the order of the outputs; or
        class_count: their number.
        depth: of the ResNet: 18, 34, 50 or 101.
        in_channels: 3 as published, 1 for gray frames.
        channels: of the pyramid and the towers, 256 as published.
        norm: `frozen`: constants that published weights bring along; `batch`: learnt, for a start at random.
        stride_in_1x1: of bottlenecks, as in the Caffe weights that were published with; torchvision's have it in the
            3x3.
        freeze_at: parts that are not trained: 1 the stem, 2 with res2, 3 with res3.
        prior: probability of each class that its logits start at.
    """

    def __init__(
        self,
        classes: Sequence[str] = (),
        class_count: int = 0,
        depth: int = 50,
        in_channels: int = 3,
        channels: int = 256,
        norm: Norm = "frozen",
        stride_in_1x1: bool = True,
        freeze_at: int = 2,
        prior: float = PRIOR,
    ) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"depth is one of {', '.join(map(str, BLOCKS))}, not {depth}")
        if norm not in NORMS:
            raise ValueError(f"norm is one of {', '.join(NORMS)}, not '{norm}'")
        if not 0 <= freeze_at <= 5:
            raise ValueError(f"freeze_at counts the stem and the stages behind it, not {freeze_at}")
        if channels < 1:
            raise ValueError(f"channels is a positive number, not {channels}")
        if not 0 < prior < 1:
            raise ValueError(f"prior is a probability between 0 and 1, not {prior}")
        self.in_channels = in_channels
        self.class_count = count_of(classes, class_count)
        self.backbone = Pyramid(Body(depth, norm, stride_in_1x1), in_channels, channels)
        self.head = Head(channels, self.class_count, prior)
        self._frozen = self.backbone.bottom_up.first_parts(freeze_at)
        for part in self._frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Fcos:
        super().train(mode)
        # Learnt statistics of frozen parts stay as they are too.
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, x: Tensor) -> FcosMaps:
        """x: N x in_channels x H x W, normalised; H and W multiples of 32."""
        maps: FcosMaps = self.head(self.backbone(x))
        return maps
