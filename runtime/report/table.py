"""The report's summary for a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from irforge.runtime.report.schema import Model, Report
from irforge.runtime.report.views import VIEWS, View
from irforge.runtime.report.wording import (
    NOT_MEASURED,
    chosen_engine,
    count,
    milliseconds,
    per_second,
    plural,
    precision_name,
    ratio,
    signed,
    size_text,
    tiles_text,
)

_COLOURS = {"bad": "red", "caution": "yellow", "good": "green", "note": "cyan"}
_MARKS = {"bad": "✕", "caution": "!", "good": "✓", "note": "i"}


def print_report(report: Report, console: Console | None = None) -> None:
    """Print one table a size, then the findings."""
    out = console or Console()
    for size in report.sizes:
        out.print(summary_table(report, size))
    for line in (line for model in report.models for line in _lasting(model)):
        out.print(line, soft_wrap=True, highlight=False)
    for finding in report.findings:
        mark = Text(f" {_MARKS[finding.level]} ", style=_COLOURS[finding.level])
        out.print(mark.append(finding.text, style="default"), soft_wrap=True)


def _lasting(model: Model) -> list[str]:
    """How the model held out over minutes, and what batches gain, where that was measured."""
    name = f" {precision_name(model)}, {size_text(model.height, model.width)}"
    lines = []
    kept = model.sustained
    if kept:
        drift = "" if kept.p99_drift is None else f", which drifted by {signed(100 * kept.p99_drift, 1)} %"
        lines.append(
            f"{name}: {kept.seconds:.0f} s without a pause at {per_second(kept.frames_per_second)} frames a second, "
            f"p99 {milliseconds(kept.frame.p99)} ms{drift}"
        )
    if model.batches:
        points = (
            f"{per_second(p.frames_per_second)} at {p.batch} ({milliseconds(p.run.p50)} ms)" for p in model.batches
        )
        lines.append(f"{name}: frames a second by batch, and a run's p50: {', '.join(points)}")
    if model.batch_note:
        lines.append(f"{name}: {model.batch_note}")
    return lines


def summary_table(report: Report, size: tuple[int, int]) -> Table:
    """The models of one size, a row each."""
    models = report.at_size(size)
    base = next((m for m in models if m.role == "candidate" and m.precision == "fp32"), None)
    # Eighty columns are all that a log or a serial console has: units stand in the caption.
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    table.title, table.title_style = f"{report.detector} {size_text(*size)}", "bold"
    tiles = models[0].tiles
    cut = f"{tiles_text(tiles).capitalize()}: times are of whole frames. " if tiles else ""
    table.add_column("", overflow="fold")
    view = VIEWS[report.output]
    for name in (*view.terminal.headers, "Parity", "p50", "p99", "Against", "Kern.", "Moved"):
        table.add_column(name, justify="right", no_wrap=True)
    for model in models:
        table.add_row(*_row(model, view, base, report.references))
    data = report.data
    table.caption = (
        f"{data.name}:{data.split}, {plural(data.frames, 'frame')}. {cut}{view.legend} "
        "p50, p99: ms, frame to detections. Against: FP32. Kernels and MB moved per frame: from the compiled plan."
    )
    table.caption_justify = "left"
    return table


def _row(model: Model, view: View, base: Model | None, references: set[str]) -> list[str | Text]:
    latency, plan = model.latency, chosen_engine(model)
    against = NOT_MEASURED
    if latency and base and base.latency and base is not model:
        against = ratio(latency.frame.p50, base.latency.frame.p50)
    parity = Text("base" if model.name in references else NOT_MEASURED, style="dim")
    if model.parity:
        parity = Text("pass", style="green") if model.parity.passed else Text("fail", style="bold red")
    return [
        precision_name(model),
        *map(str, view.terminal.of(model.accuracy)),
        parity,
        milliseconds(latency.frame.p50) if latency else NOT_MEASURED,
        milliseconds(latency.frame.p99) if latency else NOT_MEASURED,
        against,
        count(plan.kernels if plan else None),
        f"{plan.bytes_moved / 1e6:.1f}" if plan and plan.bytes_moved else NOT_MEASURED,
    ]
