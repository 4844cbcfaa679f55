"""Few-shot metrics: AP of base and novel classes, VOC's AP, frames no shot was drawn from, intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from irforge.datasets.base import BoxTruth, Dataset
from irforge.detections import Detections
from irforge.errors import UsageError
from irforge.metrics.coco import coco_ap
from irforge.metrics.matching import box_iou

Protocol = Literal["paper", "strict"]
VocMetric = Literal["area", "11-point"]
Values = npt.NDArray[np.float64]

_IOUS = tuple(0.5 + 0.05 * step for step in range(10))


@dataclass(frozen=True)
class GroupAP:
    """Average precision at IoU 0.50 to 0.95, 0.50 and 0.75, 0..1; None where no class of the group has a target."""

    ap: float | None
    ap50: float | None
    ap75: float | None


@dataclass(frozen=True)
class FewShotResult:
    """Figures over `all` classes, over the `base` ones, over the `novel` ones (nAP, nAP50, nAP75), and of each."""

    frames: int
    all: GroupAP
    base: GroupAP
    novel: GroupAP
    by_class: dict[str, GroupAP]

    def named(self) -> dict[str, float]:
        """The figures that exist, as the field calls them: AP, bAP, nAP, nAP50, ..."""
        groups = {"": self.all, "b": self.base, "n": self.novel}
        figures = {
            f"{mark}{name.upper()}": value for mark, own in groups.items() for name, value in asdict(own).items()
        }
        return {name: value for name, value in figures.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def few_shot_ap(
    found: Sequence[Detections], truth: Sequence[BoxTruth], classes: Sequence[str], novel: Iterable[str]
) -> FewShotResult:
    """COCO's average precision (see `coco_ap`) by group of classes; a group's is the mean of its classes' that have
    targets, which is what COCO gives when it is asked for these categories alone.

    Args:
        found: all detections of each frame, not only those above a threshold.
        truth: the true boxes of the same frames.
        classes: their names.
        novel: which of them are novel; the others are base classes.

    Raises:
        UsageError: a novel class that is not among `classes`.
        EnvironmentFault: faster-coco-eval is not installed.
    """
    chosen = list(novel)
    unknown = [name for name in chosen if name not in classes]
    if unknown:
        raise UsageError(f"the novel class '{unknown[0]}' is not a class here", f"Classes: {', '.join(classes)}")
    every = coco_ap(found, truth, classes)
    single = {n: GroupAP(every.by_class[n], every.by_class50[n], every.by_class75[n]) for n in classes}
    return FewShotResult(
        frames=len(truth),
        all=_group(single.values()),
        base=_group(ap for name, ap in single.items() if name not in chosen),
        novel=_group(single[name] for name in chosen),
        by_class=single,
    )


def evaluation_frames(dataset: Dataset, supports: Iterable[Dataset], protocol: Protocol) -> Dataset:
    """The frames to evaluate on: `paper` takes all, as published, also where shots were drawn from them; `strict`
    leaves out every frame that any of `supports` (all K-shot draws of a study) has.

    Raises:
        UsageError: no frame is left.
    """
    if protocol == "paper":
        return dataset
    taken = {sample.frame_path.resolve() for support in supports for sample in support}
    left = [i for i, sample in enumerate(dataset) if sample.frame_path.resolve() not in taken]
    if not left:
        raise UsageError(f"'{dataset.name}:{dataset.split}' has only frames that shots were drawn from", "Use 'paper'")
    return dataset.subset(left, f"{dataset.split}-strict")


class Interval(NamedTuple):
    """A mean over seeds and half the width of its 95 % interval; None where one seed says nothing of the spread."""

    mean: float
    half: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.half is None else f"{self.mean:.4f} ± {self.half:.4f}"

    def is_above(self, other: float) -> bool:
        """The whole interval lies above `other`."""
        return self.half is not None and self.mean - self.half > other

    def is_below(self, other: float) -> bool:
        """The whole interval lies below `other`."""
        return self.half is not None and self.mean + self.half < other


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean with its 95 % interval by Student's t: t(n - 1) * s / sqrt(n).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean needs values")
    count = len(values)
    half = student_t(count - 1) * stdev(values) / math.sqrt(count) if count > 1 else None
    return Interval(mean(values), half, count)


def paired_gain(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The mean gain of `ours` over `theirs`, seed by seed. Both saw the same shots, so that what a lucky draw gives
    falls out; a gain is one if `is_above(0)`.

    Raises:
        ValueError: not one value of each for every seed.
    """
    return mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])


def over_seeds(results: Sequence[FewShotResult]) -> dict[str, Interval]:
    """`mean_interval` of every figure that all results have."""
    figures = [result.named() for result in results]
    shared = [name for name in figures[0] if all(name in other for other in figures)] if figures else []
    return {name: mean_interval([own[name] for own in figures]) for name in shared}


def student_t(freedom: int, confidence: float = 0.95) -> float:
    """The t that Student's distribution stays within, on both sides, with probability `confidence`.

    By bisection on the closed form for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4).

    Raises:
        ValueError: no degree of freedom.
    """
    if freedom < 1:
        raise ValueError("Student's t needs a degree of freedom")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) * tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = total = 0.0
    for power in range(1 if odd else 0, freedom - 1, 2):
        term = (cosine if odd else 1.0) if power < 2 else term * cosine**2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def voc_ap(
    found: Sequence[Detections], truth: Sequence[BoxTruth], classes: Sequence[str], metric: VocMetric = "11-point"
) -> dict[str, GroupAP]:
    """Average precision by class as VOC's development kit defines it (Everingham et al., IJCV 2010).

    Detections of all frames go by descending score. One is right if its IoU with the true box that it overlaps most is
    above the threshold (strictly) and no better one was; it does not turn to the next box. Difficult boxes are neither
    missed nor found. VOC 2007 is judged by `11-point`, later years by `area`. `ap` is the mean over IoU 0.50 to 0.95,
    which VOC itself does not give. VOC counts pixels with inclusive ends and adds one to every side: with the half-open
    boxes here the sides are the same.
    """
    result = {}
    for number, name in enumerate(classes):
        own = [one.take(one.classes == number) for one in found]
        true = [_of_class(one, number) for one in truth]
        values = [_voc_class(own, true, iou, metric) for iou in _IOUS]
        known = [value for value in values if value is not None]
        result[name] = GroupAP(mean(known), values[0], values[5]) if known else GroupAP(None, None, None)
    return result


def average_precision(recall: npt.ArrayLike, precision: npt.ArrayLike, metric: VocMetric) -> float:
    """The area under a curve of ascending recall, of the monotone envelope of precision; or its mean at recalls 0, 0.1
    .. 1, where a recall counts as reached by comparison with 0.1 times a whole number in float64, as in VOC's code: 0.3
    is not reached by a recall of 0.3.
    """
    r, p = np.asarray(recall, np.float64), np.asarray(precision, np.float64)
    if metric == "11-point":
        return float(np.mean([p[r >= at].max(initial=0.0) for at in np.arange(0.0, 1.1, 0.1)]))
    envelope = np.maximum.accumulate(p[::-1])[::-1]
    return float(np.sum(np.diff(r, prepend=0.0) * envelope))


class _True(NamedTuple):
    boxes: npt.NDArray[np.float32]
    difficult: npt.NDArray[np.bool_]


def _of_class(truth: BoxTruth, number: int) -> _True:
    own = truth.classes == number
    difficult = np.zeros(len(truth), np.bool_) if truth.difficult is None else truth.difficult
    return _True(truth.boxes[own], difficult[own])


def _voc_class(found: Sequence[Detections], truth: Sequence[_True], iou: float, metric: VocMetric) -> float | None:
    targets = sum(int(np.count_nonzero(~one.difficult)) for one in truth)
    if not targets:
        return None
    scores, right, counted = [np.empty(0, np.float32)], [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
    for detections, true in zip(found, truth, strict=True):
        overlap = box_iou(detections.boxes, true.boxes)
        best = overlap.argmax(axis=1) if len(true.boxes) else np.zeros(len(detections), np.int64)
        near = overlap.max(axis=1, initial=0.0) > iou
        spared = near & true.difficult[best] if len(true.boxes) else near
        hit = near & ~spared
        # Detections of a frame are sorted by score: the first one on a box is the best.
        first = np.zeros(len(hit), np.bool_)
        first[np.flatnonzero(hit)[np.unique(best[hit], return_index=True)[1]]] = True
        scores.append(detections.scores)
        right.append(first)
        counted.append(~spared)
    every, hits, counts = np.concatenate(scores), np.concatenate(right), np.concatenate(counted)
    order = np.argsort(-every, kind="stable")
    hits, counts = hits[order], counts[order]
    tp, seen = np.cumsum(hits), np.cumsum(counts)
    recall, precision = tp[counts] / targets, tp[counts] / seen[counts]
    return average_precision(recall, precision, metric)


def _group(members: Iterable[GroupAP]) -> GroupAP:
    rows = list(members)
    return GroupAP(*(_mean(getattr(row, name) for row in rows) for name in ("ap", "ap50", "ap75")))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
