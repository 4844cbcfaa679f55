"""Is it still the same detector? The same frames through a reference and its candidates, output by output, metric by
metric, target by target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract
from irforge.datasets import Sample
from irforge.errors import ArtifactError, CheckFailed, UsageError
from irforge.frames import Geometry, prepare, resize_mask
from irforge.metrics import Match, PixelMetrics
from irforge.runtime.report.pictures import neighbourhood_png
from irforge.runtime.report.schema import (
    SIZE_CLASSES,
    Accuracy,
    Check,
    Crop,
    OutputDifference,
    Parity,
    SizeClass,
    SizeCount,
    TargetChange,
)
from irforge.session import Session

Plane = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

CROPS_PER_MODEL = 8


@dataclass(frozen=True)
class Limits:
    """How far a candidate may stray; None is not checked. Losses are in points (hundredths) of a rate."""

    probability: float | None = None
    iou_loss: float | None = None
    pd_loss: float | None = None
    more_false_pixels: float | None = None


LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(probability=1e-4),
    "fp16": Limits(iou_loss=0.1),
    "int8": Limits(iou_loss=0.5, pd_loss=1.0, more_false_pixels=20.0),
}
"""By precision. `more_false_pixels` is counted per 100 frames."""


@dataclass(frozen=True)
class ParityReport:
    """`reference` is None without truth, and so are the metrics inside `candidates`."""

    reference: Accuracy | None
    candidates: Mapping[str, tuple[Accuracy | None, Parity]]

    def require(self) -> None:
        """Raise CheckFailed if a limit was missed, naming the first."""
        for name, (_, parity) in self.candidates.items():
            require(name, parity)


def require(name: str, parity: Parity) -> None:
    """Raise CheckFailed if candidate `name` missed a limit."""
    missed = [check for check in parity.checks if not check.passed]
    if missed:
        worst = missed[0]
        value = "not measurable" if worst.value is None else f"{worst.value:.3g}"
        others = f" ({len(missed) - 1} more limits missed)" if len(missed) > 1 else ""
        raise CheckFailed(
            f"'{name}' against '{parity.reference}': {worst.name} {value} {worst.unit}, limit {worst.limit:g}{others}",
            "The report lists what changed; 'irforge calibrate' with more frames or another method may mend INT8",
        )


def compare(
    reference: Session,
    candidates: Mapping[str, Session],
    samples: Iterable[Sample],
    contract: Contract,
    *,
    reference_name: str = "reference",
    limits: Mapping[str, Limits] | None = None,
    crops: int = CROPS_PER_MODEL,
) -> ParityReport:
    """Run every frame through all sessions and compare.

    Each frame is prepared once; the window that the frame fills is compared and scored, without the padding, against
    its mask at that window's size. Nothing is kept but sums and small crops, so any number of frames will do.

    Args:
        reference: what the candidates should be equal to.
        candidates: by name.
        samples: a Dataset or any part of one; all with masks or all without.
        contract: the input and threshold that all of them share.
        limits: by candidate's name; `LIMITS` has those for a precision. Without any only finite values are asked for.
        crops: pictures of at most this many changed targets a candidate.

    Raises:
        UsageError: there is no frame, or the detector gives boxes.
        InputError: a frame or mask cannot be used.
        ArtifactError: a graph's output is not as the contract says, or the reference's is not finite.
    """
    if contract.output.kind != "mask":
        raise UsageError("parity of boxes cannot be measured on masks", "Compare detectors whose output is a mask")
    threshold = contract.output.score_threshold
    connectivity = contract.output.connectivity
    held = limits or {}
    reference_metrics = PixelMetrics(threshold, connectivity=connectivity)
    tallies = {
        name: _Tally(PixelMetrics(threshold, connectivity=connectivity), held.get(name, Limits()), crops)
        for name in candidates
    }
    frames = with_truth = 0
    for sample in samples:
        feed, geometry = prepare(sample.frame(), contract.input)
        feeds = {contract.input.name: feed}
        expected = _mask(reference.run(feeds), geometry, reference_name)
        if not np.isfinite(expected).all():
            raise ArtifactError(f"'{reference_name}' gives values that are not finite on frame '{sample.id}'")
        full = sample.mask()
        truth = None if full is None else resize_mask(full, *expected.shape)
        match = None if truth is None else reference_metrics.update(expected, truth)
        frames += 1
        with_truth += truth is not None
        picture = np.asarray(geometry.crop(feed[0].mean(axis=0)), np.float32)
        for name, session in candidates.items():
            seen = _Seen(sample.id, picture, truth, expected, match)
            tallies[name].add(seen, _mask(session.run(feeds), geometry, name), threshold)
    if not frames:
        raise UsageError("there is no frame to compare on", "Name a split that holds frames")
    if with_truth not in (0, frames):
        raise UsageError(f"only {with_truth} of {frames} frames have masks", "Name data of which all frames have masks")
    base = _accuracy(reference_metrics) if with_truth else None
    return ParityReport(base, {name: tally.result(base, reference_name, frames) for name, tally in tallies.items()})


@dataclass(frozen=True)
class _Seen:
    """One frame as the reference saw it."""

    id: str
    picture: Plane
    truth: Mask | None
    expected: Plane
    match: Match | None


@dataclass
class _Tally:
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

    def add(self, seen: _Seen, found: Plane, threshold: float) -> None:
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

    def _add_targets(self, seen: _Seen, found: Plane, match: Match) -> None:
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
        own = _accuracy(self.metrics) if base else None
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
            checks=_checks(self.limits, output, points, more, base is not None),
        )

    def _count(self, name: SizeClass) -> SizeCount:
        kinds = [change.kind for change in self.changes if change.size_class == name]
        return SizeCount(
            size_class=name, targets=self.targets[name], lost=kinds.count("lost"), gained=kinds.count("gained")
        )


def size_class(area: int) -> SizeClass:
    """The size class of a target of `area` pixels."""
    return SIZE_CLASSES[0] if area <= 9 else SIZE_CLASSES[1] if area <= 25 else SIZE_CLASSES[2]


def _checks(
    limits: Limits, output: OutputDifference, points: Mapping[str, float | None], more: float | None, truth: bool
) -> list[Check]:
    """Without truth only outputs are held to limits: the metrics' limits are then not there, rather than met."""
    checks = [_check("not finite", float(output.not_finite), 0.0, "values")]
    if limits.probability is not None:
        checks.append(_check("max |Δp|", output.max_abs, limits.probability, "probability"))
    if truth and limits.iou_loss is not None:
        checks.append(_check("IoU loss", _negated(points["iou"]), limits.iou_loss, "points"))
    if truth and limits.pd_loss is not None:
        checks.append(_check("Pd loss", _negated(points["pd"]), limits.pd_loss, "points"))
    if truth and limits.more_false_pixels is not None:
        checks.append(_check("more false pixels", more, limits.more_false_pixels, "per 100 frames"))
    return checks


def _check(name: str, value: float | None, limit: float, unit: str) -> Check:
    return Check(name=name, value=value, limit=limit, unit=unit, passed=value is not None and value <= limit)


def _negated(points: float | None) -> float | None:
    # 0 - x rather than -x: a loss of -0.0 reads as if something were wrong.
    return None if points is None else 0.0 - points


def _points(own: Accuracy | None, base: Accuracy | None, name: str) -> float | None:
    after, before = getattr(own, name, None), getattr(base, name, None)
    return None if after is None or before is None else 100 * (after - before)


def _accuracy(metrics: PixelMetrics) -> Accuracy:
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


def _mask(outputs: Mapping[str, npt.NDArray[Any]], geometry: Geometry, name: str) -> Plane:
    """The probabilities of the frame's own window, float32 H x W."""
    expected = (1, 1, geometry.model_height, geometry.model_width)
    found = outputs.get("mask")
    if found is None or found.shape != expected:
        raise ArtifactError(
            f"'{name}' gives {'no output' if found is None else f'{found.shape} as'} 'mask', expected {expected}",
            "The graph does not belong to its contract; export it again",
        )
    return np.asarray(geometry.crop(found[0, 0]), np.float32)


def _crop(seen: _Seen, found: Plane, row: float, column: float) -> Crop:
    assert seen.truth is not None
    planes = (seen.truth.astype(np.float32), seen.expected, found)
    truth, expected, candidate = (neighbourhood_png(plane, row, column) for plane in planes)
    frame = neighbourhood_png(seen.picture, row, column, stretch=True)
    return Crop(frame=frame, truth=truth, reference=expected, candidate=candidate)
