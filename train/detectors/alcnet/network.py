"""ALCNet: a small residual network that measures the local contrast of its own maps and joins three sizes of them.

Written from Dai et al., "Attentional Local Contrast Networks for Infrared Small Target Detection" (TGRS 2021), and from
what the published weights require.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from irforge.errors import ExportError, UsageError
from irforge.train.detectors.acm.blocks import WIDTHS, Head, gate, resized, stage
from irforge.train.detectors.mask_network import MaskNetwork, Outputs

SHIFTS = (13, 17)
_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, 1))


def local_contrast(x: Tensor, shifts: tuple[int, ...] = SHIFTS) -> Tensor:
    """The patch contrast of each pixel and channel at the best of some distances.

    At one distance: the least of four products, each of the differences to two pixels on opposite sides. What lies
    beyond an edge is taken from the opposite one.

    Args:
        x: N x C x H x W; sides longer than the longest distance.
    """
    best: Tensor | None = None
    for shift in shifts:
        least: Tensor | None = None
        for rows, columns in _DIRECTIONS:
            there = torch.roll(x, (rows * shift, columns * shift), (2, 3)) - x
            back = torch.roll(x, (-rows * shift, -columns * shift), (2, 3)) - x
            product = there * back
            least = product if least is None else torch.minimum(least, product)
        assert least is not None
        best = least if best is None else torch.maximum(best, least)
    assert best is not None
    return best


class BottomUp(nn.Module):
    """A deep map multiplied by the gates of each pixel of the shallow one, and added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.bottomup_att = gate(channels, channels, pooled=False)

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        shallow = self.bn2(shallow)
        return cast(Tensor, self.bottomup_att(shallow) * self.bn1(deep) + shallow)


class ALCNet(MaskNetwork):
    """Attentional local contrast network; the published form, with two distances and bottom-up gates.

    Args:
        in_channels: 3 for the published weights, 1 for gray frames.
        blocks: residual blocks of a stage.
        align_corners: how maps are enlarged; True as in the authors' MXNet.

    Sides of its input are multiples of `stride`, and at least `smallest`: a shift must not go round the deepest map.
    """

    stride = 4
    smallest: ClassVar[int] = stride * (max(SHIFTS) + 1)

    def __init__(self, in_channels: int = 3, blocks: int = 4, align_corners: bool = True) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks is at least 1, not {blocks}")
        self.in_channels = in_channels
        self.align_corners = align_corners
        _, w1, w2, w3 = WIDTHS
        self.stem = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, w1, 3, padding=1, bias=False),
            nn.BatchNorm2d(w1),
            nn.ReLU(),
        )
        self.layer1 = stage(w1, w1, blocks)
        self.layer2 = stage(w1, w2, blocks, stride=2)
        self.layer3 = stage(w2, w3, blocks, stride=2)
        self.dec_c2 = nn.Sequential(nn.Conv2d(w2, w1, 1, bias=False), nn.BatchNorm2d(w1), nn.ReLU())
        self.dec_c3 = nn.Sequential(nn.Conv2d(w3, w1, 1, bias=False), nn.BatchNorm2d(w1), nn.ReLU())
        self.bottomuplocal_fpn_2 = BottomUp(w1)
        self.bottomuplocal_fpn_1 = BottomUp(w1)
        self.head = Head(w1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.25)

    def forward(self, x: Tensor) -> Outputs:
        """Raises:
        UsageError: a side is below `smallest`. ExportError: the same in a graph, or a free side can be.
        """
        self._require_size(x.shape[2], x.shape[3])
        c1 = self.layer1(self.stem(x))
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        deep = resized(self.dec_c3(local_contrast(c3)), 2, self.align_corners)
        deep = self.bottomuplocal_fpn_2(deep, self.dec_c2(local_contrast(c2)))
        deep = self.bottomuplocal_fpn_1(resized(deep, 2, self.align_corners), local_contrast(c1))
        return [], self.head(deep)

    def _require_size(self, height: int, width: int) -> None:
        least = self.smallest
        if torch.compiler.is_exporting():
            from torch.fx.experimental.symbolic_shapes import statically_known_true

            if not (statically_known_true(height >= least) and statically_known_true(width >= least)):
                raise ExportError(
                    f"a graph of ALCNet takes frames of at least {least}x{least}",
                    f"Give a size, or a range of sizes, from there on, in multiples of {self.stride}",
                )
        elif min(height, width) < least:
            raise UsageError(
                f"size {height}x{width} does not suit ALCNet",
                f"Both sides: multiples of {self.stride}, at least {least}",
            )
