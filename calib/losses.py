"""What a detector loses when its numbers change: targets that it no longer finds, and alarms that it did not give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from irforge.calib.costs import Event
from irforge.datasets.base import BoxTruth
from irforge.detections import Detections
from irforge.runtime.pairing import pair_detections
from irforge.runtime.report.wording import plural


def events(reference: Detections, found: Detections, truth: BoxTruth | None, frame: str) -> list[Event]:
    """Targets that `reference` finds and `found` does not, and detections of `found` that are neither in `reference`
    nor true.

    Detections are paired as `pair_detections` does it. Where the truth is not known, all that `reference` finds counts
    as a target. Where it is, a lost false alarm is no loss and a target that only `found` has is no alarm; the truth's
    classes are not looked at, but a target that is found under another class than before is lost.
    """
    pairing = pair_detections(reference, found)
    alone = pairing.only_one.tolist()
    alarms = pairing.only_other.tolist()
    if truth is not None:
        targets = Detections(truth.boxes, np.ones(len(truth), np.float32), np.zeros(len(truth), np.int64))
        before, after = _owners(reference, targets), _owners(found, targets)
        held = {(target, found.classes[row]) for row, target in after.items()}
        alone = [row for row, target in before.items() if (target, reference.classes[row]) not in held]
        alarms = [row for row in alarms if row not in after]
    return [_event("lost", reference, row, frame) for row in sorted(alone)] + [
        _event("alarm", found, row, frame) for row in sorted(alarms)
    ]


def _owners(found: Detections, targets: Detections) -> dict[int, int]:
    """Which target each detection stands for; those that stand for none are left out."""
    pairing = pair_detections(replace(found, classes=np.zeros(len(found), np.int64)), targets)
    return dict(zip(pairing.one.tolist(), pairing.other.tolist(), strict=True))


def _event(kind: str, detections: Detections, row: int, frame: str) -> Event:
    box = detections.boxes[row].astype(np.float64).round(2).tolist()
    score = round(float(detections.scores[row]), 6)
    return Event.model_validate({"kind": kind, "frame": frame, "box": box, "score": score})


def in_100_frames(found: Sequence[Event], kind: str, frames: int) -> float:
    """How many events of a kind there are in 100 frames."""
    return 100 * sum(event.kind == kind for event in found) / frames


def frames_for(max_loss: float) -> int:
    """The fewest frames of which one event is within `max_loss` (above 0) in 100 frames."""
    return math.ceil(100 / max_loss)


def too_few(max_loss: float, frames: int) -> str:
    """A line that says so where one event of `frames` exceeds `max_loss` in 100 frames, which then means 0; else
    nothing."""
    if not 0 < max_loss < 100 / frames:
        return ""
    return (
        f"one target in {plural(frames, 'frame')} is {100 / frames:.1f} in 100: a loss of at most {max_loss:g} allows"
        f" none there, as 0 would; {frames_for(max_loss)} frames allow one"
    )
