"""One candidate's sums over all frames, and the targets that it lost or gained."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from irforge.metrics import Match, PixelMetrics
from irforge.runtime.limits import Limits, checks
from irforge.runtime.report.pictures import neighbourhood_png
from irforge.runtime.report.schema import (
    SIZE_CLASSES,
    Accuracy,
    Crop,
    OutputDifference,
    Parity,
    SizeClass,
    SizeCount,
    TargetChange,
)

Plane = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seen:
    """One frame as the reference saw it."""

    id: str
    picture: Plane
    truth: Mask | None
    expected: Plane
    match: Match | None


@dataclass
class Tally:
    """One candidate's sums."""

    metrics: PixelMetrics
    limits: Limits
    crops_left: int
    largest: float = 0.0
    total: float = 0.0
    pixels: int = 0
    flipped: int = 0
    not_finite: int = 0
    targets: dict[SizeClass, int] = field(default_factory=lambda: dict.fromkeys(SIZE_CLASSES, 0))
    changes: list[TargetChange] = field(default_factory=list)

    def add(self, seen: Seen, found: Plane, threshold: float) -> None:
        faults = found.size - int(np.count_nonzero(np.isfinite(found)))
        if faults:
            self.not_finite += faults
            found = np.nan_to_num(found, nan=0.0, posinf=1.0, neginf=0.0)
        difference = np.abs(found - seen.expected)
        level = np.float32(threshold)
        self.largest = max(self.largest, float(difference.max()))
        self.total += float(difference.sum(dtype=np.float64))
        self.pixels += difference.size
        self.flipped += int(np.count_nonzero((found > level) != (seen.expected > level)))
        if seen.truth is not None and seen.match is not None:
            self._add_targets(seen, found, self.metrics.update(found, seen.truth))

    def _add_targets(self, seen: Seen, found: Plane, match: Match) -> None:
        assert seen.match is not None
        before = {i for i, _ in seen.match.pairs}
        after = {i for i, _ in match.pairs}
        peaks_before, peaks_after = match.true.peaks(seen.expected), match.true.peaks(found)
        for i, area in enumerate(match.true.areas.tolist()):
            self.targets[size_class(area)] += 1
            if (i in before) == (i in after):
                continue
            column, row = match.true.centres[i].tolist()
            crop = _crop(seen, found, row, column) if self.crops_left > 0 else None
            self.crops_left -= 1
            self.changes.append(
                TargetChange(
                    kind="lost" if i in before else "gained",
                    frame=seen.id,
                    row=row,
                    column=column,
                    area=area,
                    size_class=size_class(area),
                    reference_peak=float(peaks_before[i]),
                    candidate_peak=float(peaks_after[i]),
                    crop=crop,
                )
            )

    def result(self, base: Accuracy | None, reference: str, frames: int) -> tuple[Accuracy | None, Parity]:
        output = OutputDifference(
            name="mask",
            max_abs=self.largest if not self.not_finite else None,
            mean_abs=self.total / self.pixels if not self.not_finite else None,
            flipped_pixels=self.flipped,
            flipped_share=self.flipped / self.pixels,
            not_finite=self.not_finite,
        )
        own = accuracy_of(self.metrics) if base else None
        more = own.false_pixels_per_100_frames - base.false_pixels_per_100_frames if own and base else None
        points = {name: _points(own, base, name) for name in ("iou", "niou", "pd")}
        return own, Parity(
            reference=reference,
            frames=frames,
            targets=base.targets if base else 0,
            outputs=[output],
            iou_points=points["iou"],
            niou_points=points["niou"],
            pd_points=points["pd"],
            false_pixels_per_100_frames=more,
            by_size=[self._count(name) for name in SIZE_CLASSES] if base else [],
            changes=self.changes,
            checks=checks(self.limits, output, points, more, base is not None),
        )

    def _count(self, name: SizeClass) -> SizeCount:
        kinds = [change.kind for change in self.changes if change.size_class == name]
        return SizeCount(
            size_class=name, targets=self.targets[name], lost=kinds.count("lost"), gained=kinds.count("gained")
        )


def size_class(area: int) -> SizeClass:
    """The size class of a target of `area` pixels."""
    return SIZE_CLASSES[0] if area <= 9 else SIZE_CLASSES[1] if area <= 25 else SIZE_CLASSES[2]


def accuracy_of(metrics: PixelMetrics) -> Accuracy:
    """The report's form of the metrics so far."""
    result = metrics.result()
    assert result.fa is not None
    return Accuracy(
        frames=result.frames,
        targets=result.true_targets,
        found=result.found_targets,
        iou=result.iou,
        niou=result.niou,
        pd=result.pd,
        pd_interval=result.pd_interval,
        fa=result.fa,
        false_pixels_per_100_frames=100 * result.false_pixels / result.frames,
    )


def _points(own: Accuracy | None, base: Accuracy | None, name: str) -> float | None:
    after, before = getattr(own, name, None), getattr(base, name, None)
    return None if after is None or before is None else 100 * (after - before)


def _crop(seen: Seen, found: Plane, row: float, column: float) -> Crop:
    assert seen.truth is not None
    planes = (seen.truth.astype(np.float32), seen.expected, found)
    truth, expected, candidate = (neighbourhood_png(plane, row, column) for plane in planes)
    frame = neighbourhood_png(seen.picture, row, column, stretch=True)
    return Crop(frame=frame, truth=truth, reference=expected, candidate=candidate)
