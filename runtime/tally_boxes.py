"""Boxes against boxes: detections paired one to one, F1 and AP, and targets by the distance of centres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract
from irforge.datasets import BoxTruth
from irforge.detections import Detections, decode
from irforge.frames import Geometry
from irforge.metrics import SIZE_BUCKETS, BoxMatch, BoxMetrics, Rates
from irforge.metrics.alarms import FRAME_RATE, alarm_count
from irforge.metrics.matching import box_areas, box_centres, centre_distances
from irforge.metrics.pixel import MATCH_DISTANCE
from irforge.runtime.limits import Limits, checks
from irforge.runtime.pairing import FLOOR, crossings, pair_detections
from irforge.runtime.report.figures import Alarms, BoxAccuracy, BoxDifference, BoxParity, BoxRates, SizeAP
from irforge.runtime.tally import Changes, FrameRead, Held, Pictures, Plane, Target, change, held, require_finite
from irforge.session import Array

HELD: Held[BoxAccuracy] = {
    "F1 loss": (lambda accuracy: accuracy.iou50.f1, -100),
    "small-target AP loss": (lambda accuracy: accuracy.ap_by_size[0].ap, -100),
    "more centre error at p95": (lambda accuracy: accuracy.centre_error_p95, 1),
}


@dataclass(frozen=True, eq=False)
class Answer:
    """All detections of one frame in frame pixels, whatever their score.

    cut: what scored lower found no slot in the graph's output; 0 where slots stayed empty.
    not_finite: detections left out because their box or score is not a finite number.
    """

    detections: Detections
    cut: float
    not_finite: int


@dataclass(frozen=True, eq=False)
class SeenBoxes:
    """One frame as the reference saw it; `picture` is the raw frame in gray."""

    id: str
    picture: Plane
    truth: BoxTruth | None
    expected: Answer
    match: BoxMatch | None


class BoxJudge:
    """Scores boxes in frame pixels, against the true boxes as they are annotated."""

    def __init__(self, contract: Contract, reference: str) -> None:
        self._contract = contract
        self._reference = reference
        self._score = Score(contract)

    def read(self, outputs: Mapping[str, Array], geometry: Geometry, name: str) -> Answer:
        outputs, faults = _finite(outputs)
        found = decode(outputs, self._contract, geometry, threshold=0.0)
        return Answer(found, float(np.min(outputs["scores"], initial=1.0)), faults)

    def see(self, frame: FrameRead, expected: Answer) -> SeenBoxes:
        require_finite(expected.not_finite, self._reference, frame)
        picture = np.asarray(frame.raw, np.float32)
        picture = picture.mean(axis=2) if picture.ndim == 3 else picture
        truth = frame.sample.boxes()
        match = None if truth is None else self._score.update(expected.detections, truth, picture.shape)
        return SeenBoxes(frame.sample.id, picture, truth, expected, match)

    def tally(self, limits: Limits, crops: int) -> BoxTally:
        changes = Changes(tuple(bucket.name for bucket in SIZE_BUCKETS), crops)
        return BoxTally(Score(self._contract), limits, changes)

    def accuracy(self) -> BoxAccuracy:
        return self._score.accuracy()


class Score:
    """The metrics of one detector, and its false alarms on frames without a target."""

    def __init__(self, contract: Contract) -> None:
        self.threshold = contract.output.score_threshold
        self._metrics = BoxMetrics(contract.output.classes, self.threshold)
        self._alarms = 0

    def update(self, found: Detections, truth: BoxTruth, size: tuple[int, ...]) -> BoxMatch:
        match = self._metrics.update(found, truth, (size[0], size[1]))
        self._alarms += 0 if len(truth) else len(match.extra)
        return match

    def accuracy(self) -> BoxAccuracy:
        """The report's form of the metrics so far."""
        result = self._metrics.result()
        alarms = alarm_count(self._alarms, result.target_free_frames, FRAME_RATE)
        return BoxAccuracy(
            frames=result.frames,
            targets=result.targets,
            found=result.centre.tp,
            pd=result.pd,
            pd_interval=result.pd_interval,
            ap=result.ap,
            ap50=result.ap50,
            ap75=result.ap75,
            ap_by_size=[
                SizeAP(size_class=name, targets=result.targets_by_size[name], ap=ap)
                for name, ap in result.ap_by_size.items()
            ],
            iou50=box_rates(result.iou50),
            iou30=box_rates(result.iou30),
            centre=box_rates(result.centre),
            false_boxes_per_100_frames=100 * result.centre.fp / result.frames,
            centre_error_median=result.centre_error_median,
            centre_error_p95=result.centre_error_p95,
            alarms=Alarms(frame_rate=FRAME_RATE, **vars(alarms)) if alarms else None,
        )


def box_rates(rates: Rates) -> BoxRates:
    """Counts and rates as a report holds them."""
    return BoxRates(
        right=rates.tp,
        wrong=rates.fp,
        missed=rates.fn,
        precision=rates.precision,
        recall=rates.recall,
        f1=rates.f1,
    )


@dataclass
class BoxTally:
    """One candidate's sums."""

    score: Score
    limits: Limits
    changes: Changes
    pairs: int = field(default=0, init=False)
    max_box: float = field(default=0.0, init=False)
    max_score: float = field(default=0.0, init=False)
    only_reference: int = field(default=0, init=False)
    only_candidate: int = field(default=0, init=False)
    alone: int = field(default=0, init=False)
    flipped: int = field(default=0, init=False)
    not_finite: int = field(default=0, init=False)

    @property
    def floor(self) -> float:
        return FLOOR * self.score.threshold

    def add(self, seen: SeenBoxes, answer: Answer) -> None:
        self.not_finite += answer.not_finite
        self._add_differences(seen.expected, answer)
        if seen.truth is not None:
            match = self.score.update(answer.detections, seen.truth, seen.picture.shape)
            self._add_targets(seen, seen.truth, answer.detections, match)

    def _add_differences(self, expected: Answer, answer: Answer) -> None:
        one, other = expected.detections, answer.detections
        pairing = pair_detections(one, other)
        scores, found = one.scores[pairing.one], other.scores[pairing.other]
        compared = np.maximum(scores, found) > self.floor
        moved = np.abs(one.boxes[pairing.one] - other.boxes[pairing.other])[compared]
        self.pairs += int(np.count_nonzero(compared))
        self.max_box = max(self.max_box, float(moved.max(initial=0)))
        self.max_score = max(self.max_score, float(np.abs(scores - found)[compared].max(initial=0)))
        # A detection of the last slot loses its partner to a cut, not to arithmetic.
        self.only_reference += _above(one, pairing.only_one, max(self.floor, answer.cut))
        self.only_candidate += _above(other, pairing.only_other, max(self.floor, expected.cut))
        level = self.score.threshold
        self.alone += _above(one, pairing.only_one, level) + _above(other, pairing.only_other, level)
        self.flipped += crossings(one, other, pairing, level)

    def _add_targets(self, seen: SeenBoxes, truth: BoxTruth, found: Detections, match: BoxMatch) -> None:
        assert seen.match is not None
        expected = seen.expected.detections

        def pictures() -> Pictures:
            true = filled(truth.boxes, np.ones(len(truth)), seen.picture.shape)
            reference, candidate = (filled(d.boxes, d.scores, seen.picture.shape) for d in (expected, found))
            return seen.picture, true, reference, candidate

        before, after = ({i for i, _ in matched.pairs} for matched in (seen.match, match))
        peaks_before, peaks_after = _peaks(expected, truth), _peaks(found, truth)
        centres = box_centres(truth.boxes) - 0.5
        for i, area in enumerate(box_areas(truth.boxes).tolist()):
            column, row = centres[i].tolist()
            was_found, peaks = (i in before, i in after), (peaks_before[i], peaks_after[i])
            self.changes.add(Target(seen.id, row, column, area, size_class(area), was_found, peaks), pictures)

    def result(self, base: BoxAccuracy | None, reference: str, frames: int) -> tuple[BoxAccuracy | None, BoxParity]:
        boxes = BoxDifference(
            floor=self.floor,
            pairs=self.pairs,
            max_box=self.max_box if self.pairs else None,
            max_score=self.max_score if self.pairs else None,
            only_reference=self.only_reference,
            only_candidate=self.only_candidate,
            alone=self.alone,
            flipped=self.flipped,
            not_finite=self.not_finite,
        )
        own = self.score.accuracy() if base else None
        measured: dict[str, float | None] = {
            "not finite": self.not_finite,
            "boxes above the threshold without a partner": self.alone,
        }
        if self.pairs:
            measured |= {"max |Δbox|": self.max_box, "max |Δscore|": self.max_score}
        return own, BoxParity(
            reference=reference,
            frames=frames,
            targets=base.targets if base else 0,
            boxes=boxes,
            f1_points=change(own, base, lambda a: a.iou50.f1, 100),
            ap_points=change(own, base, lambda a: a.ap, 100),
            ap50_points=change(own, base, lambda a: a.ap50, 100),
            smallest_ap_points=change(own, base, lambda a: a.ap_by_size[0].ap, 100),
            pd_points=change(own, base, lambda a: a.pd, 100),
            centre_error_p95=change(own, base, lambda a: a.centre_error_p95),
            false_boxes_per_100_frames=change(own, base, lambda a: a.false_boxes_per_100_frames),
            by_size=self.changes.by_size() if base else [],
            changes=self.changes.listed,
            checks=checks(self.limits, measured | held(own, base, HELD)),
        )


def size_class(area: float) -> str:
    """The size class of a true box of `area` square pixels."""
    return next((b.name for b in SIZE_BUCKETS if area <= b.up_to), SIZE_BUCKETS[-1].name)


def filled(boxes: npt.NDArray[np.float32], levels: npt.NDArray[Any], shape: tuple[int, ...]) -> Plane:
    """A plane of `shape` in which each box shows its level, 0..1, on all pixels that it touches; the highest where
    several do."""
    plane = np.zeros(shape, np.float32)
    first, end = np.floor(boxes[:, :2]).astype(int), np.ceil(boxes[:, 2:]).astype(int)
    for i in np.argsort(levels, kind="stable"):
        plane[max(first[i, 1], 0) : end[i, 1], max(first[i, 0], 0) : end[i, 0]] = levels[i]
    return plane


def _finite(outputs: Mapping[str, Array]) -> tuple[Mapping[str, Array], int]:
    """The outputs without detections that are no finite numbers, and how many of them there were."""
    boxes, scores = outputs.get("boxes"), outputs.get("scores")
    if boxes is None or scores is None or boxes.shape[:-1] != scores.shape:
        # What is wrong with them is for `decode` to say.
        return outputs, 0
    # The boxes of empty slots mean nothing.
    faults = ~np.isfinite(scores) | ((scores != 0) & ~np.isfinite(boxes).all(axis=-1))
    count = int(np.count_nonzero(faults))
    return ({**outputs, "scores": np.where(faults, 0, scores)} if count else outputs), count


def _above(detections: Detections, rows: npt.NDArray[np.int64], level: float) -> int:
    return int(np.count_nonzero(detections.scores[rows] > np.float32(level)))


def _peaks(found: Detections, truth: BoxTruth) -> list[float]:
    """The highest score among the detections that are near enough to find each true box; 0 where there is none."""
    near = centre_distances(found.boxes, truth.boxes) < MATCH_DISTANCE
    near &= found.classes[:, None] == truth.classes[None]
    peaks: list[float] = np.where(near, found.scores[:, None], 0).max(axis=0, initial=0).tolist()
    return peaks
