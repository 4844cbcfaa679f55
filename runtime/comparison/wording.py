"""Figures of a comparison as people read them, for the page and the terminal alike."""

from __future__ import annotations

from irforge.runtime.comparison.schema import Comparison
from irforge.runtime.report.wording import NOT_MEASURED, count, plural


def rate(value: float | None) -> str:
    """In percent without the sign."""
    return NOT_MEASURED if value is None else f"{100 * value:.1f}"


def mega(value: int | None) -> str:
    """Millions; of less than a hundredth only that."""
    if value is None:
        return NOT_MEASURED
    return "< 0.01" if 0 < value < 10_000 else f"{value / 1e6:.3g}"


def giga(value: int | None) -> str:
    """Thousands of millions."""
    if value is None:
        return NOT_MEASURED
    return "< 0.01" if 0 < value < 10_000_000 else f"{value / 1e9:.3g}"


def frames_text(comparison: Comparison) -> str:
    """'NUDT-SIRST:test, 20 of 531 frames, 30 targets'."""
    data = comparison.data
    of = "" if data.frames == data.frames_in_split else f"{count(data.frames)} of "
    targets = "" if data.targets is None else f", {plural(data.targets, 'target')}"
    return f"{data.name}:{data.split}, {of}{plural(data.frames_in_split, 'frame')}{targets}"
