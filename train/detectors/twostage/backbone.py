"""ResNets and the feature pyramid, with detectron2's module names: its weights load as they are."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["frozen", "batch"]
NORMS = ("frozen", "batch")
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
PYRAMID_CHANNELS = 256
_EPS = 1e-5


def draw_normal(weight: Tensor, std: float) -> None:
    """Start a weight at random; one on the meta device, whose normals import torch's whole compiler, is left alone."""
    if not weight.is_meta:
        nn.init.normal_(weight, std=std)


def uses_bottlenecks(depth: int) -> bool:
    return depth >= 50


def stage_channels(depth: int) -> tuple[int, int, int, int]:
    """Channels of res2..res5."""
    first = 256 if uses_bottlenecks(depth) else 64
    return first, 2 * first, 4 * first, 8 * first


class FrozenBatchNorm(nn.Module):
    """Batch normalisation whose statistics and affine are constants; export folds it into the convolution before it."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels) - _EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, _EPS)


class ChannelAffine(nn.Module):
    """x * weight + bias, one of each a channel; the identity at the start. Decouples the heads' features (DeFRCN)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class Convolution(nn.Conv2d):
    """A convolution without bias, and its norm."""

    def __init__(self, source: int, target: int, kernel: int, stride: int, norm: Norm) -> None:
        super().__init__(source, target, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = FrozenBatchNorm(target) if norm == "frozen" else nn.BatchNorm2d(target, _EPS)
        draw_normal(self.weight, std=math.sqrt(2 / (kernel * kernel * target)))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))

    def on_samples(self, x: Tensor, affine: ChannelAffine | None) -> Tensor:
        """What a 1x1 convolution makes of the samples that its stride takes, after `affine`, whose two numbers go
        into its weights."""
        if affine is None:
            return self.norm(F.conv2d(x, self.weight))
        bias = (self.weight * affine.bias).sum(dim=(1, 2, 3))
        return self.norm(F.conv2d(x, self.weight * affine.weight, bias))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut, which a strided or widening block projects."""

    def __init__(self, source: int, target: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = Convolution(source, target, 3, stride, norm)
        self.conv2 = Convolution(target, target, 3, 1, norm)
        self.shortcut = Convolution(source, target, 1, stride, norm) if source != target else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.conv2(F.relu(self.conv1(x))) + shortcut)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 and the shortcut; the stride is in the first one or in the 3x3."""

    def __init__(self, source: int, middle: int, target: int, stride: int, norm: Norm, stride_in_1x1: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = Convolution(source, middle, 1, first, norm)
        self.conv2 = Convolution(middle, middle, 3, second, norm)
        self.conv3 = Convolution(middle, target, 1, 1, norm)
        self.shortcut = Convolution(source, target, 1, stride, norm) if source != target else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self._behind_first(self.conv1(x), shortcut)

    def on_samples(self, x: Tensor, affine: ChannelAffine | None) -> Tensor:
        """The same of a block with its stride in the 1x1 convolutions, given only what these read."""
        assert self.shortcut is not None
        return self._behind_first(self.conv1.on_samples(x, affine), self.shortcut.on_samples(x, affine))

    def _behind_first(self, first: Tensor, shortcut: Tensor) -> Tensor:
        return F.relu(self.conv3(F.relu(self.conv2(F.relu(first)))) + shortcut)


class Stem(nn.Module):
    """7x7 convolution and 3x3 maximum, each of stride 2."""

    def __init__(self, in_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, 64, 7, 2, norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.conv1(x)), 3, 2, padding=1)


class Body(NamedTuple):
    """What decides a ResNet."""

    depth: int
    norm: Norm
    stride_in_1x1: bool


def make_stage(body: Body, index: int) -> nn.Sequential:
    """res`index`, 2..5."""
    widths = (64, *stage_channels(body.depth))
    source, target = widths[index - 2], widths[index - 1]
    blocks: list[nn.Module] = []
    for number in range(BLOCKS[body.depth][index - 2]):
        stride = 2 if index > 2 and number == 0 else 1
        if uses_bottlenecks(body.depth):
            blocks.append(BottleneckBlock(source, target // 4, target, stride, body.norm, body.stride_in_1x1))
        else:
            blocks.append(BasicBlock(source, target, stride, body.norm))
        source = target
    return nn.Sequential(*blocks)


class ResNet(nn.Module):
    """N x in_channels x H x W -> the maps of res2 up to `last`, at strides 4, 8, ...; sides are divided rounding up."""

    def __init__(self, body: Body, in_channels: int, last: int) -> None:
        super().__init__()
        self.stem = Stem(in_channels, body.norm)
        self.names = [f"res{index}" for index in range(2, last + 1)]
        for index, name in enumerate(self.names, start=2):
            self.add_module(name, make_stage(body, index))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for name in self.names:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps

    def first_parts(self, count: int) -> list[nn.Module]:
        """The stem and the stages behind it, `count` parts in all."""
        return [self.get_submodule(name) for name in ["stem", *self.names][:count]]


class Pyramid(nn.Module):
    """A whole ResNet and its pyramid: P2..P6, 256 channels each, at strides 4..64 (Lin et al., CVPR 2017).

    Sides of the frames are multiples of 32.
    """

    def __init__(self, body: Body, in_channels: int) -> None:
        super().__init__()
        self.bottom_up = ResNet(body, in_channels, 5)
        for index, width in enumerate(stage_channels(body.depth), start=2):
            for name, source, kernel in (
                (f"fpn_lateral{index}", width, 1),
                (f"fpn_output{index}", PYRAMID_CHANNELS, 3),
            ):
                conv = nn.Conv2d(source, PYRAMID_CHANNELS, kernel, padding=kernel // 2)
                nn.init.kaiming_uniform_(conv.weight, a=1)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)
                self.add_module(name, conv)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.bottom_up(x)
        merged = self.get_submodule("fpn_lateral5")(maps[3])
        levels = [self.get_submodule("fpn_output5")(merged)]
        for index in (4, 3, 2):
            lateral = self.get_submodule(f"fpn_lateral{index}")(maps[index - 2])
            merged = lateral + F.interpolate(merged, scale_factor=2.0, mode="nearest")
            levels.insert(0, self.get_submodule(f"fpn_output{index}")(merged))
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]
