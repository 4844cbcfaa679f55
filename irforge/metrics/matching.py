"""One-to-one matching of found with true boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.datasets.base import BoxTruth
from irforge.detections import Detections

Table = npt.NDArray[np.float64]
Owners = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BoxMatch:
    """Which true boxes of one frame were found.

    pairs: (true, found) row numbers. Areas are of boxes, in square frame pixels; `matched_areas` and `lost_areas` of
    true ones, `extra_areas` of those found that belong to no true box: the false alarms.
    """

    pairs: tuple[tuple[int, int], ...]
    true: BoxTruth
    found: Detections

    @property
    def lost(self) -> list[int]:
        taken = {i for i, _ in self.pairs}
        return [i for i in range(len(self.true)) if i not in taken]

    @property
    def extra(self) -> list[int]:
        used = {j for _, j in self.pairs}
        return [j for j in range(len(self.found)) if j not in used]

    @property
    def matched_areas(self) -> list[float]:
        return _at(box_areas(self.true.boxes), [i for i, _ in self.pairs])

    @property
    def lost_areas(self) -> list[float]:
        return _at(box_areas(self.true.boxes), self.lost)

    @property
    def extra_areas(self) -> list[float]:
        return _at(box_areas(self.found.boxes), self.extra)


def match_boxes(
    found: Detections, truth: BoxTruth, *, iou: float | None = None, distance: float | None = None
) -> BoxMatch:
    """Match in order of descending score, each detection with the best unclaimed true box of its class.

    Args:
        found: the detections of one frame that count, best score first.
        truth: its true boxes.
        iou: a pair needs at least this intersection over union; the best is the largest. COCO's rule.
        distance: or, instead, box centres less than this many pixels apart (strict); the best is the nearest.

    Raises:
        ValueError: not exactly one of `iou` and `distance` is given.
    """
    same = found.classes[:, None] == truth.classes[None]
    if iou is not None and distance is None:
        overlap = box_iou(found.boxes, truth.boxes)
        owners = claims(overlap, same & (overlap >= iou))
    elif distance is not None and iou is None:
        apart = centre_distances(found.boxes, truth.boxes)
        owners = claims(-apart, same & (apart < distance))
    else:
        raise ValueError("match boxes either by iou or by distance")
    return BoxMatch(pairs_of(owners), truth, found)


def claims(gain: Table, allowed: npt.NDArray[np.bool_]) -> Owners:
    """The column that each row of `gain` [n, m] claims, or -1: the largest gain among allowed, unclaimed columns.

    Rows choose from the first on, so that the claims of the first k rows do not depend on the others. Equal gains go to
    the first column.
    """
    owners = np.full(len(gain), -1, np.int64)
    rows, columns = np.nonzero(allowed)
    order = np.lexsort((-gain[rows, columns], rows))
    taken: set[int] = set()
    last = -1
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if i != last and j not in taken:
            taken.add(j)
            owners[i] = j
            last = i
    return owners


def pairs_of(owners: Owners) -> tuple[tuple[int, int], ...]:
    """(true, found), by true box, of what `claims` returned."""
    return tuple(sorted((int(owners[j]), int(j)) for j in np.flatnonzero(owners >= 0)))


def box_iou(found: npt.NDArray[Any], true: npt.NDArray[Any]) -> Table:
    """Intersection over union of boxes [n, 4] with boxes [m, 4], xyxy: float64 [n, m]. An empty box has IoU 0."""
    a, b = np.asarray(found, np.float64)[:, None], np.asarray(true, np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.where((sides > 0).all(-1), sides[..., 0] * sides[..., 1], 0.0)
    union = box_areas(found)[:, None] + box_areas(true)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def centre_distances(found: npt.NDArray[Any], true: npt.NDArray[Any]) -> Table:
    """Distances of the centres of boxes [n, 4] and [m, 4], xyxy, in pixels: float64 [n, m]."""
    a, b = box_centres(found), box_centres(true)
    return np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])


def box_centres(boxes: npt.NDArray[Any]) -> Table:
    """float64 [n, 2], (x, y) as edge coordinates."""
    corners: Table = np.asarray(boxes, np.float64)
    return (corners[:, :2] + corners[:, 2:]) / 2


def box_areas(boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """float64 [n], square pixels; 0 where a side is not positive."""
    corners: Table = np.asarray(boxes, np.float64)
    return np.maximum(corners[:, 2] - corners[:, 0], 0) * np.maximum(corners[:, 3] - corners[:, 1], 0)


def _at(areas: npt.NDArray[np.float64], rows: list[int]) -> list[float]:
    return [float(areas[i]) for i in rows]
