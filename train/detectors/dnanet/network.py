"""DNA-Net: U-Nets of every depth nested in one, whose nodes are CBAM residual blocks, fused from all scales at the end.

Written from Li et al., "Dense Nested Attention Network for Infrared Small Target Detection" (TIP 2023), and from what
the published weights require.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.mask_network import MaskNetwork, Outputs
from irforge.train.detectors.mshnet.network import WIDTHS, stage, upsample

BLOCKS = {"resnet-10": (1, 1, 1, 1), "resnet-18": (2, 2, 2, 2), "resnet-34": (3, 4, 6, 3)}
"""Residual blocks of a node at the four coarser scales; at the finest there is one."""

LEVELS = len(WIDTHS)


class DNANet(MaskNetwork):
    """Dense nested attention network.

    Node i, j is at scale i (H / 2^i) and in column j. In column 0 it reads the next finer node; in others all earlier
    nodes of its scale, the next coarser one of the column before, and the next finer one of its own column.

    Args:
        in_channels: 3 for the published weights, 1 for gray frames.
        backbone: `resnet-10`, `resnet-18` as published, or `resnet-34`.
    """

    stride = 16

    def __init__(self, in_channels: int = 3, backbone: str = "resnet-18") -> None:
        super().__init__()
        if backbone not in BLOCKS:
            raise ValueError(f"backbone is one of {', '.join(BLOCKS)}, not {backbone}")
        self.in_channels = in_channels
        blocks = (1, *BLOCKS[backbone])
        for column in range(LEVELS):
            for level in range(LEVELS - column):
                if column:
                    finer = WIDTHS[level - 1] if level else 0
                    read = column * WIDTHS[level] + WIDTHS[level + 1] + finer
                else:
                    read = WIDTHS[level - 1] if level else in_channels
                setattr(self, f"conv{level}_{column}", stage(read, WIDTHS[level], blocks[level]))
        finest = WIDTHS[0]
        self.conv0_4_final = stage(LEVELS * finest, finest, 1)
        for level in range(1, LEVELS):
            setattr(self, f"conv0_{level}_1x1", nn.Conv2d(WIDTHS[level], finest, 1))
        for column in range(1, LEVELS):
            setattr(self, f"final{column}", nn.Conv2d(finest, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)

    def forward(self, x: Tensor) -> Outputs:
        """Logits of the finest nodes of columns 1, 2 and 3, and of all scales fused; all N x 1 x H x W."""
        grid: list[list[Tensor]] = [[] for _ in WIDTHS]
        for level in range(LEVELS):
            entering = F.max_pool2d(grid[level - 1][0], 2) if level else x
            grid[level].append(self.get_submodule(f"conv{level}_0")(entering))
            # Each new scale allows one more node at every finer one.
            for column in range(1, level + 1):
                self._add_node(grid, level - column, column)
        last = [
            upsample(self._part(f"conv0_{level}_1x1", grid[level][-1]), 2**level, self.training)
            for level in range(LEVELS - 1, 0, -1)
        ]
        fused = self.conv0_4_final(torch.cat([*last, grid[0][-1]], dim=1))
        heads = [self._part(f"final{column}", grid[0][column]) for column in range(1, LEVELS - 1)]
        return heads, self._part(f"final{LEVELS - 1}", fused)

    def _add_node(self, grid: list[list[Tensor]], level: int, column: int) -> None:
        read = [*grid[level], upsample(grid[level + 1][column - 1], 2, self.training)]
        if level:
            read.append(halved(grid[level - 1][column]))
        grid[level].append(self._part(f"conv{level}_{column}", torch.cat(read, dim=1)))

    def _part(self, name: str, x: Tensor) -> Tensor:
        result: Tensor = self.get_submodule(name)(x)
        return result


def halved(x: Tensor) -> Tensor:
    """Bilinear samples at half the size, whose corner pixels stay corner pixels; nothing is averaged."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)
