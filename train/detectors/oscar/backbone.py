"""ResNet-18 with a deep stem, and the pyramid of which two levels are used. Names are those of published weights."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (64, 128, 256, 512)


def _stem(in_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source, target, stride in ((in_channels, 32, 2), (32, 32, 1), (32, 64, 1)):
        layers += [
            nn.Conv2d(source, target, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(target),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.MaxPool2d(3, 2, padding=1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the residual sum; a strided one projects its shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        u = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(u)) + shortcut)


class ResNet18(nn.Module):
    """N x in_channels x H x W -> maps of 64, 128, 256, 512 channels at strides 4, 8, 16, 32. Trained from scratch."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = _stem(in_channels)
        stages, source = [], WIDTHS[0]
        for width in WIDTHS:
            first = BasicBlock(source, width, 1 if width == source else 2)
            stages.append(nn.Sequential(first, BasicBlock(width, width, 1)))
            source = width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                # Each block starts as its shortcut.
                nn.init.zeros_(module.bn2.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        c2 = self.layer1(self.stem(x))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return c2, c3, c4, self.layer4(c4)


def _convolution(source: int, target: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(source, target, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return nn.Sequential(OrderedDict(conv=conv))


class Pyramid(nn.Module):
    """The backbone's four maps -> P2 and P3, `channels` each, at strides 4 and 8; P4 and P5 serve the way down alone.

    `dead_convolutions` adds the output convolutions of P4 and P5, which published weights hold and nothing uses.
    """

    def __init__(self, channels: int, dead_convolutions: bool) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_convolution(width, channels, 1) for width in WIDTHS)
        outputs = 4 if dead_convolutions else 2
        self.fpn_convs = nn.ModuleList(_convolution(channels, channels, 3) for _ in range(outputs))

    def forward(self, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        m2, m3, m4, p5 = (lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True))
        p4 = m4 + F.interpolate(p5, scale_factor=2.0, mode="nearest")
        p3 = m3 + F.interpolate(p4, scale_factor=2.0, mode="nearest")
        p2 = m2 + F.interpolate(p3, scale_factor=2.0, mode="nearest")
        return self.fpn_convs[0](p2), self.fpn_convs[1](p3)
