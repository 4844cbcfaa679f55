"""Parts of ACM and ALCNet: residual blocks, gates of 1x1 convolutions, and the head."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (8, 16, 32, 64)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the input, which a 1x1 convolution fits where width or size change."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.downsample(x))


def stage(in_channels: int, channels: int, blocks: int, stride: int = 1) -> nn.Sequential:
    first = ResidualBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(ResidualBlock(channels, channels) for _ in range(blocks - 1)))


class GlobalMean(nn.Module):
    """The mean over H and W, N x C x 1 x 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


def gate(channels: int, hidden: int, pooled: bool) -> nn.Sequential:
    """A weight in 0..1 for each channel, of each pixel or, `pooled`, of the whole map."""
    return nn.Sequential(
        *([GlobalMean()] if pooled else []),
        nn.Conv2d(channels, hidden, 1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, 1),
        nn.BatchNorm2d(channels),
        nn.Sigmoid(),
    )


class Head(nn.Module):
    """Logits N x 1 x H x W of a map N x channels x H x W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 4
        self.block = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.block(x))


def resized(x: Tensor, factor: int, align_corners: bool) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=align_corners)
