"""What trtexec measured, as a section of a report's page, as a page of its own, and in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from irforge.runtime.report import charts
from irforge.runtime.report.markup import Cell, Markup, Row, element, heading, joined, table
from irforge.runtime.report.speed import PERCENTILES, distribution_cells
from irforge.runtime.report.wording import NOT_MEASURED, milliseconds, percent, plural
from irforge.runtime.trtexec import TrtexecRun

_LAYERS = 15
_NOTE = (
    "As trtexec wrote it, every run counted. Compute is the device's own clock, beside this report's GPU clock; "
    "latency adds the copies, which version 11 leaves out unless told otherwise, and 10 with --noDataTransfers."
)


def trtexec_section(runs: Sequence[TrtexecRun]) -> Markup:
    """Distributions, every run, and the slowest layers; nothing without a run."""
    parts: list[Markup] = []
    for run in runs:
        rows: list[Row] = [[clock, *distribution_cells(times)] for clock, times in run.clocks.items()]
        parts += [heading(run.name, "milliseconds"), table(["Clock", *PERCENTILES], rows)]
        least, most = min(run.calls), max(run.calls)
        pictures = (charts.histogram(run.calls, least, most, "fp32"), charts.series(run.calls, most, "fp32"))
        plots = "".join(f"<div>{picture}</div>" for picture in pictures)
        parts.append(
            Markup(f'<div class="card plots"><div class="plot"><span class="name">compute</span>{plots}</div></div>')
        )
        parts += [element("p", line, "note") for line in _remarks(run)]
        if run.layers:
            parts.append(_layers(run))
    return joined([*parts, element("p", _NOTE, "note")]) if parts else Markup("")


def _remarks(run: TrtexecRun) -> list[str]:
    lines = []
    if run.gap is not None:
        meaning = "the device waits between runs" if run.gap > 0 else "runs overlap"
        lines.append(
            f"From the end of one run's compute to the begin of the next: {run.gap:.3f} ms at the mean, {meaning}."
        )
    if run.types is not None:
        layers = sum(run.types.values())
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(run.types.items(), key=lambda item: -item[1]))
        lines.append(f"{plural(layers, 'layer')} by the type that they write: {kinds}.")
    return lines


def _layers(run: TrtexecRun) -> Markup:
    rows: list[Row] = [
        [
            Cell(layer.name, style="text"),
            milliseconds(layer.mean),
            milliseconds(layer.median) if layer.median is not None else NOT_MEASURED,
            percent(layer.share, 1),
        ]
        for layer in run.layers[:_LAYERS]
    ]
    rest = run.layers[_LAYERS:]
    if rest:
        share = percent(sum(layer.share for layer in rest), 1)
        rows.append([plural(len(rest), "other layer"), milliseconds(sum(l.mean for l in rest)), NOT_MEASURED, share])
    runs = f"over {plural(run.runs, 'run')}" if run.runs else ""
    return joined([heading("Where its time goes", runs), table(["Layer", "mean ms", "median ms", "Share"], rows)])


def print_trtexec(runs: Sequence[TrtexecRun], console: Console | None = None) -> None:
    """One table a run, and its slowest layers."""
    out = console or Console()
    for run in runs:
        shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
        shown.title, shown.title_style = f"trtexec, {run.name}, ms", "bold"
        for name in ("", *PERCENTILES):
            shown.add_column(name, justify="right" if name else "left", no_wrap=True)
        for clock, times in run.clocks.items():
            shown.add_row(clock, *distribution_cells(times))
        out.print(shown)
        for layer in run.layers[:5]:
            out.print(f" {percent(layer.share, 1):>7}  {milliseconds(layer.mean)} ms  {layer.name}", markup=False)
