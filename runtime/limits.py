"""How far a candidate may stray from its reference, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irforge.runtime.report.schema import Check, OutputDifference


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


def checks(
    limits: Limits, output: OutputDifference, points: Mapping[str, float | None], more: float | None, truth: bool
) -> list[Check]:
    """Hold measured differences (in points; `more` false pixels per 100 frames) to limits.

    Without truth only outputs are held to limits: the metrics' limits are then not there, rather than met.
    """
    made = [_check("not finite", float(output.not_finite), 0.0, "values")]
    if limits.probability is not None:
        made.append(_check("max |Δp|", output.max_abs, limits.probability, "probability"))
    if truth and limits.iou_loss is not None:
        made.append(_check("IoU loss", _negated(points["iou"]), limits.iou_loss, "points"))
    if truth and limits.pd_loss is not None:
        made.append(_check("Pd loss", _negated(points["pd"]), limits.pd_loss, "points"))
    if truth and limits.more_false_pixels is not None:
        made.append(_check("more false pixels", more, limits.more_false_pixels, "per 100 frames"))
    return made


def _check(name: str, value: float | None, limit: float, unit: str) -> Check:
    return Check(name=name, value=value, limit=limit, unit=unit, passed=value is not None and value <= limit)


def _negated(points: float | None) -> float | None:
    # 0 - x rather than -x: a loss of -0.0 reads as if something were wrong.
    return None if points is None else 0.0 - points
