"""What ITD's backbone is made of: gated half-channel blocks over parallel resolutions, and the fuse between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.ops.nearest import enlarge

Fuse = Literal["published", "clean"]

CROSS_SQUEEZE = 8
CHANNEL_SQUEEZE = 4
MOMENTUM = 0.1
MOMENTUM_OF_TWO = 1 - (1 - MOMENTUM) ** 2


def conv_bn(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, depthwise: bool = False
) -> nn.Sequential:
    """Convolution without bias, batch normalisation."""
    groups = in_channels if depthwise else 1
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels, momentum=MOMENTUM))


def separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3, then 1x1; each with batch normalisation, nothing between them."""
    return nn.Sequential(
        *conv_bn(in_channels, in_channels, 3, stride, depthwise=True), *conv_bn(in_channels, out_channels)
    )


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Channels of two tensors in turn: a shuffle in two groups of their concatenation."""
    return torch.stack([first, second], dim=2).flatten(1, 2)


class ChannelGate(nn.Module):
    """One factor a channel from the global mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // CHANNEL_SQUEEZE, 1)
        self.fc2 = nn.Conv2d(channels // CHANNEL_SQUEEZE, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self._perceptron(mean))

    def _perceptron(self, mean: Tensor) -> Tensor:
        if not self.training:
            return self.fc2(F.relu(self.fc1(mean)))
        # The same as matrix products: a CPU takes a slow path for convolutions of a single pixel.
        hidden = F.relu(F.linear(mean.flatten(1), self.fc1.weight.flatten(1), self.fc1.bias))
        return F.linear(hidden, self.fc2.weight.flatten(1), self.fc2.bias)[:, :, None, None]


class WeightingBlock(nn.Module):
    """On every branch the first half of the channels passes; the second is gated across resolutions, filtered by a
    depthwise 3x3, gated by channel; then both halves are interleaved.

    Branch i has sides 2^i times smaller than branch 0. The gate across resolutions is made at the coarsest of them.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        halves = [width // 2 for width in widths]
        hidden = sum(halves) // CROSS_SQUEEZE
        self.halves = halves
        self.squeeze = conv_bn(sum(halves), hidden)
        self.excite = conv_bn(hidden, sum(halves))
        self.filters = nn.ModuleList(conv_bn(half, half, 3, depthwise=True) for half in halves)
        self.gates = nn.ModuleList(ChannelGate(half) for half in halves)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        passed, worked = zip(*(x.chunk(2, dim=1) for x in branches), strict=True)
        factors = [2 ** (len(branches) - 1 - i) for i in range(len(branches))]
        pooled = [x if k == 1 else F.avg_pool2d(x, k) for x, k in zip(worked, factors, strict=True)]
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(torch.cat(pooled, dim=1)))))
        outputs = []
        for i, part in enumerate(gate.split(self.halves, dim=1)):
            x = worked[i] * enlarge(part, factors[i], self.training)
            outputs.append(interleave(passed[i], self.gates[i](self.filters[i](x))))
        return outputs


class Exchange(nn.Module):
    """Every branch receives all others: coarser ones through 1x1 and nearest upsampling, finer ones through strided
    separable convolutions.

    With `fuse="published"` the sums are those that the authors' code computes, whatever was meant: branch 0 counts
    twice, and the others receive it after its own fusion, twice again. What was trained that way needs it. `clean` is
    the textbook sum, each branch once and as it came.

    Args:
        shared_paths: evaluate a path whose result counts twice once and double it, and add up coarse maps before they
            are enlarged: the same values. False computes every term as the authors' code does.
    """

    def __init__(self, widths: Sequence[int], fuse: Fuse = "published", shared_paths: bool = True) -> None:
        super().__init__()
        self.fuse = fuse
        self.shared_paths = shared_paths
        count = len(widths)
        self.up = nn.ModuleDict()
        self.down = nn.ModuleDict()
        for i in range(count):
            for j in range(i + 1, count):
                self.up[f"{j}to{i}"] = conv_bn(widths[j], widths[i])
                self.down[f"{i}to{j}"] = _descent(widths[i], widths[j], j - i)
        if fuse == "published" and shared_paths:
            # A path that runs twice on one batch also moves its running statistics twice.
            for j in range(1, count):
                for module in self.down[f"0to{j}"].modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.momentum = MOMENTUM_OF_TWO

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        if not self.shared_paths:
            return self._term_by_term(branches)
        double = 2 if self.fuse == "published" else 1
        own = list(branches)
        own[0] = own[0] * double
        outputs = []
        finest = branches[0]
        for i in range(len(branches)):
            total = own[i]
            if i:
                total = total + self.down[f"0to{i}"](finest) * double
            for j in range(1, i):
                total = total + self.down[f"{j}to{i}"](branches[j])
            if i + 1 < len(branches):
                total = total + self._from_coarser(branches, i)
            if i == 0 and self.fuse == "published":
                finest = total
            outputs.append(F.relu(total))
        return outputs

    def _from_coarser(self, branches: list[Tensor], i: int) -> Tensor:
        last = len(branches) - 1
        total = self.up[f"{last}to{i}"](branches[last])
        for j in range(last - 1, i, -1):
            total = self.up[f"{j}to{i}"](branches[j]) + enlarge(total, 2, self.training)
        return enlarge(total, 2, self.training)

    def _term_by_term(self, branches: list[Tensor]) -> list[Tensor]:
        branches = list(branches)
        outputs = []
        for i in range(len(branches)):
            order = range(len(branches))
            terms = [self._term(branches, i, j) for j in ((0, *order) if self.fuse == "published" else order)]
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            if i == 0 and self.fuse == "published":
                branches[0] = total
            outputs.append(F.relu(total))
        return outputs

    def _term(self, branches: list[Tensor], i: int, j: int) -> Tensor:
        if i == j:
            return branches[i]
        if j > i:
            return enlarge(self.up[f"{j}to{i}"](branches[j]), 2 ** (j - i), self.training)
        result: Tensor = self.down[f"{j}to{i}"](branches[j])
        return result


def _descent(in_channels: int, out_channels: int, steps: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(steps - 1):
        layers += [separable(in_channels, in_channels, 2), nn.ReLU()]
    return nn.Sequential(*layers, separable(in_channels, out_channels, 2))
