"""ITD: a light high-resolution network whose maps have half the frame's sides, with three dense heads.

Written from the description of the infrared tiny target detector (ITTD, 2025) and from what its published code does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.itd.blocks import Exchange, Fuse, WeightingBlock, conv_bn, interleave, separable
from irforge.train.ops import pooling
from irforge.train.ops.mish import Mish

STRIDE = 16
REDUCTION = 2
STEM = 32
WIDTHS = (40, 80, 160, 320)
MODULES = (2, 4, 2)
PRIOR = 0.1

Init = Literal["published", "kaiming"]


class Maps(NamedTuple):
    """What the heads say of every cell of H/2 x W/2: logits of a target's centre (N x 1), distances from the centre to
    the left, top, right and bottom edge (N x 4), and the centre's place within its cell (N x 2, x first), in cells."""

    heat: Tensor
    ltrb: Tensor
    offset: Tensor


class Stem(nn.Module):
    """Half the sides, 32 channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        half = STEM // 2
        self.entry = nn.Sequential(*conv_bn(in_channels, STEM, 3, stride=2), Mish())
        self.left = nn.Sequential(*separable(half, half), Mish())
        self.right = nn.Sequential(*conv_bn(half, STEM), Mish(), *separable(STEM, half), Mish())

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.entry(x).chunk(2, dim=1)
        return interleave(self.left(left), self.right(right))


class Transition(nn.Module):
    """Gives every branch its width, and makes one more branch, of half the sides, from the last."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        self.same = nn.ModuleList(
            nn.Identity() if old == new else nn.Sequential(*separable(old, new), nn.ReLU())
            for old, new in zip(before, after, strict=False)
        )
        self.new = nn.Sequential(*separable(before[-1], after[-1], stride=2), nn.ReLU())

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        kept = [layer(x) for layer, x in zip(self.same, branches, strict=True)]
        return [*kept, self.new(branches[-1])]


class StageModule(nn.Module):
    """Two weighting blocks, then the exchange between branches."""

    def __init__(self, widths: tuple[int, ...], fuse: Fuse, shared_paths: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(WeightingBlock(widths), WeightingBlock(widths))
        self.exchange = Exchange(widths, fuse, shared_paths)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = self.exchange(self.blocks(branches))
        return outputs


class TopDown(nn.Module):
    """From the coarsest branch to the finest: separable convolution, bilinear upsampling, sum; gives the finest."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            nn.Sequential(*separable(width, narrow), Mish())
            for width, narrow in zip(WIDTHS[::-1], (*WIDTHS[-2::-1], WIDTHS[0]), strict=True)
        )

    def forward(self, branches: list[Tensor]) -> Tensor:
        x = branches[-1]
        for step, finer in zip(self.steps, branches[-2::-1], strict=False):
            x = finer + self._double(step(x))
        result: Tensor = self.steps[-1](x)
        return result

    def _double(self, x: Tensor) -> Tensor:
        if self.training:
            return pooling.upsample(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class Backbone(nn.Module):
    """Four parallel resolutions, H/2 to H/16, merged into 40 channels at H/2."""

    def __init__(self, in_channels: int, fuse: Fuse, shared_paths: bool) -> None:
        super().__init__()
        self.stem = Stem(in_channels)
        self.transitions = nn.ModuleList()
        self.stages = nn.ModuleList()
        before: tuple[int, ...] = (STEM,)
        for i, modules in enumerate(MODULES):
            after = WIDTHS[: i + 2]
            self.transitions.append(Transition(before, after))
            self.stages.append(nn.Sequential(*(StageModule(after, fuse, shared_paths) for _ in range(modules))))
            before = after
        self.top_down = TopDown()

    def branches(self, x: Tensor) -> list[Tensor]:
        """The four resolutions, 40 to 320 channels, finest first."""
        branches = [self.stem(x)]
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            branches = stage(transition(branches))
        return branches

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.top_down(self.branches(x))
        return merged


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(WIDTHS[0], WIDTHS[0], 3, padding=1), Mish(), nn.Conv2d(WIDTHS[0], channels, 1))


class ITDNet(nn.Module):
    """Infrared tiny target detector.

    Args:
        in_channels: 3 as published, 1 for gray frames.
        fuse: see `Exchange`; `published` for weights that were trained with the authors' code.
        init: `published` draws the kernels of the backbone and of the box heads from N(0, 0.001); `kaiming` takes He's
            standard deviation (ICCV 2015) for those of the backbone.
        shared_paths: False evaluates every path as often as the authors' code does. The same values, more work: the
            form that speed-ups are stated against.
    """

    def __init__(
        self, in_channels: int = 3, fuse: Fuse = "published", init: Init = "published", shared_paths: bool = True
    ) -> None:
        super().__init__()
        if fuse not in ("published", "clean"):
            raise ValueError(f"fuse is 'published' or 'clean', not '{fuse}'")
        if init not in ("published", "kaiming"):
            raise ValueError(f"init is 'published' or 'kaiming', not '{init}'")
        self.in_channels = in_channels
        self.fuse = fuse
        self.backbone = Backbone(in_channels, fuse, shared_paths)
        self.heat = head(1)
        self.ltrb = head(4)
        self.offset = head(2)
        self._initialise(init)

    def features(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W, normalised; H and W multiples of 16 -> N x 40 x H/2 x W/2."""
        merged: Tensor = self.backbone(x)
        return merged

    def forward(self, x: Tensor) -> Maps:
        """N x in_channels x H x W, normalised; H and W multiples of 16 -> the heads' maps, N x . x H/2 x W/2."""
        features = self.features(x)
        return Maps(self.heat(features), self.ltrb(features), self.offset(features))

    @torch.no_grad()
    def _initialise(self, init: Init) -> None:
        for conv in _convolutions(self.backbone):
            if init == "kaiming":
                nn.init.kaiming_normal_(conv.weight)
            else:
                nn.init.normal_(conv.weight, std=0.001)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        for conv in (*_convolutions(self.ltrb), *_convolutions(self.offset)):
            nn.init.normal_(conv.weight, std=0.001)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        *_, last = _convolutions(self.heat)
        assert last.bias is not None
        nn.init.constant_(last.bias, math.log(PRIOR / (1 - PRIOR)))


def _convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))
