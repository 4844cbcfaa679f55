"""Is it still the same detector? The same frames through a reference and its candidates, output by output, metric by
metric, target by target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract
from irforge.datasets import Sample
from irforge.errors import ArtifactError, CheckFailed, UsageError
from irforge.frames import Geometry, prepare, resize_mask
from irforge.metrics import PixelMetrics
from irforge.runtime.limits import Limits
from irforge.runtime.report.schema import Accuracy, Parity
from irforge.runtime.tally import Plane, Seen, Tally, accuracy_of
from irforge.session import Array, Session

CROPS_PER_MODEL = 8


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
    workers: int = 1,
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
        workers: sessions that may run at the same time, each in a thread of its own where its thread rule allows it.

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
        name: Tally(PixelMetrics(threshold, connectivity=connectivity), held.get(name, Limits()), crops)
        for name in candidates
    }
    sessions = {reference_name: reference, **candidates}
    frames = with_truth = 0
    with ThreadPoolExecutor(workers) as pool:
        for sample in samples:
            feed, geometry = prepare(sample.frame(), contract.input, f"'{sample.frame_path}'")
            outputs = _run_all(sessions, {contract.input.name: feed}, pool)
            planes = {name: _mask(output, geometry, name) for name, output in outputs.items()}
            expected = planes.pop(reference_name)
            if not np.isfinite(expected).all():
                raise ArtifactError(f"'{reference_name}' gives values that are not finite on frame '{sample.id}'")
            full = sample.mask()
            truth = None if full is None else resize_mask(full, *expected.shape)
            match = None if truth is None else reference_metrics.update(expected, truth)
            frames += 1
            with_truth += truth is not None
            picture = np.asarray(geometry.crop(feed[0].mean(axis=0)), np.float32)
            seen = Seen(sample.id, picture, truth, expected, match)
            for name, plane in planes.items():
                tallies[name].add(seen, plane, threshold)
    if not frames:
        raise UsageError("there is no frame to compare on", "Name a split that holds frames")
    if with_truth not in (0, frames):
        raise UsageError(f"only {with_truth} of {frames} frames have masks", "Name data of which all frames have masks")
    base = accuracy_of(reference_metrics) if with_truth else None
    return ParityReport(base, {name: tally.result(base, reference_name, frames) for name, tally in tallies.items()})


def _run_all(
    sessions: Mapping[str, Session], feeds: Mapping[str, Array], pool: ThreadPoolExecutor
) -> dict[str, dict[str, Array]]:
    bound = {name for name, session in sessions.items() if session.thread_rule == "the creating thread"}
    running = {name: pool.submit(sessions[name].run, feeds) for name in sessions if name not in bound}
    here = {name: sessions[name].run(feeds) for name in bound}
    return {name: here[name] if name in bound else running[name].result() for name in sessions}


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
