"""From answers to figures: the same truth and the same rules for every contestant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from irforge.datasets import BoxTruth
from irforge.frames import Frame, to_gray
from irforge.metrics import BoxMatch, BoxMetrics, NocoMetrics, NocoVariant, match_boxes, wilson_interval
from irforge.metrics.alarms import alarm_count
from irforge.metrics.pixel import MATCH_DISTANCE
from irforge.runtime.comparison.answers import LEVELS, FrameAnswer, MaskCounts
from irforge.runtime.comparison.entry import Entry
from irforge.runtime.comparison.schema import CurvePoint, MaskPoint, Objects
from irforge.runtime.report.figures import Alarms, MaskAccuracy
from irforge.runtime.tally_boxes import box_rates

CURVE_POINTS = 200
"""Of a curve at most so many points are kept, evenly spaced along its detections, besides both ends."""


@dataclass(eq=False)
class Score:
    """The sums of one contestant. `numbers` brings its classes to those of the data, see `class_numbers`."""

    entry: Entry
    classes: Sequence[str]
    numbers: list[int]
    frame_rate: float
    masks: list[MaskCounts] = field(default_factory=list, init=False)
    masks_at_model: list[MaskCounts] = field(default_factory=list, init=False)
    matches: list[BoxMatch] = field(default_factory=list, init=False)
    _levels: list[list[tuple[int, int]]] = field(default_factory=list, init=False)
    _scores: list[npt.NDArray[np.float32]] = field(default_factory=list, init=False)
    _hits: list[npt.NDArray[np.bool_]] = field(default_factory=list, init=False)
    _metrics: BoxMetrics = field(init=False)
    _noco: tuple[NocoMetrics, NocoMetrics] | None = field(init=False)
    _resized: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        level = self.entry.contract.output.score_threshold
        self._metrics = BoxMetrics(self.classes, level, distance=MATCH_DISTANCE, frame_rate=self.frame_rate)
        # The published code takes the centres of boxes as they are, and masks' points as the numbers of pixels.
        published: NocoVariant = "shifted" if self.entry.contract.output.kind == "mask" else "legacy"
        self._noco = NocoMetrics(), NocoMetrics(published)

    def add(self, answer: FrameAnswer, truth: BoxTruth, frame: Frame) -> None:
        """Add a frame; `truth` has the data's class numbers."""
        found = answer.detections(self.numbers)
        self.matches.append(self._metrics.update(found, truth, (frame.shape[0], frame.shape[1])))
        hits = np.zeros(len(found), np.bool_)
        hits[[j for _, j in match_boxes(found, truth, distance=MATCH_DISTANCE).pairs]] = True
        self._scores.append(found.scores)
        self._hits.append(hits)
        # The contrast that mNoCoAP reads is defined on the scale of 8 bits.
        if frame.dtype.itemsize > 1:
            self._noco = None
        if self._noco is not None:
            gray = to_gray(frame)
            for metrics, published in zip(self._noco, (False, True), strict=True):
                metrics.update(answer.point_detections(self.numbers, published), truth, gray)
        if answer.mask is not None:
            self.masks.append(answer.mask)
            self.masks_at_model.append(answer.mask_at_model or answer.mask)
            self._resized |= answer.mask_at_model is not None
            self._levels.append(answer.levels)

    def objects(self) -> Objects:
        """The figures that every detector has.

        Raises:
            EnvironmentFault: faster-coco-eval is not installed.
        """
        result = self._metrics.result()
        free = sum(len(match.extra) for match in self.matches if not len(match.true))
        alarms = alarm_count(free, result.target_free_frames, self.frame_rate)
        unbiased, legacy = (None, None) if self._noco is None else (one.result().mean for one in self._noco)
        return Objects(
            frames=result.frames,
            targets=result.targets,
            found=result.centre.tp,
            pd=result.pd,
            pd_interval=result.pd_interval,
            centre=box_rates(result.centre),
            iou50=box_rates(result.iou50),
            ap50=result.ap50,
            nocoap=unbiased,
            nocoap_legacy=legacy,
            false_per_frame=result.centre.fp / result.frames,
            false_per_hour=result.centre.fp * self.frame_rate * 3600 / result.frames,
            alarms=Alarms(frame_rate=self.frame_rate, **vars(alarms)) if alarms else None,
        )

    def curve(self) -> list[CurvePoint]:
        """Precision, recall and false detections as the threshold falls, by the distance of centres."""
        scores = np.concatenate([np.empty(0, np.float32), *self._scores])
        hits = np.concatenate([np.empty(0, np.bool_), *self._hits])
        frames, targets = len(self.matches), sum(len(match.true) for match in self.matches)
        if not len(scores) or not targets:
            return []
        order = np.argsort(-scores, kind="stable")
        scores, right = scores[order], np.cumsum(hits[order])
        # A threshold cannot separate equal scores.
        ends = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
        if len(ends) > CURVE_POINTS:
            ends = ends[np.linspace(0, len(ends) - 1, CURVE_POINTS).round().astype(int)]
        return [
            CurvePoint(
                score=float(scores[end]),
                precision=int(right[end]) / (end + 1),
                recall=int(right[end]) / targets,
                false_per_frame=(end + 1 - int(right[end])) / frames,
            )
            for end in ends.tolist()
        ]

    def mask(self) -> MaskAccuracy | None:
        return pooled(self.masks) if self.masks else None

    def mask_at_model(self) -> MaskAccuracy | None:
        return pooled(self.masks_at_model) if self._resized else None

    def mask_curve(self) -> list[MaskPoint]:
        targets, pixels = sum(one.targets for one in self.masks), sum(one.pixels for one in self.masks)
        if not targets:
            return []
        sums = [tuple(map(sum, zip(*level, strict=True))) for level in zip(*self._levels, strict=True)]
        return [
            MaskPoint(threshold=level, pd=found / targets, fa=false / pixels)
            for level, (found, false) in zip(LEVELS, sums, strict=True)
        ]


def pooled(masks: Sequence[MaskCounts]) -> MaskAccuracy:
    """IoU, nIoU, Pd and Fa of all frames; see `irforge.metrics.PixelResult`."""
    targets, found = sum(one.targets for one in masks), sum(one.found for one in masks)
    union, false = sum(one.union for one in masks), sum(one.false_pixels for one in masks)
    ratios = [one.intersection / one.union for one in masks if one.union]
    return MaskAccuracy(
        frames=len(masks),
        targets=targets,
        found=found,
        iou=sum(one.intersection for one in masks) / union if union else None,
        niou=sum(ratios) / len(ratios) if ratios else None,
        pd=found / targets if targets else None,
        pd_interval=wilson_interval(found, targets),
        fa=false / sum(one.pixels for one in masks),
        false_pixels_per_100_frames=100 * false / len(masks),
    )


def as_target(truth: BoxTruth) -> BoxTruth:
    """The truth without its classes."""
    return BoxTruth(truth.boxes, np.zeros(len(truth), np.int64))
