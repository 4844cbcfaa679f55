"""Pixel and target metrics of infrared small-target detection: IoU, nIoU, Pd, Fa, ROC.

IoU and Pd/Fa as in Li et al. (DNANet, TIP 2022), nIoU as in Dai et al. (ACM, WACV 2021). Correct by default; `legacy`
repeats what the published evaluation code does, so that figures can be compared with published tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.components import Components, components
from irforge.errors import ArtifactError

Mask = npt.NDArray[np.bool_]

MATCH_DISTANCE = 3.0
ROC_THRESHOLDS = tuple(k / 10 for k in range(11))
_LEGACY_ROC_EPSILON = 0.001


@dataclass(frozen=True)
class Match:
    """Which true targets of one frame were found.

    pairs: (true, predicted) component numbers. Areas are in pixels; `matched_areas`, `lost_areas` are of true targets,
    `extra_areas` of predicted components that belong to none: the false alarms.
    """

    pairs: tuple[tuple[int, int], ...]
    true: Components
    predicted: Components

    @property
    def lost(self) -> list[int]:
        found = {i for i, _ in self.pairs}
        return [i for i in range(len(self.true)) if i not in found]

    @property
    def extra(self) -> list[int]:
        used = {j for _, j in self.pairs}
        return [j for j in range(len(self.predicted)) if j not in used]

    @property
    def matched_areas(self) -> list[int]:
        return [int(self.true.areas[i]) for i, _ in self.pairs]

    @property
    def lost_areas(self) -> list[int]:
        return [int(self.true.areas[i]) for i in self.lost]

    @property
    def extra_areas(self) -> list[int]:
        return [int(self.predicted.areas[j]) for j in self.extra]


@dataclass(frozen=True)
class PixelResult:
    """The figures of a set of frames.

    iou: pooled foreground intersection over union. niou: mean over frames of the frame's IoU. pd: found / true
    targets, `pd_interval` its 95 % Wilson interval. fa: pixels of unmatched predicted components / all pixels (tables
    print it times 1e6). A figure without a denominator (no union, no target, no pixel) is None.
    """

    iou: float | None
    niou: float | None
    pd: float | None
    pd_interval: tuple[float, float] | None
    fa: float | None
    frames: int
    pixels: int
    intersection: int
    union: int
    true_targets: int
    found_targets: int
    false_alarms: int
    false_pixels: int
    roc_thresholds: tuple[float, ...]
    tpr: tuple[float | None, ...]
    fpr: tuple[float | None, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


@dataclass
class PixelMetrics:
    """Accumulates over frames; `result` may be asked at any time.

    threshold: probability > threshold (strict) is a target pixel.
    distance: a true and a predicted component match when their centres are less than this many pixels apart (strict).
    legacy: match greedily in raster order; leave out false alarms whose area equals that of a matched component of the
        same frame; count a frame with an empty union as 0 in nIoU; add 0.001 to the denominators of the ROC.
    """

    threshold: float = 0.5
    distance: float = MATCH_DISTANCE
    connectivity: int = 8
    legacy: bool = False
    _sums: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _ratios: list[float] = field(default_factory=list, init=False, repr=False)
    _roc: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._sums = dict.fromkeys(
            ("frames", "pixels", "intersection", "union", "true", "found", "alarms", "false_pixels"), 0
        )
        # rows: target pixels, other pixels; column k: how many of them lie above exactly k of the ROC's thresholds.
        self._roc = np.zeros((2, len(ROC_THRESHOLDS) + 1), np.int64)

    def update(self, prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Match:
        """Add one frame.

        Args:
            prediction: H x W, probabilities 0..1 or a bool mask.
            truth: bool H x W.

        Returns:
            How the targets of this frame were matched.

        Raises:
            ValueError: the shapes differ.
            ArtifactError: a probability is NaN.
        """
        if prediction.shape != truth.shape or prediction.ndim != 2:
            raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} must be H x W of one size")
        probabilities = np.asarray(prediction, np.float32)
        if probabilities.size and np.isnan(probabilities.max()):
            raise ArtifactError(
                "the predicted probabilities hold NaN: the graph overflows in this precision",
                "Run the FP32 file, or convert again with more FP32 islands ('irforge half')",
            )
        truth = np.asarray(truth, np.bool_)
        predicted = probabilities > np.float32(self.threshold)
        match = match_targets(
            predicted, truth, distance=self.distance, connectivity=self.connectivity, legacy=self.legacy
        )
        intersection = int(np.count_nonzero(predicted & truth))
        union = int(np.count_nonzero(predicted | truth))
        alarms = match.extra_areas
        if self.legacy:
            matched = {int(match.predicted.areas[j]) for _, j in match.pairs}
            alarms = [area for area in alarms if area not in matched]
        self._add(
            frames=1,
            pixels=truth.size,
            intersection=intersection,
            union=union,
            true=len(match.true),
            found=len(match.pairs),
            alarms=len(alarms),
            false_pixels=sum(alarms),
        )
        if union:
            self._ratios.append(intersection / union)
        elif self.legacy:
            self._ratios.append(0.0)
        self._add_roc(probabilities, truth)
        return match

    def merge(self, other: PixelMetrics) -> None:
        """Add the frames of another accumulator with the same settings."""
        mine = (self.threshold, self.distance, self.connectivity, self.legacy)
        if mine != (other.threshold, other.distance, other.connectivity, other.legacy):
            raise ValueError("metrics with different settings cannot be merged")
        self._add(**other._sums)
        self._ratios += other._ratios
        self._roc += other._roc

    def result(self) -> PixelResult:
        s = self._sums
        tpr, fpr = self._rates()
        return PixelResult(
            iou=_ratio(s["intersection"], s["union"]),
            niou=math.fsum(self._ratios) / len(self._ratios) if self._ratios else None,
            pd=_ratio(s["found"], s["true"]),
            pd_interval=wilson_interval(s["found"], s["true"]),
            fa=_ratio(s["false_pixels"], s["pixels"]),
            frames=s["frames"],
            pixels=s["pixels"],
            intersection=s["intersection"],
            union=s["union"],
            true_targets=s["true"],
            found_targets=s["found"],
            false_alarms=s["alarms"],
            false_pixels=s["false_pixels"],
            roc_thresholds=ROC_THRESHOLDS,
            tpr=tpr,
            fpr=fpr,
        )

    def _add(self, **counts: int) -> None:
        for name, count in counts.items():
            self._sums[name] += count

    def _add_roc(self, probabilities: npt.NDArray[np.float32], truth: Mask) -> None:
        edges = np.array(ROC_THRESHOLDS, np.float32)
        # Most pixels of a probability map lie below the second threshold: only the others need a search.
        high = np.flatnonzero(probabilities > edges[1])
        above = np.searchsorted(edges, probabilities.reshape(-1)[high], side="left")
        is_target = truth.reshape(-1)[high]
        hits = np.bincount(above[is_target], minlength=len(edges) + 1)
        misses = np.bincount(above[~is_target], minlength=len(edges) + 1)
        targets = int(np.count_nonzero(truth))
        positive = probabilities > 0
        positive_targets = int(np.count_nonzero(positive & truth))
        hits[1] += positive_targets - hits.sum()
        misses[1] += int(np.count_nonzero(positive)) - positive_targets - misses.sum()
        hits[0] += targets - hits.sum()
        misses[0] += truth.size - targets - misses.sum()
        self._roc += np.stack([hits, misses])

    def _rates(self) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
        epsilon = _LEGACY_ROC_EPSILON if self.legacy else 0.0
        rates = []
        for row in self._roc:
            above = row[::-1].cumsum()[::-1][1:]
            rates.append(tuple(_ratio(float(count), float(row.sum()) + epsilon) for count in above))
        return rates[0], rates[1]


def match_targets(
    predicted: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    *,
    distance: float = MATCH_DISTANCE,
    connectivity: int = 8,
    legacy: bool = False,
) -> Match:
    """Match the components of two bool masks [H, W] one to one by the distance of their centres.

    All pairs closer than `distance` pixels (strict) are taken in order of ascending distance, each component once.
    With `legacy`, each true component in raster order takes the first predicted one in raster order that is in range.
    """
    true, found = components(truth, connectivity), components(predicted, connectivity)
    if not len(true) or not len(found):
        return Match((), true, found)
    apart = np.hypot(*(true.centres[:, None] - found.centres[None]).transpose(2, 0, 1))
    rows, columns = np.nonzero(apart < distance)
    if not legacy:
        order = np.argsort(apart[rows, columns], kind="stable")
        rows, columns = rows[order], columns[order]
    pairs: list[tuple[int, int]] = []
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        if i not in taken_rows and j not in taken_columns:
            taken_rows.add(i)
            taken_columns.add(j)
            pairs.append((i, j))
    return Match(tuple(sorted(pairs)), true, found)


def wilson_interval(hits: int, trials: int, z: float = 1.959964) -> tuple[float, float] | None:
    """The Wilson score interval of a proportion, 95 % by default; None without trials."""
    if trials == 0:
        return None
    share = hits / trials
    spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    centre, scale = share + z * z / (2 * trials), 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _ratio(count: float, total: float) -> float | None:
    return count / total if total else None
