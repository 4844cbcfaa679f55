"""Connected components of sparse masks: what targets are made of, in detections as in metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Components:
    """The components of a mask, numbered from 0 by the raster order of their first pixels.

    rows, columns, owners: int64 [p], the mask's pixels in raster order and the number of the component each belongs to.
    areas: int64 [n], pixels. centres: float64 [n, 2], unweighted mean (x, y) of the pixel indices; the sums are exact,
    so that distances between centres do not depend on a library's order of summation.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    areas: npt.NDArray[np.int64]
    centres: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.areas)

    def boxes(self) -> npt.NDArray[np.int64]:
        """int64 [n, 4], xyxy, half-open."""
        boxes = np.empty((len(self), 4), np.int64)
        boxes[:, 0] = np.iinfo(np.int64).max
        boxes[:, 2] = 0
        np.minimum.at(boxes[:, 0], self.owners, self.columns)
        np.maximum.at(boxes[:, 2], self.owners, self.columns + 1)
        # Raster order: a component's first pixel is in its top row, its last one in its bottom row.
        boxes[self.owners[::-1], 1] = self.rows[::-1]
        boxes[self.owners, 3] = self.rows + 1
        return boxes

    def peaks(self, plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [n]: the highest value of `plane`, H x W, in each component."""
        peaks = np.full(len(self), -np.inf, np.float32)
        np.maximum.at(peaks, self.owners, plane[self.rows, self.columns])
        return peaks


def components(mask: npt.NDArray[Any], connectivity: int = 8) -> Components:
    """The 4- or 8-connected components of a bool mask, H x W."""
    mask = np.asarray(mask, np.bool_)
    busy = np.logical_or.reduce(mask, axis=1)
    # Targets fill few rows. The others are left out, but for one empty row below each group that keeps groups apart.
    kept = busy.copy()
    kept[1:] |= busy[:-1]
    part = mask[kept]
    pixels = np.flatnonzero(part)
    if not len(pixels):
        nothing = np.empty(0, np.int64)
        return Components(nothing, nothing, nothing, nothing, np.empty((0, 2)))
    _, labels = cv2.connectedComponents(part.view(np.uint8), connectivity=connectivity)
    owners = _by_first_pixel(labels.reshape(-1)[pixels])
    part_rows, columns = np.divmod(pixels, mask.shape[1])
    rows = np.flatnonzero(kept)[part_rows]
    areas = np.bincount(owners)
    sums = np.stack([np.bincount(owners, columns), np.bincount(owners, rows)], axis=1)
    return Components(rows, columns, owners, areas, sums / areas[:, None])


def _by_first_pixel(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    # OpenCV numbers components by blocks of pixels and from 1, in an order that depends on its algorithm.
    first = np.full(int(labels.max()) + 1, len(labels), np.int64)
    first[labels[::-1]] = np.arange(len(labels) - 1, -1, -1)
    rank = np.empty_like(first)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[labels]
