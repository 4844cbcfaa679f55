"""What a page and a table show of each kind of output; everything else they show is common to all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irforge.runtime.report import box_view, mask_view
from irforge.runtime.report.figures import OutputKind
from irforge.runtime.report.markup import Cell, Row
from irforge.runtime.report.wording import NOT_MEASURED


@dataclass(frozen=True)
class Columns:
    """Headers, and a row's cells from what it is a row of."""

    headers: Sequence[str]
    cells: Callable[[Any], Sequence[str | Cell]]

    def of(self, part: object | None) -> Row:
        """The cells, or as many dashes where there is nothing to show."""
        return [NOT_MEASURED] * len(self.headers) if part is None else self.cells(part)


@dataclass(frozen=True)
class View:
    """What is particular to one kind of output.

    summary, terminal: columns of the first table, of an accuracy. accuracy: tables, of a model. parity: of a parity.
    legend, parity_note, reading: what the columns mean. change: a parity in a few words. moves: what INT8 in one place
    does, as `irforge quantize` noted it. area, peak: what a changed target's area and peak are.
    """

    summary: Columns
    terminal: Columns
    legend: str
    accuracy: Sequence[Columns]
    parity: Columns
    parity_note: str
    reading: str
    change: Callable[[Any], str]
    moves: Callable[[Mapping[str, Any]], str]
    area: str
    peak: str


VIEWS: Mapping[OutputKind, View] = {
    "mask": View(
        summary=Columns(mask_view.SUMMARY, mask_view.summary),
        terminal=Columns(mask_view.TERMINAL, mask_view.terminal),
        legend=mask_view.LEGEND,
        accuracy=[Columns(mask_view.ACCURACY, mask_view.accuracy)],
        parity=Columns(mask_view.PARITY, mask_view.parity),
        parity_note=mask_view.PARITY_NOTE,
        reading=mask_view.READING,
        change=mask_view.change,
        moves=mask_view.moves,
        area="px",
        peak="peak",
    ),
    "boxes": View(
        summary=Columns(box_view.SUMMARY, box_view.summary),
        terminal=Columns(box_view.TERMINAL, box_view.terminal),
        legend=box_view.LEGEND,
        accuracy=[
            Columns(box_view.AT_THRESHOLD, box_view.at_threshold),
            Columns(box_view.OVER_SCORES, box_view.over_scores),
        ],
        parity=Columns(box_view.PARITY, box_view.parity),
        parity_note=box_view.PARITY_NOTE,
        reading=box_view.READING,
        change=box_view.change,
        moves=box_view.moves,
        area="px²",
        peak="score",
    ),
}
