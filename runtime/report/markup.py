"""Pieces of HTML. Text goes in as text and is escaped here; only what these functions return is markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from irforge.runtime.report.figures import BoxAccuracy, Check, MaskAccuracy
from irforge.runtime.report.schema import Model
from irforge.runtime.report.wording import NOT_MEASURED, UNITLESS, percent, precision_name, scientific, signed


class Markup(str):
    """Text that is HTML already."""


def text(value: object) -> Markup:
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def joined(parts: Iterable[str], between: str = "") -> Markup:
    return Markup(between.join(text(part) for part in parts))


@dataclass(frozen=True)
class Cell:
    """A table cell with a second, quieter line; `style` is a class of the style sheet."""

    value: str
    sub: str = ""
    style: str = ""

    def render(self, label: str) -> Markup:
        sub = f'<span class="sub">{text(self.sub)}</span>' if self.sub else ""
        style = f' class="{escape(self.style)}"' if self.style else ""
        # One element inside, so that a narrow screen can put the column's label beside it.
        return Markup(f'<td{style} data-label="{escape(label)}"><span>{text(self.value)}{sub}</span></td>')


Row = Sequence[str | Cell]


def table(headers: Sequence[str], rows: Iterable[Row]) -> Markup:
    """A table whose first column names the row; on a narrow screen each row becomes a list of label and value."""
    body: list[str] = []
    words: set[int] = set()
    for first, *rest in rows:
        lead = first.value if isinstance(first, Cell) else first
        cells = [c if isinstance(c, Cell) else Cell(c) for c in rest]
        words |= {k for k, cell in enumerate(cells, 1) if "text" in cell.style.split()}
        labelled = "".join(c.render(h) for c, h in zip(cells, headers[1:], strict=True))
        body.append(f'<tr><th scope="row">{text(lead)}</th>{labelled}</tr>')
    # A heading stands where what it heads does: words to the left, figures to the right.
    styles = (' class="text"' if k in words else "" for k in range(len(headers)))
    head = "".join(f'<th scope="col"{style}>{text(h)}</th>' for h, style in zip(headers, styles, strict=True))
    parts = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return Markup(f'<div class="card"><table class="stack">{parts}</table></div>')


def heading(title: str, aside: str = "") -> Markup:
    """A third-level heading with a quieter remark beside it."""
    return Markup(f'<h3>{text(title)} <span class="aside">{text(aside)}</span></h3>')


def definitions(items: Iterable[tuple[str, str]]) -> Markup:
    return Markup(f"<dl>{''.join(f'<dt>{text(k)}</dt><dd>{text(v)}</dd>' for k, v in items)}</dl>")


def element(tag: str, content: str, style: str = "") -> Markup:
    return Markup(f"<{tag}{f' class={chr(34)}{escape(style)}{chr(34)}' if style else ''}>{text(content)}</{tag}>")


def colour(model: Model) -> str:
    """The style sheet's class for a model's bars and keys."""
    return "torch" if model.role == "reference" else model.precision


def named(model: Model) -> Markup:
    """A model's colour key and name."""
    return Markup(f'<span class="key {colour(model)}"></span>{text(precision_name(model))}')


def verdict(passed: bool | None) -> Markup:
    if passed is None:
        return Markup(f'<span class="chip">{NOT_MEASURED}</span>')
    return Markup('<span class="chip pass">✓ pass</span>' if passed else '<span class="chip fail">✕ fail</span>')


def check_chip(check: Check) -> Markup:
    """One limit: its name, the value, and the limit it was held to."""
    small = check.unit in UNITLESS or (check.value is not None and 0 < abs(check.value) < 0.005)
    value = scientific(check.value) if small or check.value is None else signed(check.value).removeprefix("+")
    unit = "" if check.unit in UNITLESS else f" {check.unit}".rstrip()
    mark, style = ("✓", "pass") if check.passed else ("✕", "fail")
    words = f"{mark} {text(check.name)} <b>{text(value.removesuffix('.00') + unit)}</b> (limit {check.limit:g})"
    return Markup(f'<span class="chip {style}">{words}</span>')


def interval_cell(accuracy: MaskAccuracy | BoxAccuracy) -> Cell:
    """Pd above its interval."""
    low_high = accuracy.pd_interval
    return Cell(percent(accuracy.pd), f"{100 * low_high[0]:.1f} to {100 * low_high[1]:.1f}" if low_high else "")


def picture(png: str, label: str) -> Markup:
    """A PNG, base64, with its label below."""
    return Markup(f'<div><img alt="{escape(label)}" src="data:image/png;base64,{escape(png)}"/>{text(label)}</div>')
