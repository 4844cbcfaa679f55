"""A page with what INT8 loses and adds, place by place: a table, and a crop of the frame for each event."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from irforge import files
from irforge.calib.costs import Cost, Costs, Event
from irforge.calib.frames import open_frames
from irforge.datasets import Sample
from irforge.frames import to_gray
from irforge.runtime.comparison.page import document
from irforge.runtime.report.markup import Markup, Row, element, joined, table, text
from irforge.runtime.report.pictures import neighbourhood_png
from irforge.runtime.report.wording import plural

RADIUS = 16
"""Half the side of a crop, in pixels."""
CROPS = 12
"""Crops of one place, at most."""
_SIDE = 2 * RADIUS + 1
_WORDS = {"lost": "lost", "alarm": "new alarm"}


def write_crops(path: str | os.PathLike[str], costs: Costs, data_root: Path | None = None) -> None:
    """Write the page.

    Raises:
        InputError: the frames that the costs were measured on are gone.
    """
    samples = {sample.id: sample for sample in open_frames(costs.source, data_root)}
    files.write_text(path, render(costs, samples))


def render(costs: Costs, samples: dict[str, Sample]) -> str:
    """The page's HTML; `samples` by id, those that `costs` was measured on."""
    ranked = sorted(costs.places, key=lambda place: (-place.loss, -place.difference))
    title = f"What INT8 costs {costs.model}"
    what = "Detections of the FP32 model" if costs.truth == "none" else f"Targets (by {costs.truth})"
    lede = (
        f"{plural(costs.frames, 'frame')} of {costs.source}. {what} that are lost and alarms that are new, in 100"
        " frames, when one place alone is in INT8 and all else in FP32; and when all are."
    )
    rows = [_row("everywhere", sum(place.share for place in costs.places), costs.together)]
    if costs.search:
        name = f"everywhere but in {plural(len(costs.search.kept), 'convolution')}, as searched"
        share = sum(place.share for place in costs.places) - costs.search.share
        rows.append(_row(name, share, costs.search.cost))
    rows += [_row(", ".join(place.weights), place.share, place) for place in ranked]
    headers = ["INT8 in", "of the MACs", "Lost", "New alarms", "Difference", "Crossing the threshold"]
    places: list[tuple[str, Cost]] = [("everywhere", costs.together)]
    places += [(", ".join(place.weights), place) for place in ranked]
    parts = [element("h1", title), element("p", lede, "lede"), table(headers, rows)]
    parts += [_crops(name, cost, samples) for name, cost in places if cost.events]
    return document(title, joined(parts, "\n"))


def _row(name: str, share: float, cost: Cost) -> Row:
    return [
        name,
        f"{share:.2%}",
        f"{cost.lost:.1f}",
        f"{cost.alarms:.1f}",
        f"{cost.difference:.3f}",
        f"{cost.crossed:.1f}",
    ]


def _crops(name: str, cost: Cost, samples: dict[str, Sample]) -> Markup:
    shown: Sequence[Event] = cost.events[:CROPS]
    more = f"; the first {len(shown)}" if len(cost.events) > len(shown) else ""
    title = f"{element('b', name)}: {cost.lost:.1f} lost and {cost.alarms:.1f} new alarms in 100 frames{text(more)}"
    views = joined(_crop(event, samples[event.frame]) for event in shown)
    return Markup(
        f'<figure class="frame-row"><figcaption>{title}</figcaption><div class="views">{views}</div></figure>'
    )


def _crop(event: Event, sample: Sample) -> Markup:
    x0, y0, x1, y1 = event.box
    column, row = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
    picture = neighbourhood_png(to_gray(sample.frame()), row, column, radius=RADIUS, stretch=True)
    left, top = x0 - round(column) + RADIUS - 1.5, y0 - round(row) + RADIUS - 1.5
    style = "right" if event.kind == "lost" else "false"
    words = f"{_WORDS[event.kind]}, score {event.score:.2f}"
    return Markup(
        f'<div><svg role="img" aria-label="{escape(f"{event.frame}: {words}")}" viewBox="0 0 {_SIDE} {_SIDE}">'
        f'<image width="{_SIDE}" height="{_SIDE}" href="data:image/png;base64,{picture}"/>'
        f'<rect class="{style}" x="{left:g}" y="{top:g}" width="{x1 - x0 + 3:g}" height="{y1 - y0 + 3:g}"/></svg>'
        f"{element('b', event.frame)}{text(words)}</div>"
    )
