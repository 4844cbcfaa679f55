"""CenterNet: a map of centres for each class, and at every cell a box's size and its centre's place within the cell.

Zhou et al., "Objects as Points", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from irforge.train.detectors.boxes import count_of
from irforge.train.detectors.itd import network as itd
from irforge.train.detectors.twostage.backbone import BLOCKS, NORMS, Body, Norm, ResNet, draw_normal, stage_channels

Trunk = Literal["resnet", "itd"]
TRUNKS = ("resnet", "itd")
CHANNELS = {"resnet": 64, "itd": itd.WIDTHS[0]}


class CenterMaps(NamedTuple):
    """heat: logits of a centre, N x classes x h x w. size: width and height, N x 2 x h x w, in cells. offset: the
    centre's place within its cell, x first, N x 2 x h x w, in cells."""

    heat: Tensor
    size: Tensor
    offset: Tensor


class DeconvolvedResNet(nn.Module):
    """A ResNet, and from its last map three steps up to stride 4: a 3x3 convolution, then a transposed one, to 4, 2 and
    1 times `channels`."""

    reduction = 4
    stride = 32

    def __init__(self, body: Body, in_channels: int, channels: int) -> None:
        super().__init__()
        self.bottom_up = ResNet(body, in_channels, 5)
        source = stage_channels(body.depth)[-1]
        layers: list[nn.Module] = []
        for target in (4 * channels, 2 * channels, channels):
            for conv in (
                nn.Conv2d(source, target, 3, padding=1, bias=False),
                nn.ConvTranspose2d(target, target, 4, 2, padding=1, bias=False),
            ):
                # Each output of a transposed convolution of stride 2 sums a quarter of its taps.
                taps = 9 * source if isinstance(conv, nn.Conv2d) else 4 * target
                draw_normal(conv.weight, std=math.sqrt(2 / taps))
                layers += [conv, nn.BatchNorm2d(target), nn.ReLU()]
            source = target
        self.up = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.up(self.bottom_up(x)[-1])
        return result


class LightBackbone(itd.Backbone):
    """ITD's four resolutions; what is read is the finest, at stride 2, without its way down."""

    reduction = itd.REDUCTION
    stride = itd.STRIDE

    def __init__(self, in_channels: int) -> None:
        # The published fuse doubles the finest branch in each exchange, which nothing levels again before the heads.
        super().__init__(in_channels, fuse="clean", shared_paths=True)
        del self.top_down
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.branches(x)[0]


def _head(source: int, channels: int, outputs: int, bias: float = 0.0) -> nn.Sequential:
    hidden, last = nn.Conv2d(source, channels, 3, padding=1), nn.Conv2d(channels, outputs, 1)
    assert last.bias is not None
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(hidden, nn.ReLU(), last)


class CenterNet(nn.Module):
    """The network. Module names below `backbone.bottom_up` are detectron2's, as those of the two-stage detectors.

    Args:
        classes: their names, in the order of the outputs; or
        class_count: their number.
        trunk: `resnet` as published, without deformable convolutions; `itd`: the light high-resolution one that ITD's
            authors compare on.
        depth: of the ResNet: 18, 34, 50 or 101.
        in_channels: 3 as published, 1 for gray frames.
        channels: of the heads' hidden map, and of the ResNet's last step up; None means 64, with `itd` 40.
        norm: of the ResNet. `frozen`: constants that published weights bring along; `batch`: learnt.
        stride_in_1x1: of bottlenecks, as in Caffe's weights; torchvision's have it in the 3x3.
        prior: probability of a centre that the logits start at.
    """

    def __init__(
        self,
        classes: Sequence[str] = (),
        class_count: int = 0,
        trunk: Trunk = "resnet",
        depth: int = 18,
        in_channels: int = 3,
        channels: int | None = None,
        norm: Norm = "batch",
        stride_in_1x1: bool = False,
        prior: float = 0.1,
    ) -> None:
        super().__init__()
        if trunk not in TRUNKS:
            raise ValueError(f"trunk is one of {', '.join(TRUNKS)}, not '{trunk}'")
        if depth not in BLOCKS:
            raise ValueError(f"depth is one of {', '.join(map(str, BLOCKS))}, not {depth}")
        if norm not in NORMS:
            raise ValueError(f"norm is one of {', '.join(NORMS)}, not '{norm}'")
        width = CHANNELS[trunk] if channels is None else channels
        if width < 1:
            raise ValueError(f"channels is a positive number, not {width}")
        if not 0 < prior < 1:
            raise ValueError(f"prior is a probability between 0 and 1, not {prior}")
        self.in_channels = in_channels
        self.class_count = count_of(classes, class_count)
        self.backbone: DeconvolvedResNet | LightBackbone
        if trunk == "itd":
            self.backbone = LightBackbone(in_channels)
        else:
            self.backbone = DeconvolvedResNet(Body(depth, norm, stride_in_1x1), in_channels, width)
        source = itd.WIDTHS[0] if trunk == "itd" else width
        self.heat = _head(source, width, self.class_count, -math.log((1 - prior) / prior))
        self.size = _head(source, width, 2)
        self.offset = _head(source, width, 2)

    @property
    def reduction(self) -> int:
        """Pixels a side of a cell."""
        return self.backbone.reduction

    @property
    def stride(self) -> int:
        """Sides of the frames are multiples of it."""
        return self.backbone.stride

    def forward(self, x: Tensor) -> CenterMaps:
        """x: N x in_channels x H x W, normalised; H and W multiples of `stride`."""
        features = self.backbone(x)
        return CenterMaps(self.heat(features), self.size(features), self.offset(features))
