"""Local contrast: LCM, MPCM and WLDM as torch modules of a few filters each, which export.

All take levels float32 N x 1 x H x W on a scale where 1 is the brightest possible one, and give a response of the same
shape. The frame goes on beyond its border with the level of its outermost pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from irforge.train.detectors.classical.method import Method

AROUND = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""The eight neighbours as (down, right); opposite ones are four apart."""

LEAST_LEVEL = 1 / 255
"""Surroundings darker than one level of 8 bits count as one level, or a speck on black would stand out without end."""


GAIN = 128
"""Levels are taken so many times where differences are squared: FP16 has no room for such small squares."""


class Lcm(Method):
    """Local contrast measure (Chen et al., TGRS 2014): max over cells of L^2 / max_k m_k.

    L is the highest level of the cell around a pixel, m_k are the means of the eight cells next to it.

    Args:
        cells: sides of the cells in pixels, odd.
    """

    floor = 1e-4

    def __init__(self, cells: Iterable[int] = (3, 5, 7, 9)) -> None:
        super().__init__()
        self.cells = odd(cells)

    def forward(self, levels: Tensor) -> Tensor:
        return reduce(torch.maximum, [self.contrast(levels, side) for side in self.cells])

    def contrast(self, levels: Tensor, side: int) -> Tensor:
        means = cell_means(levels, side)
        brightest = reduce(torch.maximum, [window(means, side, side * y, side * x) for y, x in AROUND])
        highest = F.max_pool2d(levels, side, stride=1, padding=side // 2)
        return highest.square() / brightest.clamp_min(LEAST_LEVEL)


class Mpcm(Method):
    """Multiscale patch-based contrast measure (Wei et al., Pattern Recognition 2016): max over cells of
    min_k (m - m_k) (m - m_{k+4}).

    m is the mean of the cell around a pixel, m_k and m_{k+4} are those of opposite cells next to it. Dark targets
    respond as bright ones do.

    Args:
        cells: sides of the cells in pixels, odd.
        bright_only: differences below 0 count as 0, so that only bright targets respond.
    """

    floor = 2.0**-14

    def __init__(self, cells: Iterable[int] = (3, 5, 7, 9), bright_only: bool = False) -> None:
        super().__init__()
        self.cells = odd(cells)
        self.bright_only = bright_only

    def forward(self, levels: Tensor) -> Tensor:
        return reduce(torch.maximum, [self.contrast(GAIN * levels, side) for side in self.cells])

    def contrast(self, levels: Tensor, side: int) -> Tensor:
        means = cell_means(levels, side)
        own = window(means, side)
        differences = [own - window(means, side, side * y, side * x) for y, x in AROUND]
        if self.bright_only:
            differences = [difference.clamp_min(0) for difference in differences]
        return reduce(torch.minimum, [differences[k] * differences[k + 4] for k in range(4)])


class Wldm(Method):
    """Weighted local difference measure (Deng et al., TGRS 2016): contrast of means of growing windows x entropy.

    Contrast: max_k (M_k - M_L)^2 / (max_k M_k - min_k M_k)^2, M_k the mean of the window of side 2k+1, k = 1..L.
    Entropy of a window around a pixel of level I: -sum_v (v - I)^2 p_v log2 p_v, p_v the share of level v in it.

    Args:
        scales: L.
        reach: half the side of the entropy's window, in pixels.
    """

    floor = 2.0**-14

    def __init__(self, scales: int = 4, reach: int = 2) -> None:
        super().__init__()
        if scales < 2 or reach < 1:
            raise ValueError(f"scales is at least 2 and reach at least 1, not {scales} and {reach}")
        self.scales, self.reach = scales, reach

    def forward(self, levels: Tensor) -> Tensor:
        levels = GAIN * levels
        return self.contrast(levels) * self.entropy(levels)

    def contrast(self, levels: Tensor) -> Tensor:
        """0..1; 0 where all windows have one mean."""
        means = [F.avg_pool2d(extended(levels, k), 2 * k + 1, stride=1) for k in range(1, self.scales + 1)]
        spread = reduce(torch.maximum, means) - reduce(torch.minimum, means)
        widest = reduce(torch.maximum, [(mean - means[-1]).abs() for mean in means[:-1]])
        # Below, the spread is rounding: means of windows of one level do not always agree in their last digit.
        least = GAIN * 4e-7
        return torch.where(spread > least, widest / spread.clamp_min(least), torch.zeros_like(spread)).square()

    def entropy(self, levels: Tensor) -> Tensor:
        # -sum_v f(v) p_v log2 p_v, with the n_v equal pixels of each level summed one by one: no histogram is needed.
        reach, side = self.reach, 2 * self.reach + 1
        beyond = extended(levels, reach)
        shifts = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
        pixels = torch.cat([window(beyond, reach, y, x) for y, x in shifts], dim=1)
        total = torch.zeros_like(levels)
        for pixel in pixels.split(1, dim=1):
            share = (pixels == pixel).to(levels.dtype).mean(dim=1, keepdim=True)
            total = total - (pixel - levels).square() * torch.log2(share)
        return total / side**2


def odd(sides: Iterable[int]) -> tuple[int, ...]:
    found = tuple(sides)
    if not found or any(not isinstance(side, int) or side < 3 or side % 2 == 0 for side in found):
        raise ValueError(f"cells are odd sides from 3 on, not {found}")
    return found


def extended(levels: Tensor, margin: int) -> Tensor:
    return F.pad(levels, (margin,) * 4, mode="replicate")


def cell_means(levels: Tensor, side: int) -> Tensor:
    """The mean of the cell around each pixel, and around the `side` pixels beyond each border."""
    return F.avg_pool2d(extended(levels, side + side // 2), side, stride=1)


def window(plane: Tensor, margin: int, down: int = 0, right: int = 0) -> Tensor:
    """What lies `down` and `right` of each pixel, of a plane that goes on by `margin` pixels beyond each border."""

    def along(by: int) -> slice:
        # Counted from the end, so that an export holds numbers in place of sizes.
        return slice(margin + by, by - margin or None)

    return plane[:, :, along(down), along(right)]
