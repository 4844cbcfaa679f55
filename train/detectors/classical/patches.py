"""Patches of a frame: cut out, and put together again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irforge.train.detectors.classical.method import Plane


def corners(length: int, side: int, step: int) -> list[int]:
    """Where patches begin along an axis; the last one ends at the border, also where that takes a shorter step."""
    regular = list(range(0, length - side + 1, step))
    return regular if regular[-1] == length - side else [*regular, length - side]


class Patches:
    """The patches of a frame: `gather` cuts them out, `mean` and `median` put a frame together again.

    Args:
        shape: (height, width) of the frame.
        side: of a patch, in pixels; a smaller frame is one patch of its own smaller side.
        step: from one patch to the next, in pixels; at most the side that a smaller frame leaves.
    """

    def __init__(self, shape: tuple[int, int], side: int, step: int) -> None:
        if side < 2 or not 1 <= step <= side:
            raise ValueError(f"patches of side {side} at steps of {step} do not cover a frame")
        self.shape, self.side = shape, min(side, *shape)
        self.step = min(step, self.side)
        self.rows, self.columns = (corners(length, self.side, self.step) for length in shape)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def gather(self, plane: Plane) -> Plane:
        """float64 [side, side, n]."""
        windows = np.lib.stride_tricks.sliding_window_view(plane, (self.side, self.side))
        chosen = windows[np.ix_(self.rows, self.columns)].reshape(len(self), self.side, self.side)
        return np.ascontiguousarray(chosen.transpose(1, 2, 0))

    def mean(self, patches: Plane) -> Plane:
        """H x W: each pixel the mean of the patches [side, side, n] that cover it."""
        total, count = np.zeros(self.shape), np.zeros(self.shape)
        for _, area, patch in self._placed(patches):
            total[area] += patch
            count[area] += 1
        return total / count

    def median(self, patches: Plane) -> Plane:
        """H x W: each pixel the median of the patches [side, side, n] that cover it."""
        # Patches so many steps apart do not overlap, and share a layer.
        apart = -(-self.side // self.step) + 1
        layers = np.full((apart, apart, *self.shape), np.nan)
        for (i, j), area, patch in self._placed(patches):
            layers[i % apart, j % apart][area] = patch
        # What no patch covers sorts to the end.
        ordered = np.sort(layers.reshape(-1, *self.shape), axis=0)
        count = np.count_nonzero(~np.isnan(ordered), axis=0)[None]
        low, high = (np.take_along_axis(ordered, middle, axis=0)[0] for middle in ((count - 1) // 2, count // 2))
        median: Plane = (low + high) / 2
        return median

    def _placed(self, patches: Plane) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], Plane]]:
        cells = ((i, j) for i in range(len(self.rows)) for j in range(len(self.columns)))
        for index, (i, j) in enumerate(cells):
            row, column = self.rows[i], self.columns[j]
            area = slice(row, row + self.side), slice(column, column + self.side)
            yield (i, j), area, patches[:, :, index]
