"""A comparison for a terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from irforge.runtime.comparison.entry import OWN_SIZE
from irforge.runtime.comparison.schema import Comparison, Contestant
from irforge.runtime.comparison.wording import frames_text, giga, mega, rate
from irforge.runtime.report.wording import NOT_MEASURED, count, milliseconds

_COLOURS = {"bad": "red", "caution": "yellow", "good": "green", "note": "cyan"}
_MARKS = {"bad": "✕", "caution": "!", "good": "✓", "note": "i"}

COLUMNS: dict[str, Callable[[Contestant], object]] = {
    "model": lambda one: one.name,
    "detector": lambda one: one.detector,
    "output": lambda one: one.output,
    "precision": lambda one: one.precision,
    "backend": lambda one: one.backend,
    "device": lambda one: one.device,
    "fit": lambda one: one.fit,
    "threshold": lambda one: one.threshold,
    "frames": lambda one: one.objects.frames,
    "targets": lambda one: one.objects.targets,
    "iou": lambda one: one.mask and one.mask.iou,
    "niou": lambda one: one.mask and one.mask.niou,
    "mask_pd": lambda one: one.mask and one.mask.pd,
    "fa": lambda one: one.mask and one.mask.fa,
    "iou_at_model": lambda one: one.mask_at_model and one.mask_at_model.iou,
    "niou_at_model": lambda one: one.mask_at_model and one.mask_at_model.niou,
    "pd_3px": lambda one: one.objects.pd,
    "precision_3px": lambda one: one.objects.centre.precision,
    "f1_3px": lambda one: one.objects.centre.f1,
    "recall_iou50": lambda one: one.objects.iou50.recall,
    "precision_iou50": lambda one: one.objects.iou50.precision,
    "f1_iou50": lambda one: one.objects.iou50.f1,
    "ap50": lambda one: one.objects.ap50,
    "mnocoap": lambda one: one.objects.nocoap,
    "mnocoap_legacy": lambda one: one.objects.nocoap_legacy,
    "false_per_frame": lambda one: one.objects.false_per_frame,
    "false_per_hour": lambda one: one.objects.false_per_hour,
    "alarms_per_hour_target_free": lambda one: one.objects.alarms and one.objects.alarms.per_hour,
    "parameters": lambda one: one.parameters,
    "macs": lambda one: one.macs,
    "macs_height": lambda one: one.macs_size and one.macs_size[0],
    "macs_width": lambda one: one.macs_size and one.macs_size[1],
    "kernels": lambda one: one.engine and one.engine.kernels,
    "bytes_moved": lambda one: one.engine and one.engine.bytes_moved,
    "p50_ms": lambda one: one.timing and one.timing.frame.p50,
    "p99_ms": lambda one: one.timing and one.timing.frame.p99,
    "timed_in_turns": lambda one: one.timing and one.timing.interleaved,
    "file_bytes": lambda one: one.file_bytes,
    "sha256": lambda one: one.sha256,
    "missing": lambda one: "; ".join(f"{name}: {reason}" for name, reason in one.missing.items()),
}
"""Of the CSV: a row a model. Rates are 0..1; what a model cannot give is empty, and `missing` says why."""


def as_csv(comparison: Comparison) -> str:
    """All figures of all contestants."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in comparison.contestants:
        values = [value(one) for value in COLUMNS.values()]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print accuracy, then cost, then the findings."""
    out = console or Console()
    out.print(_accuracy(comparison))
    out.print()
    out.print(_cost(comparison))
    out.print()
    fits = dict.fromkeys(one.fit for one in comparison.contestants)
    for fit in fits:
        names = ", ".join(one.name for one in comparison.contestants if one.fit == fit)
        out.print(f"Frames {'at their ' if fit == OWN_SIZE else ''}{fit}: {names}", soft_wrap=True, highlight=False)
    for finding in comparison.findings:
        mark = Text(f" {_MARKS[finding.level]} ", style=_COLOURS[finding.level])
        out.print(mark.append(finding.text, style="default"), soft_wrap=True)


def _accuracy(comparison: Comparison) -> Table:
    # Eighty columns are all that a log or a serial console has: units stand in the caption.
    table = _table("Accuracy", ("IoU", "nIoU", "Pd", "F1", "F1.5", "AP50", "NoCo", "leg.", "False"))
    for one in comparison.contestants:
        found, mask = one.objects, one.mask
        table.add_row(
            one.name,
            rate(mask.iou if mask else None),
            rate(mask.niou if mask else None),
            rate(found.pd),
            rate(found.centre.f1),
            rate(found.iou50.f1),
            rate(found.ap50),
            rate(found.nocoap),
            rate(found.nocoap_legacy),
            f"{found.false_per_frame:.2f}",
        )
    table.caption = (
        f"{frames_text(comparison)}. In %, in frame pixels. Pd, F1, False (a frame): centres within 3 px. F1.5: at IoU "
        "0.5. NoCo, leg.: mNoCoAP, and as its published code takes points."
    )
    return table


def _cost(comparison: Comparison) -> Table:
    table = _table("Cost", ("Param.", "GMAC", "Kern.", "MB", "p50", "p99", "Clock"))
    for one in comparison.contestants:
        engine, timing = one.engine, one.timing
        table.add_row(
            one.name,
            mega(one.parameters),
            giga(one.macs),
            count(engine.kernels if engine else None),
            f"{engine.bytes_moved / 1e6:.0f}" if engine and engine.bytes_moved else NOT_MEASURED,
            milliseconds(timing.frame.p50) if timing else NOT_MEASURED,
            milliseconds(timing.frame.p99) if timing else NOT_MEASURED,
            {True: "turns", False: "alone"}[timing.interleaved] if timing else NOT_MEASURED,
        )
    here = comparison.environment
    table.caption = (
        f"Param.: millions. GMAC, kernels, MB moved: a frame's; the last two from compiled plans. p50, p99: ms, frame "
        f"to detections, {here.threads} thread{'s' if here.threads > 1 else ''} of {here.cpu}."
    )
    return table


def _table(title: str, headers: tuple[str, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    table.title, table.title_style, table.caption_justify = title, "bold", "left"
    table.add_column("", overflow="fold")
    for name in headers:
        table.add_column(name, justify="right", no_wrap=True)
    return table
