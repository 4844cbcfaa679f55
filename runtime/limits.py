"""How far a candidate may stray from its reference, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irforge.runtime.report.figures import Check, OutputKind


@dataclass(frozen=True)
class Limit:
    """The most that the figure called `name` may be."""

    name: str
    most: float
    unit: str


Limits = tuple[Limit, ...]

LIMITS: Mapping[OutputKind, Mapping[str, Limits]] = {
    "mask": {
        "fp32": (Limit("max |Δp|", 1e-4, "probability"),),
        "fp16": (Limit("IoU loss", 0.1, "points"),),
        "int8": (
            Limit("IoU loss", 0.5, "points"),
            Limit("Pd loss", 1.0, "points"),
            Limit("more false pixels", 20.0, "per 100 frames"),
        ),
    },
    "boxes": {
        "fp32": (
            Limit("max |Δbox|", 0.05, "px"),
            Limit("max |Δscore|", 1e-4, "score"),
            Limit("boxes above the threshold without a partner", 0.0, ""),
        ),
        "fp16": (Limit("F1 loss", 0.3, "points"),),
        "int8": (
            Limit("F1 loss", 1.0, "points"),
            Limit("small-target AP loss", 1.5, "points"),
            Limit("more centre error at p95", 0.25, "px"),
        ),
    },
}
"""By output and precision. Losses are in points (hundredths) of a rate: of F1 at IoU 0.5, of COCO's AP over the
smallest size class. FP16 may cost boxes one target in three hundred; a mask, with many pixels a target, shows less."""

NOT_FINITE = Limit("not finite", 0.0, "values")
"""What every candidate is held to."""


def checks(limits: Limits, measured: Mapping[str, float | None]) -> list[Check]:
    """Hold what was measured, by name, to limits.

    A limit on what is not in `measured` (metrics without truth, an accuracy that the reference itself does not have) is
    left out. A value of None could not be measured of the candidate alone, and misses its limit.
    """
    return [_check(limit, measured[limit.name]) for limit in (NOT_FINITE, *limits) if limit.name in measured]


def _check(limit: Limit, value: float | None) -> Check:
    passed = value is not None and value <= limit.most
    return Check(name=limit.name, value=value, limit=limit.most, unit=limit.unit, passed=passed)
