"""Masks against masks: probabilities pixel by pixel, IoU, and targets as connected components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract
from irforge.errors import ArtifactError
from irforge.frames import Geometry, resize_mask
from irforge.metrics import Match, PixelMetrics
from irforge.runtime.limits import Limits, checks
from irforge.runtime.report.figures import MASK_SIZES, MaskAccuracy, MaskParity, OutputDifference
from irforge.runtime.tally import Changes, FrameRead, Held, Plane, Target, change, held, require_finite
from irforge.session import Array

Mask = npt.NDArray[np.bool_]

HELD: Held[MaskAccuracy] = {
    "IoU loss": (lambda accuracy: accuracy.iou, -100),
    "Pd loss": (lambda accuracy: accuracy.pd, -100),
    "more false pixels": (lambda accuracy: accuracy.false_pixels_per_100_frames, 1),
}


@dataclass(frozen=True)
class SeenMask:
    """One frame as the reference saw it, the window that it fills of the model's input."""

    id: str
    picture: Plane
    truth: Mask | None
    expected: Plane
    match: Match | None


class MaskJudge:
    """Scores masks in the window that the frame fills of the model's input, against the true mask at that size."""

    def __init__(self, contract: Contract, reference: str) -> None:
        self._output = contract.output
        self._reference = reference
        self._metrics = self._new_metrics()

    def _new_metrics(self) -> PixelMetrics:
        return PixelMetrics(self._output.score_threshold, connectivity=self._output.connectivity)

    def read(self, outputs: Mapping[str, Array], geometry: Geometry, name: str) -> Plane:
        """The probabilities of the frame's own window, float32 H x W."""
        expected = (1, 1, geometry.model_height, geometry.model_width)
        found = outputs.get("mask")
        if found is None or found.shape != expected:
            raise ArtifactError(
                f"'{name}' gives {'no output' if found is None else f'{found.shape} as'} 'mask', expected {expected}",
                "The graph does not belong to its contract; export it again",
            )
        return np.asarray(geometry.crop(found[0, 0]), np.float32)

    def see(self, frame: FrameRead, expected: Plane) -> SeenMask:
        require_finite(_not_finite(expected), self._reference, frame)
        full = frame.sample.mask()
        truth = None if full is None else resize_mask(full, *expected.shape)
        match = None if truth is None else self._metrics.update(expected, truth)
        picture = np.asarray(frame.geometry.crop(np.asarray(frame.feed[0], np.float32).mean(axis=0)), np.float32)
        return SeenMask(frame.sample.id, picture, truth, expected, match)

    def tally(self, limits: Limits, crops: int) -> MaskTally:
        return MaskTally(self._new_metrics(), limits, Changes(MASK_SIZES, crops))

    def accuracy(self) -> MaskAccuracy:
        return accuracy_of(self._metrics)


@dataclass
class MaskTally:
    """One candidate's sums."""

    metrics: PixelMetrics
    limits: Limits
    changes: Changes
    largest: float = field(default=0.0, init=False)
    total: float = field(default=0.0, init=False)
    pixels: int = field(default=0, init=False)
    flipped: int = field(default=0, init=False)
    not_finite: int = field(default=0, init=False)

    def add(self, seen: SeenMask, answer: Plane) -> None:
        faults = _not_finite(answer)
        if faults:
            self.not_finite += faults
            answer = np.nan_to_num(answer, nan=0.0, posinf=1.0, neginf=0.0)
        apart = np.abs(answer - seen.expected)
        level = np.float32(self.metrics.threshold)
        self.largest = max(self.largest, float(apart.max()))
        self.total += float(apart.sum(dtype=np.float64))
        self.pixels += apart.size
        self.flipped += int(np.count_nonzero((answer > level) != (seen.expected > level)))
        if seen.truth is not None:
            self._add_targets(seen, answer, self.metrics.update(answer, seen.truth))

    def _add_targets(self, seen: SeenMask, answer: Plane, match: Match) -> None:
        assert seen.match is not None and seen.truth is not None
        pictures = (seen.picture, seen.truth.astype(np.float32), seen.expected, answer)
        before, after = ({i for i, _ in matched.pairs} for matched in (seen.match, match))
        peaks_before, peaks_after = (match.true.peaks(plane).tolist() for plane in (seen.expected, answer))
        for i, area in enumerate(match.true.areas.tolist()):
            column, row = match.true.centres[i].tolist()
            found, peaks = (i in before, i in after), (peaks_before[i], peaks_after[i])
            self.changes.add(Target(seen.id, row, column, area, size_class(area), found, peaks), lambda: pictures)

    def result(self, base: MaskAccuracy | None, reference: str, frames: int) -> tuple[MaskAccuracy | None, MaskParity]:
        output = OutputDifference(
            name="mask",
            max_abs=self.largest if not self.not_finite else None,
            mean_abs=self.total / self.pixels if not self.not_finite else None,
            flipped_pixels=self.flipped,
            flipped_share=self.flipped / self.pixels,
            not_finite=self.not_finite,
        )
        own = accuracy_of(self.metrics) if base else None
        measured = {"not finite": float(self.not_finite), "max |Δp|": output.max_abs}
        return own, MaskParity(
            reference=reference,
            frames=frames,
            targets=base.targets if base else 0,
            outputs=[output],
            iou_points=change(own, base, lambda a: a.iou, 100),
            niou_points=change(own, base, lambda a: a.niou, 100),
            pd_points=change(own, base, lambda a: a.pd, 100),
            false_pixels_per_100_frames=change(own, base, lambda a: a.false_pixels_per_100_frames),
            by_size=self.changes.by_size() if base else [],
            changes=self.changes.listed,
            checks=checks(self.limits, measured | held(own, base, HELD)),
        )


def size_class(area: int) -> str:
    """The size class of a target of `area` pixels."""
    return MASK_SIZES[0] if area <= 9 else MASK_SIZES[1] if area <= 25 else MASK_SIZES[2]


def accuracy_of(metrics: PixelMetrics) -> MaskAccuracy:
    """The report's form of the metrics so far."""
    result = metrics.result()
    assert result.fa is not None
    return MaskAccuracy(
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


def _not_finite(plane: Plane) -> int:
    return plane.size - int(np.count_nonzero(np.isfinite(plane)))
