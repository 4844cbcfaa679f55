"""MSHNet: a U-shaped encoder and decoder of CBAM residual blocks with a head on each scale.

Written from the description in Liu et al., "Infrared Small Target Detection with Scale and Location Sensitivity"
(CVPR 2024), and from what the published weights require.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.mask_network import MaskNetwork, Outputs
from irforge.train.ops import pooling

WIDTHS = (16, 32, 64, 128, 256)
STRIDE = 16
SQUEEZE = 16


def upsample(x: Tensor, factor: int, training: bool) -> Tensor:
    """Bilinear upsampling whose corner pixels stay corner pixels, as the published weights expect."""
    if training:
        return pooling.upsample(x, factor)
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=True)


class ChannelAttention(nn.Module):
    """One gate a channel from the global mean and the global maximum, through one shared two-layer perceptron."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // SQUEEZE, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        # amax and not adaptive max pooling: the latter exports as a MaxPool with the whole map as its window, which
        # freezes the input size and which TensorRT refuses from 317x317 on.
        peak = pooling.global_max(x) if self.training else x.amax(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self._perceptron(mean) + self._perceptron(peak))

    def _perceptron(self, pooled: Tensor) -> Tensor:
        if not self.training:
            return self.fc2(F.relu(self.fc1(pooled)))
        # The same as matrix products: a CPU takes a slow path for convolutions of a single pixel.
        hidden = F.relu(F.linear(pooled.flatten(1), self.fc1.weight.flatten(1)))
        return F.linear(hidden, self.fc2.weight.flatten(1))[:, :, None, None]


class SpatialAttention(nn.Module):
    """One gate a pixel from the mean and the maximum over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        peak = pooling.channel_max(x) if self.training else x.amax(dim=1, keepdim=True)
        pooled = torch.cat([x.mean(dim=1, keepdim=True), peak], dim=1)
        return torch.sigmoid(self.conv1(pooled))


class AttentiveResidual(nn.Module):
    """Two 3x3 convolutions, channel then spatial attention, then the residual sum."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
        self.ca = ChannelAttention(out_channels)
        self.sa = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        u = F.relu(self.bn1(self.conv1(x)))
        u = self.bn2(self.conv2(u))
        u = self.ca(u) * u
        u = self.sa(u) * u
        return F.relu(u + self.shortcut(x))


def stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    first = AttentiveResidual(in_channels, out_channels)
    return nn.Sequential(first, *(AttentiveResidual(out_channels, out_channels) for _ in range(blocks - 1)))


class MSHNet(MaskNetwork):
    """Multi-scale-head network.

    Args:
        in_channels: 3 for the published weights, 1 for gray frames.
        head_kernel: side of the per-scale head convolutions; 1 as published in code, 3 as in the paper's figure.
        head_sigmoid: fuse probabilities as in the paper's figure, instead of logits as in the published code.
    """

    stride = STRIDE

    def __init__(self, in_channels: int = 3, head_kernel: int = 1, head_sigmoid: bool = False) -> None:
        super().__init__()
        if head_kernel not in (1, 3):
            raise ValueError(f"head_kernel is 1 or 3, not {head_kernel}")
        self.in_channels = in_channels
        self.head_sigmoid = head_sigmoid
        w0, w1, w2, w3, w4 = WIDTHS
        self.conv_init = nn.Conv2d(in_channels, w0, 1)
        self.encoder_0 = stage(w0, w0, 1)
        self.encoder_1 = stage(w0, w1, 2)
        self.encoder_2 = stage(w1, w2, 2)
        self.encoder_3 = stage(w2, w3, 2)
        self.middle_layer = stage(w3, w4, 2)
        self.decoder_3 = stage(w3 + w4, w3, 2)
        self.decoder_2 = stage(w2 + w3, w2, 2)
        self.decoder_1 = stage(w1 + w2, w1, 2)
        self.decoder_0 = stage(w0 + w1, w0, 1)
        pad = head_kernel // 2
        self.output_0 = nn.Conv2d(w0, 1, head_kernel, padding=pad)
        self.output_1 = nn.Conv2d(w1, 1, head_kernel, padding=pad)
        self.output_2 = nn.Conv2d(w2, 1, head_kernel, padding=pad)
        self.output_3 = nn.Conv2d(w3, 1, head_kernel, padding=pad)
        self.final = nn.Conv2d(4, 1, 3, padding=1)

    def decode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Feature maps of the four decoder scales, finest first: N x (16, 32, 64, 128) x H/(1, 2, 4, 8)."""
        e0 = self.encoder_0(self.conv_init(x))
        e1 = self.encoder_1(F.max_pool2d(e0, 2))
        e2 = self.encoder_2(F.max_pool2d(e1, 2))
        e3 = self.encoder_3(F.max_pool2d(e2, 2))
        middle = self.middle_layer(F.max_pool2d(e3, 2))
        d3 = self.decoder_3(torch.cat([e3, upsample(middle, 2, self.training)], dim=1))
        d2 = self.decoder_2(torch.cat([e2, upsample(d3, 2, self.training)], dim=1))
        d1 = self.decoder_1(torch.cat([e1, upsample(d2, 2, self.training)], dim=1))
        d0 = self.decoder_0(torch.cat([e0, upsample(d1, 2, self.training)], dim=1))
        return d0, d1, d2, d3

    def forward(self, x: Tensor, multi_scale: bool = True) -> Outputs:
        """Logits of every scale and of their fusion.

        Args:
            x: N x in_channels x H x W, normalised; H and W multiples of 16.
            multi_scale: False in the warm-up epochs: only the finest head is trained, and it is the prediction.

        Returns:
            ([m0, m1, m2, m3], final): logits N x 1 x H/(1, 2, 4, 8) and N x 1 x H x W. ([], m0) in warm-up.
        """
        d0, d1, d2, d3 = self.decode(x)
        m0 = self.output_0(d0)
        if not multi_scale:
            return [], m0
        heads = [m0, self.output_1(d1), self.output_2(d2), self.output_3(d3)]
        fused = [torch.sigmoid(m) for m in heads] if self.head_sigmoid else heads
        full = [fused[0], *(upsample(m, 2**k, self.training) for k, m in enumerate(fused[1:], start=1))]
        return heads, self.final(torch.cat(full, dim=1))
