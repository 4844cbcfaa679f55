"""Curves and scatter as inline SVG: no script, colours from the style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from irforge.runtime.report.markup import Markup

WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 44
_LETTER = 6.2
"""About the width of a letter."""
COLOURS = 10
"""The style sheet has as many, `.m0` to `.m9`; those that follow repeat them with dashes."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, linear or by powers of ten; ticks as (value, label)."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0..1; what lies beyond an end stays at it."""
        change: Callable[[float], float] = math.log10 if self.log else float
        low, high = change(self.low), change(self.high)
        at = change(max(value, self.low)) if self.log else value
        return min(max((at - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class Series:
    """One contestant: its place in the list, its name, the points of its curve, and where it works (a dot)."""

    index: int
    name: str
    points: Sequence[Point]
    dot: Point | None = None


def style_of(index: int) -> str:
    """The style sheet's classes for a contestant."""
    return f"m{index % COLOURS}" + (" dashed" if index >= COLOURS else "")


def rates(title: str) -> Axis:
    """From 0 to 100 %."""
    return Axis(title, 0, 1, [(k / 5, f"{20 * k}") for k in range(6)])


def powers(title: str, values: Sequence[float], least: float = 0.0) -> Axis:
    """Whole powers of ten around all values above 0, three of them at least."""
    known = [value for value in values if value > least]
    low, high = (math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))) if known else (-2, 1)
    high = max(high, low + 2)
    return Axis(title, 10.0**low, 10.0**high, [(10.0**k, _power(k)) for k in range(low, high + 1)], log=True)


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series], labels: bool = False) -> Markup:
    """Axes, a line and a dot for each series; with `labels`, names beside the dots."""
    parts = [*_frame(x, y)]
    taken: list[tuple[float, float, float]] = []
    for one in series:
        style = style_of(one.index)
        spots = [_at(x, y, point) for point in one.points]
        words = f"<title>{escape(one.name)}</title>"
        if spots:
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
            parts.append(f'<polyline class="{style}" points="{line}">{words}</polyline>')
        if one.dot is not None:
            a, b = _at(x, y, one.dot)
            parts.append(f'<circle class="{style}" cx="{a:.1f}" cy="{b:.1f}" r="4.5">{words}</circle>')
            if labels:
                parts.append(_label(one.name, a, b, taken))
    words = escape(title)
    return Markup(
        f'<svg class="plot" role="img" aria-label="{words}" viewBox="0 0 {WIDTH} {HEIGHT}"><title>{words}</title>'
        f"{''.join(parts)}</svg>"
    )


def _label(name: str, a: float, b: float, taken: list[tuple[float, float, float]]) -> str:
    """A name beside its dot, on the side with room, moved up or down past the names that are there already."""
    left = a > (WIDTH + LEFT) / 2
    anchor, x = ("end", a - 9) if left else ("start", a + 9)
    length = _LETTER * len(name)
    start, end = (x - length, x) if left else (x, x + length)
    base = min(b + 4, HEIGHT - BOTTOM - 4)
    steps = (base + sign * step for step in range(0, HEIGHT, 11) for sign in (-1, 1))
    inside = (y for y in steps if TOP < y < HEIGHT - BOTTOM)
    y = next((y for y in inside if all(abs(y - c) >= 11 or end < c0 or c1 < start for c0, c1, c in taken)), base)
    taken.append((start, end, y))
    return f'<text class="name" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(name)}</text>'


def _frame(x: Axis, y: Axis) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, label in x.ticks:
        at = _at(x, y, (value, y.low))[0]
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text text-anchor="middle" x="{at:.1f}" y="{bottom + 16}">{escape(label)}</text>')
    for value, label in y.ticks:
        at = _at(x, y, (x.low, value))[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text text-anchor="end" x="{LEFT - 7}" y="{at + 4:.1f}">{escape(label)}</text>')
    middle = (TOP + bottom) / 2
    parts += [
        f'<text text-anchor="middle" x="{(LEFT + right) / 2}" y="{HEIGHT - 8}">{escape(x.title)}</text>',
        f'<text text-anchor="middle" transform="translate(12 {middle}) rotate(-90)">{escape(y.title)}</text>',
    ]
    return parts


def _at(x: Axis, y: Axis, point: Point) -> Point:
    across, up = x.share(point[0]), y.share(point[1])
    return LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (1 - up) * (HEIGHT - TOP - BOTTOM)


def _power(exponent: int) -> str:
    """0.01, 0.1, 1, 10, 100; 10⁻⁶ and 10⁴ further out."""
    if -2 <= exponent <= 3:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
