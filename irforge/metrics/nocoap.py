"""Average precision of points: mNoCoAP (Dai et al., OSCAR, TGRS 2023) and its sibling by centerness, LocAP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from irforge.components import components
from irforge.datasets.base import BoxTruth
from irforge.detections import Detections
from irforge.metrics.matching import box_centres
from irforge.noco import noco_map, noco_peak

NocoVariant = Literal["unbiased", "legacy", "shifted", "peak"]
PointRule = Literal["middle", "first"]

NOCO_THRESHOLDS = tuple(float(t) for t in np.linspace(0.1, 0.9, 9))
LOC_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)

Table = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PointResult:
    """Average precisions, 0..1, of a set of frames; None without targets.

    mean: over the thresholds. at: the average precision at each of `thresholds`.
    """

    mean: float | None
    thresholds: tuple[float, ...]
    at: tuple[float | None, ...]
    frames: int
    targets: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


@dataclass(eq=False)
class NocoMetrics:
    """mNoCoAP: a point is right where the NoCo map under it exceeds the threshold, in a true box not yet claimed.

    Points claim by descending score, each the first true box that contains it (borders count); a second point on a
    claimed box is wrong. Average precision is the area under the monotone envelope over all frames; mNoCoAP its mean
    over NoCo > 0.1 .. 0.9. Classes play no part, no score threshold either. Variants:

    unbiased: the map is read between pixel centres, bilinearly, so that mirroring a frame changes nothing. The centre
        of a box of even width lies on the border of two pixels and reads their mean.
    legacy: the published code, which rounds edge coordinates (half to even) to pixel indices: half a pixel too far
        right and down. Only this one compares with published figures of box detectors.
    shifted: `legacy` with all points moved by half a pixel, up and left. It repeats what the published code gives for
        points that are pixels, such as those of `points_from_map` by the rule `first`.
    peak: `unbiased` for detectors that report the NoCo peak inside their box (`noco_peak`) instead of its centre.
    """

    variant: NocoVariant = "unbiased"
    _pool: _Pool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.variant not in get_args(NocoVariant):
            raise ValueError(f"there is no variant '{self.variant}': {', '.join(get_args(NocoVariant))}")
        self._pool = _Pool(NOCO_THRESHOLDS)

    def update(self, found: Detections, truth: BoxTruth, image: npt.NDArray[Any]) -> None:
        """Add one frame.

        Args:
            found: all its detections; their points are `centres`, or else the centres of their boxes.
            truth: its true boxes.
            image: H x W, its gray levels on the scale of 8 bits.
        """
        hits = np.zeros((len(NOCO_THRESHOLDS), len(found)), np.bool_)
        if len(found) and len(truth):
            points = self._points(found, image)
            noco = noco_map(image, truth.boxes)
            values = bilinear(noco, points) if self.variant in ("unbiased", "peak") else _rounded(noco, points)
            boxes = truth.boxes.astype(np.float64)
            inside = np.all((points[:, None] >= boxes[None, :, :2]) & (points[:, None] <= boxes[None, :, 2:]), axis=-1)
            first, within = inside.argmax(axis=1), np.any(inside, axis=1)
            for row, threshold in zip(hits, NOCO_THRESHOLDS, strict=True):
                row[:] = _first_claims(first, within & (values > threshold))
        self._pool.add(found.scores, hits, len(truth))

    def merge(self, other: NocoMetrics) -> None:
        """Add the frames of another accumulator of the same variant."""
        if self.variant != other.variant:
            raise ValueError("metrics with different settings cannot be merged")
        self._pool.merge(other._pool)

    def result(self) -> PointResult:
        return self._pool.result()

    def _points(self, found: Detections, image: npt.NDArray[Any]) -> Table:
        points = _points(found)
        if self.variant == "shifted":
            return points - 0.5
        if self.variant == "peak":
            peaks = (noco_peak(image, box) for box in found.boxes)
            return np.array([point if peak is None else peak for peak, point in zip(peaks, points, strict=True)])
        return points


@dataclass(eq=False)
class LocMetrics:
    """LocAP: a point is right where its centerness in a true box of its class, not yet claimed, reaches the threshold.

    Centerness (Tian et al., FCOS, ICCV 2019) is 1 in the middle of a box and 0 outside. Points claim by descending
    score, each the box of its highest centerness, with no second choice. Average precision as in `NocoMetrics`, its
    mean over the classes that have targets and over the thresholds 0.1, 0.3, 0.5, 0.7, 0.9.
    """

    classes: Sequence[str] = ("target",)
    _pools: list[_Pool] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pools = [_Pool(LOC_THRESHOLDS) for _ in self.classes]

    def update(self, found: Detections, truth: BoxTruth) -> None:
        """Add one frame: all its detections, whose points are `centres` or else box centres, and its true boxes."""
        points = _points(found)
        for number, pool in enumerate(self._pools):
            own, boxes = found.classes == number, truth.boxes[truth.classes == number]
            hits = np.zeros((len(LOC_THRESHOLDS), int(np.count_nonzero(own))), np.bool_)
            if hits.size and len(boxes):
                values = centerness(points[own], boxes)
                for row, threshold in zip(hits, LOC_THRESHOLDS, strict=True):
                    row[:] = _first_claims(values.argmax(1), values.max(1) >= threshold)
            pool.add(found.scores[own], hits, len(boxes))

    def merge(self, other: LocMetrics) -> None:
        """Add the frames of another accumulator with the same classes."""
        if tuple(self.classes) != tuple(other.classes):
            raise ValueError("metrics with different settings cannot be merged")
        for mine, more in zip(self._pools, other._pools, strict=True):
            mine.merge(more)

    def result(self) -> PointResult:
        parts = [pool.result() for pool in self._pools]
        counted = [part for part in parts if part.targets]
        at = [_mean([part.at[k] for part in counted]) for k in range(len(LOC_THRESHOLDS))]
        targets = sum(part.targets for part in parts)
        return PointResult(_mean(at), LOC_THRESHOLDS, tuple(at), parts[0].frames if parts else 0, targets)


def points_from_map(
    scores: npt.NDArray[np.floating[Any]], threshold: float = 0.5, rule: PointRule = "middle"
) -> Detections:
    """A score map's targets as points: one for each 8-connected component above `threshold` (strict).

    For segmentation networks and classical filters. Bring the maps of filters to 0..1 frame by frame first: scores are
    compared between frames. In float32 a confident network is exactly 1 on several pixels, and the response of a filter
    can be as wide as its cell, so it matters which of equal pixels is taken:

    middle: the mean of the component's highest pixels.
    first: the published rule: the highest pixel in the component's bounding box, its own or not, and of equal ones the
        first in raster order, which is up and left of the middle. `NocoMetrics("shifted")` judges it as published.

    Args:
        scores: H x W.

    Returns:
        Detections with the boxes of the components, whose `centres` are the points.
    """
    plane = np.asarray(scores, np.float32)
    parts = components(plane > np.float32(threshold), 8)
    boxes, peaks = parts.boxes(), parts.peaks(plane)
    if rule == "middle":
        highest = plane[parts.rows, parts.columns] == peaks[parts.owners]
        owners = parts.owners[highest]
        places = np.stack([parts.columns[highest], parts.rows[highest]])
        sums = np.stack([np.bincount(owners, axis, len(parts)) for axis in places], axis=1)
        pixels = sums / np.bincount(owners, minlength=len(parts))[:, None]
    else:
        pixels = np.empty((len(parts), 2))
        for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            row, column = divmod(int(plane[y0:y1, x0:x1].argmax()), x1 - x0)
            pixels[i] = x0 + column, y0 + row
            peaks[i] = plane[y0 + row, x0 + column]
    return Detections(
        boxes.astype(np.float32),
        peaks,
        np.zeros(len(parts), np.int64),
        (pixels + 0.5).astype(np.float32),
        parts.areas.astype(np.float32),
    )


def centerness(points: npt.NDArray[Any], boxes: npt.NDArray[Any]) -> Table:
    """float64 [n, m]: of points [n, 2] in boxes [m, 4]; 0 unless strictly inside."""
    near = np.asarray(points, np.float64)[:, None] - np.asarray(boxes, np.float64)[None, :, :2]
    far = np.asarray(boxes, np.float64)[None, :, 2:] - np.asarray(points, np.float64)[:, None]
    inside: Flags = np.all((near > 0) & (far > 0), axis=-1)
    shares = np.minimum(near, far) / np.where(inside[..., None], np.maximum(near, far), 1.0)
    balance: Table = np.sqrt(np.where(inside, shares.prod(-1), 0.0))
    return balance


def average_precision(scores: npt.NDArray[Any], hits: Flags, targets: int) -> float | None:
    """The area under the monotone envelope of precision over recall (PASCAL VOC 2010); None without targets.

    scores, hits: [n], in the order that decides between equal scores.
    """
    if not targets:
        return None
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    precision = right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits[order]].sum()) / targets


def bilinear(plane: npt.NDArray[Any], points: npt.NDArray[Any]) -> Table:
    """float64 [n]: a plane [H, W] at points [n, 2] in edge coordinates; outside pixel centres the border's value."""
    height, width = plane.shape
    x, y = np.clip(points[:, 0] - 0.5, 0, width - 1), np.clip(points[:, 1] - 0.5, 0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    along_x, along_y = x - left, y - top
    upper = plane[top, left] * (1 - along_x) + plane[top, right] * along_x
    lower = plane[bottom, left] * (1 - along_x) + plane[bottom, right] * along_x
    value: Table = upper * (1 - along_y) + lower * along_y
    return value


@dataclass(eq=False)
class _Pool:
    """Scores and hits [thresholds, n] of all frames."""

    thresholds: tuple[float, ...]
    scores: list[npt.NDArray[np.float32]] = field(default_factory=list)
    hits: list[Flags] = field(default_factory=list)
    targets: int = 0

    def add(self, scores: npt.NDArray[np.float32], hits: Flags, targets: int) -> None:
        self.scores.append(scores)
        self.hits.append(hits)
        self.targets += targets

    def merge(self, other: _Pool) -> None:
        self.scores += other.scores
        self.hits += other.hits
        self.targets += other.targets

    def result(self) -> PointResult:
        scores = np.concatenate([np.empty(0, np.float32), *self.scores])
        hits = np.concatenate([np.empty((len(self.thresholds), 0), np.bool_), *self.hits], axis=1)
        at = tuple(average_precision(scores, row, self.targets) for row in hits)
        return PointResult(_mean(at), self.thresholds, at, len(self.scores), self.targets)


def _points(found: Detections) -> Table:
    return box_centres(found.boxes) if found.centres is None else found.centres.astype(np.float64)


def _rounded(noco: Table, points: Table) -> Table:
    columns, rows = np.rint(points).astype(np.intp).T
    values: Table = noco[np.clip(rows, 0, noco.shape[0] - 1), np.clip(columns, 0, noco.shape[1] - 1)]
    return values


def _first_claims(targets: npt.NDArray[np.intp], allowed: Flags) -> Flags:
    """Which rows are the first allowed ones of their target."""
    candidates = np.flatnonzero(allowed)
    _, first = np.unique(targets[candidates], return_index=True)
    right = np.zeros(len(targets), np.bool_)
    right[candidates[first]] = True
    return right


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
