"""Metrics of detectors that give boxes: COCO AP, precision and recall, Pd, centre error, false alarms per hour."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.datasets.base import BoxTruth
from irforge.detections import Detections
from irforge.errors import ArtifactError
from irforge.metrics.alarms import FRAME_RATE, AlarmRate, alarm_rate, threshold_below
from irforge.metrics.coco import SIZE_BUCKETS, SizeBucket, coco_ap
from irforge.metrics.matching import BoxMatch, box_areas, box_iou, centre_distances, claims, match_boxes, pairs_of
from irforge.metrics.pixel import MATCH_DISTANCE, wilson_interval

__all__ = [
    "SIZE_BUCKETS",
    "BoxMatch",
    "BoxMetrics",
    "BoxResult",
    "Rates",
    "SizeBucket",
    "best_threshold",
    "match_boxes",
]

_IOU50, _IOU30, _CENTRE = range(3)
_ALARM_PD = 0.9


@dataclass(frozen=True)
class Rates:
    """Right, wrong and missed at one score threshold; a ratio without a denominator is None."""

    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float | None:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self) | {"precision": self.precision, "recall": self.recall, "f1": self.f1}


@dataclass(frozen=True)
class BoxResult:
    """The figures of a set of frames; one without a denominator is None.

    ap (IoU 0.50 to 0.95), ap50, ap75, ap_by_class, ap_by_size: COCO's, over all scores; see `coco_ap` for the rule.
    iou50, iou30, centre: at score > `threshold`, where a detection is right by IoU >= 0.5, by IoU >= 0.3, or by a
    distance of box centres below `distance` pixels. By the last also: pd = found / true targets with its 95 % Wilson
    interval, false boxes per frame and per 1e6 pixels, and the distance of the centres of the pairs in pixels.
    alarms: false alarms per hour at a fixed Pd, by the same rule.
    """

    frames: int
    target_free_frames: int
    targets: int
    targets_by_size: dict[str, int]
    pixels: int
    threshold: float
    distance: float
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_by_class: dict[str, float | None]
    ap_by_size: dict[str, float | None]
    iou50: Rates
    iou30: Rates
    centre: Rates
    pd: float | None
    pd_interval: tuple[float, float] | None
    false_boxes_per_frame: float | None
    false_boxes_per_megapixel: float | None
    centre_error_median: float | None
    centre_error_p95: float | None
    alarms: AlarmRate

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        rates = {name: getattr(self, name).as_dict() for name in ("iou50", "iou30", "centre")}
        plain: dict[str, Any] = _listed(dataclasses.asdict(self) | rates)
        return plain


@dataclass(frozen=True, eq=False)
class _Frame:
    """owners: int64 [3, n], the true box that each detection claims by each rule, or -1. apart: float64 [n], px."""

    found: Detections
    truth: BoxTruth
    pixels: int
    owners: npt.NDArray[np.int64]
    apart: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Pooled:
    """The detections of all frames: scores, apart, on_target_free [n]; hits [3, n]."""

    scores: npt.NDArray[np.float32]
    hits: npt.NDArray[np.bool_]
    apart: npt.NDArray[np.float64]
    on_target_free: npt.NDArray[np.bool_]
    targets: int
    target_free_frames: int


@dataclass(eq=False)
class BoxMetrics:
    """Accumulates over frames; `result` may be asked at any time.

    classes: their names, which both detections and truth number from 0.
    threshold: score > threshold (strict) is a detection; average precision uses all scores.
    distance: a detection finds a target when their box centres are less than this many pixels apart (strict).
    alarm_pd, frame_rate: false alarms per hour are given at this Pd and this many frames per second.
    """

    classes: Sequence[str]
    threshold: float
    _: dataclasses.KW_ONLY
    distance: float = MATCH_DISTANCE
    alarm_pd: float = _ALARM_PD
    frame_rate: float = FRAME_RATE
    _frames: list[_Frame] = field(default_factory=list, init=False, repr=False)

    def update(self, found: Detections, truth: BoxTruth, size: tuple[int, int]) -> BoxMatch:
        """Add one frame.

        Args:
            found: all its detections, also those below the threshold.
            truth: its true boxes.
            size: its height and width.

        Returns:
            How its targets and the detections above the threshold match, by the distance of their centres.

        Raises:
            ValueError: a class has no name here.
            ArtifactError: a score or a box is not a finite number.
        """
        for classes in (found.classes, truth.classes):
            if len(classes) and not 0 <= classes.min() <= classes.max() < len(self.classes):
                raise ValueError(f"classes {classes.min()}..{classes.max()} where {len(self.classes)} have names")
        if not (np.isfinite(found.scores).all() and np.isfinite(found.boxes).all()):
            raise ArtifactError(
                "a found box or its score is not a finite number: the graph overflows in this precision",
                "Run the FP32 file, or convert again with more FP32 islands ('irforge half')",
            )
        if found.mask is not None:
            found = dataclasses.replace(found, mask=None)
        owners = np.full((3, len(found)), -1, np.int64)
        apart = np.zeros(len(found))
        if len(found) and len(truth):
            same = found.classes[:, None] == truth.classes[None]
            overlap = box_iou(found.boxes, truth.boxes)
            distances = centre_distances(found.boxes, truth.boxes)
            owners[_IOU50] = claims(overlap, same & (overlap >= 0.5))
            owners[_IOU30] = claims(overlap, same & (overlap >= 0.3))
            owners[_CENTRE] = claims(-distances, same & (distances < self.distance))
            apart = distances[np.arange(len(found)), owners[_CENTRE]]
        self._frames.append(_Frame(found, truth, size[0] * size[1], owners, apart))
        # Claims go by descending score: those above the threshold do not depend on those below.
        above = int(np.count_nonzero(found.scores > np.float32(self.threshold)))
        return BoxMatch(pairs_of(owners[_CENTRE, :above]), truth, found.take(np.arange(above)))

    def merge(self, other: BoxMetrics) -> None:
        """Add the frames of another accumulator with the same settings."""
        if self._settings() != other._settings():
            raise ValueError("metrics with different settings cannot be merged")
        self._frames += other._frames

    def at(self, threshold: float) -> BoxMetrics:
        """The same frames, judged at another score threshold."""
        other = dataclasses.replace(self, threshold=threshold)
        other._frames = list(self._frames)
        return other

    def result(self) -> BoxResult:
        """The figures so far.

        Raises:
            EnvironmentFault: faster-coco-eval is not installed.
        """
        frames, pooled = self._frames, self._pooled()
        above = pooled.scores > np.float32(self.threshold)
        right = np.count_nonzero(pooled.hits & above, axis=1).tolist()
        rates = [Rates(tp, int(np.count_nonzero(above)) - tp, pooled.targets - tp) for tp in right]
        centre = rates[_CENTRE]
        errors = pooled.apart[pooled.hits[_CENTRE] & above]
        pixels = sum(frame.pixels for frame in frames)
        average = coco_ap([frame.found for frame in frames], [frame.truth for frame in frames], self.classes)
        return BoxResult(
            frames=len(frames),
            target_free_frames=pooled.target_free_frames,
            targets=pooled.targets,
            targets_by_size=self._targets_by_size(),
            pixels=pixels,
            threshold=self.threshold,
            distance=self.distance,
            ap=average.ap,
            ap50=average.ap50,
            ap75=average.ap75,
            ap_by_class=average.by_class,
            ap_by_size=average.by_size,
            iou50=rates[_IOU50],
            iou30=rates[_IOU30],
            centre=centre,
            pd=centre.recall,
            pd_interval=wilson_interval(centre.tp, pooled.targets),
            false_boxes_per_frame=_ratio(centre.fp, len(frames)),
            false_boxes_per_megapixel=_ratio(centre.fp * 1e6, pixels),
            centre_error_median=float(np.median(errors)) if len(errors) else None,
            centre_error_p95=float(np.percentile(errors, 95)) if len(errors) else None,
            alarms=self.alarms(),
        )

    def alarms(self, pd: float | None = None, frame_rate: float | None = None) -> AlarmRate:
        """False alarms per hour, also at another Pd or frame rate than the accumulator's."""
        pooled = self._pooled()
        return alarm_rate(
            pooled.scores,
            pooled.hits[_CENTRE],
            pooled.on_target_free,
            targets=pooled.targets,
            frames=len(self._frames),
            target_free_frames=pooled.target_free_frames,
            pd=self.alarm_pd if pd is None else pd,
            frame_rate=self.frame_rate if frame_rate is None else frame_rate,
        )

    def _pooled(self) -> _Pooled:
        frames = self._frames
        return _Pooled(
            scores=np.concatenate([np.empty(0, np.float32), *(frame.found.scores for frame in frames)]),
            hits=np.concatenate([np.empty((3, 0), np.bool_), *(frame.owners >= 0 for frame in frames)], axis=1),
            apart=np.concatenate([np.empty(0), *(frame.apart for frame in frames)]),
            on_target_free=np.repeat(
                [not len(frame.truth) for frame in frames], [len(frame.found) for frame in frames]
            ),
            targets=sum(len(frame.truth) for frame in frames),
            target_free_frames=sum(not len(frame.truth) for frame in frames),
        )

    def _targets_by_size(self) -> dict[str, int]:
        areas = box_areas(np.concatenate([np.empty((0, 4)), *(frame.truth.boxes for frame in self._frames)]))
        return {b.name: int(np.count_nonzero((areas > b.above) & (areas <= b.up_to))) for b in SIZE_BUCKETS}

    def _settings(self) -> tuple[object, ...]:
        return tuple(self.classes), self.threshold, self.distance, self.alarm_pd, self.frame_rate


def best_threshold(metrics: BoxMetrics) -> float:
    """The score threshold with the best F1 at IoU 0.5 over all frames; the highest of those that are equally good.

    It lies midway between the lowest score that counts and the next lower one. Without any detection it is 0.5.
    """
    pooled = metrics._pooled()
    if not len(pooled.scores):
        return 0.5
    order = np.argsort(-pooled.scores, kind="stable")
    scores, right = pooled.scores[order], np.cumsum(pooled.hits[_IOU50][order])
    # A threshold cannot separate equal scores.
    ends = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
    f1 = 2 * right[ends] / (ends + 1 + pooled.targets)
    return threshold_below(scores, scores[ends[int(np.argmax(f1))]])


def _ratio(count: float, total: float) -> float | None:
    return count / total if total else None


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
