"""Bars as inline SVG. Lengths are percentages, so that a bar fits a phone as well as a sheet of paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from irforge.runtime.report.times import Distribution, Latency, Window
from irforge.runtime.report.wording import milliseconds

_HEIGHT = 20
_PLOT = 72
_BINS = 48
_COLUMNS = 240


def latency_bar(times: Distribution, longest: float, colour: str) -> str:
    """Solid to p50, pale to p99, a notch at p90, a line with an end to the slowest call. `longest` fills the width."""
    p50, p90, p99, top = (_share(v, longest) for v in (times.p50, times.p90, times.p99, times.max))
    label = (
        f"p50 {milliseconds(times.p50)} ms, p90 {milliseconds(times.p90)}, "
        f"p99 {milliseconds(times.p99)}, max {milliseconds(times.max)}"
    )
    marks = [
        _rect(0, 100, 3, 14, "rail"),
        _rect(0, p99, 3, 14, f"{colour} tail"),
        _rect(0, p50, 3, 14, colour),
        _notch(p90, 3, 14, f"{colour} line"),
        _rect(p99, top - p99, 9.25, 1.5, f"{colour} line"),
        _notch(top, 5, 10, f"{colour} line"),
    ]
    return _svg(marks, label)


def stages(latency: Latency) -> list[tuple[str, Distribution]]:
    """The stages of a frame by name, in their order."""
    parts = [("prepare", latency.prepare), ("infer", latency.host), ("decode", latency.decode)]
    return [*parts, ("rescore", latency.rescore)] if latency.rescore else parts


def stage_bar(latency: Latency, longest: float) -> str:
    """A waterfall of the stages' mean times, each below and behind the one before; means, because only they add up."""
    parts = stages(latency)
    start, marks, words = 0.0, [_rect(0, 100, 3, 14, "rail")], []
    step = 14 / len(parts)
    for k, (name, times) in enumerate(parts):
        width = _share(times.mean, longest)
        marks.append(_rect(start, width, 3 + k * step, step, name))
        words.append(f"{name} {milliseconds(times.mean)} ms")
        start += width
    return _svg(marks, ", ".join(words))


def histogram(calls: Sequence[float], least: float, most: float, colour: str) -> str:
    """How many calls took how long, from `least` to `most` on a logarithmic scale: the slowest call is in it, too."""
    span = math.log(most / least) if most > least > 0 else 0.0
    counts = [0] * _BINS
    for call in calls:
        place = int(_BINS * math.log(max(call, least) / least) / span) if span else 0
        counts[min(place, _BINS - 1)] += 1
    width, tallest = 100 / _BINS, max(counts)
    marks = [_rect(0, 100, _PLOT - 1, 1, "rail")]
    for k, n in enumerate(counts):
        if n:
            # A single call among thousands still has to be seen.
            height = max((_PLOT - 2) * n / tallest, 2.0)
            marks.append(_rect(k * width, 0.85 * width, _PLOT - 1 - height, height, colour))
    label = f"{len(calls)} calls from {milliseconds(min(calls))} to {milliseconds(max(calls))} ms"
    return _svg(marks, label, _PLOT)


def series(calls: Sequence[float], most: float, colour: str) -> str:
    """Calls in their order, from left to right; where many share a column, it reaches from the quickest to the
    slowest."""
    per = max(1, math.ceil(len(calls) / _COLUMNS))
    columns = [calls[first : first + per] for first in range(0, len(calls), per)]
    width = 100 / len(columns)
    marks = [_rect(0, 100, _PLOT - 1, 1, "rail")]
    for k, column in enumerate(columns):
        top, bottom = _level(max(column), most), _level(min(column), most)
        marks.append(_rect(k * width, max(0.8 * width, 0.25), top, max(bottom - top, 2.0), colour))
    return _svg(marks, f"{len(calls)} calls in their order, the slowest {milliseconds(max(calls))} ms", _PLOT)


def windows(parts: Sequence[Window], most: float, colour: str) -> str:
    """A sustained run: a column a window, solid to p50, pale to p99, a notch at the slowest call."""
    width = 100 / len(parts)
    marks = [_rect(0, 100, _PLOT - 1, 1, "rail")]
    for k, part in enumerate(parts):
        p50, p99, top = (_level(value, most) for value in (part.p50, part.p99, part.max))
        x, wide = k * width, 0.85 * width
        marks += [
            _rect(x, wide, p99, _PLOT - 1 - p99, f"{colour} tail"),
            _rect(x, wide, p50, _PLOT - 1 - p50, colour),
            _rect(x, wide, top, 1.5, f"{colour} line"),
        ]
    label = f"{len(parts)} windows, p99 from {milliseconds(min(p.p99 for p in parts))} to "
    return _svg(marks, f"{label}{milliseconds(max(p.p99 for p in parts))} ms", _PLOT)


def _level(value: float, most: float) -> float:
    """Pixels from the top of a plot whose full height is `most`."""
    return (_PLOT - 2) * (1 - value / most) if most else _PLOT - 2


def _share(value: float, whole: float) -> float:
    return 100 * value / whole if whole else 0.0


def _rect(x: float, width: float, y: float, height: float, style: str) -> str:
    return f'<rect class="{style}" x="{x:.3f}%" y="{y}" width="{max(width, 0):.3f}%" height="{height}"/>'


def _notch(x: float, y: float, height: float, style: str) -> str:
    # Two pixels wide at any width, and inside the picture at both ends.
    return f'<rect class="{style}" x="{x:.3f}%" y="{y}" width="2" height="{height}" transform="translate(-1)"/>'


def _svg(marks: list[str], label: str, height: int = _HEIGHT) -> str:
    words = escape(label)
    return f'<svg role="img" aria-label="{words}" height="{height}"><title>{words}</title>{"".join(marks)}</svg>'
