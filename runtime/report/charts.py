"""Bars as inline SVG. Lengths are percentages, so that a bar fits a phone as well as a sheet of paper."""

from __future__ import annotations

from html import escape

from irforge.runtime.report.schema import Distribution, Latency
from irforge.runtime.report.wording import milliseconds

_HEIGHT = 20


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


def stage_bar(latency: Latency, longest: float) -> str:
    """Mean times of prepare, infer and decode, end to end; means, because only they add up."""
    start, marks, words = 0.0, [_rect(0, 100, 3, 14, "rail")], []
    for name, times in (("prepare", latency.prepare), ("infer", latency.host), ("decode", latency.decode)):
        mean = times.mean
        width = _share(mean, longest)
        marks.append(_rect(start, width, 3, 14, name))
        words.append(f"{name} {milliseconds(mean)} ms")
        start += width
    return _svg(marks, ", ".join(words))


def _share(value: float, whole: float) -> float:
    return 100 * value / whole if whole else 0.0


def _rect(x: float, width: float, y: float, height: float, style: str) -> str:
    return f'<rect class="{style}" x="{x:.3f}%" y="{y}" width="{max(width, 0):.3f}%" height="{height}"/>'


def _notch(x: float, y: float, height: float, style: str) -> str:
    # Two pixels wide at any width, and inside the picture at both ends.
    return f'<rect class="{style}" x="{x:.3f}%" y="{y}" width="2" height="{height}" transform="translate(-1)"/>'


def _svg(marks: list[str], label: str) -> str:
    words = escape(label)
    return f'<svg role="img" aria-label="{words}" height="{_HEIGHT}"><title>{words}</title>{"".join(marks)}</svg>'
