"""The page's first half: what each precision did to the answers."""

from __future__ import annotations

from irforge.runtime.report.figures import Parity, TargetChange
from irforge.runtime.report.markup import (
    Markup,
    Row,
    check_chip,
    element,
    heading,
    joined,
    named,
    picture,
    table,
    text,
    verdict,
)
from irforge.runtime.report.schema import Model, Report
from irforge.runtime.report.views import VIEWS, View
from irforge.runtime.report.wording import (
    NOT_MEASURED,
    chosen_engine,
    count,
    milliseconds,
    plural,
    precision_name,
    quantity,
    ratio,
    size_name,
    size_text,
    tiles_text,
)

_COSTS = ("Parity", "p50 ms", "p99 ms", "Against FP32", "Kernels", "Moved", "Peak", "File")


def summary(report: Report) -> Markup:
    """One row a model: what it costs and what it gains."""
    view = VIEWS[report.output]
    headers = ["", *view.summary.headers, *_COSTS]
    parts = []
    for index, size in enumerate(report.sizes):
        models = report.at_size(size)
        base = next((m for m in models if m.role == "candidate" and m.precision == "fp32"), None)
        frames = max((m.accuracy.frames for m in models if m.accuracy), default=report.data.frames)
        leads = index == 0 and len(report.sizes) > 1 and models[0].tiles is None
        headline = "headline size, a thermal camera's, " if leads else ""
        tiles = models[0].tiles
        aside = f"{headline}{plural(frames, 'frame')}" + (f", {tiles_text(tiles)}" if tiles else "")
        parts += [
            heading(size_text(*size), aside),
            table(headers, (_summary_row(m, view, base, report.references) for m in models)),
        ]
    targets = dict.fromkeys(", ".join(plan.targets) for m in report.models if (plan := chosen_engine(m)))
    note = f"p50 and p99: one frame in, detections out, on {report.environment.cpu}. Data: {_frames(report)}."
    if targets:
        note += (
            f" Kernels, bytes moved and peak activation memory are a frame's, read from the plan compiled for SM"
            f" {' or '.join(targets)}; nothing was timed there."
        )
        if any(m.tiles for m in report.models):
            note += " Of frames in tiles they are a tile's."
    return joined([*parts, element("p", note, "note")])


def _frames(report: Report) -> str:
    data = report.data
    whole = f"all {count(data.frames)}" if data.frames == data.frames_in_split else count(data.frames)
    of = "" if data.frames == data.frames_in_split else f" of {count(data.frames_in_split)}"
    return f"{whole}{of} frames of {data.name}, split {data.split}"


def _summary_row(model: Model, view: View, base: Model | None, references: set[str]) -> Row:
    latency, plan = model.latency, chosen_engine(model)
    against = NOT_MEASURED
    if latency and base and base.latency and base is not model:
        against = ratio(latency.frame.p50, base.latency.frame.p50)
    passed = model.parity.passed if model.parity else None
    return [
        named(model),
        *view.summary.of(model.accuracy),
        "reference" if model.name in references else verdict(passed),
        milliseconds(latency.frame.p50) if latency else NOT_MEASURED,
        milliseconds(latency.frame.p99) if latency else NOT_MEASURED,
        against,
        count(plan.kernels if plan else None),
        quantity(plan.bytes_moved if plan else None),
        quantity(plan.peak_bytes if plan else None),
        quantity(model.file_bytes),
    ]


def accuracy(report: Report) -> Markup:
    intro = f"Measured on {_frames(report)}. All models of one size saw the same frames."
    parts = [element("p", intro)]
    for size in report.sizes:
        models = [m for m in report.at_size(size) if m.accuracy]
        if models:
            parts.append(heading(size_text(*size), models[0].protocol))
            for columns in VIEWS[report.output].accuracy:
                parts.append(table(["", *columns.headers], [[named(m), *columns.of(m)] for m in models]))
    return joined(parts)


def parity(report: Report) -> Markup:
    """Each candidate against the reference: the outputs, the metrics, and the limits they were held to."""
    view = VIEWS[report.output]
    parts = []
    for size in report.sizes:
        compared = [(m, m.parity) for m in report.at_size(size) if m.parity]
        if not compared:
            continue
        aside = f"against {compared[0][1].reference}, {plural(compared[0][1].frames, 'frame')}"
        rows = [[named(model), *view.parity.of(result)] for model, result in compared]
        parts += [heading(size_text(*size), aside), table(["", *view.parity.headers], rows)]
        parts += [_limits(m, result) for m, result in compared if result.checks]
    if not parts:
        return element("p", "Nothing was compared: there was no reference, or no truth.")
    return joined([*parts, element("p", view.parity_note, "note")])


def _limits(model: Model, result: Parity) -> Markup:
    chips = joined(check_chip(check) for check in result.checks)
    return Markup(f'<div class="limits"><span>{named(model)}</span><div class="chips">{chips}</div></div>')


def targets(report: Report) -> Markup:
    """Targets lost and gained, by size and one by one."""
    parts = []
    for size in report.sizes:
        compared = [(m, m.parity) for m in report.at_size(size) if m.parity and m.parity.by_size]
        if not compared:
            continue
        sizes = compared[0][1].by_size
        headers = ["", *(size_name(s.size_class) for s in sizes)]
        there = ", ".join(f"{count(s.targets)} of {size_name(s.size_class)}" for s in sizes)
        rows: list[Row] = [[named(m), *(f"{s.lost} lost, {s.gained} gained" for s in r.by_size)] for m, r in compared]
        parts += [heading(size_text(*size), f"in the data: {there}"), table(headers, rows)]
    if not parts:
        return Markup("")
    view = VIEWS[report.output]
    changes = [(m, c) for m in report.models if m.parity for c in m.parity.changes]
    pictures = [(m, c) for m, c in changes if c.crop]
    others = [(m, c) for m, c in changes if not c.crop]
    if not changes:
        parts.append(element("p", "No target was lost or gained by any candidate.", "note"))
    if pictures:
        parts.append(
            element("p", "The frame as the graph saw it, the truth, and both answers around each change.", "note")
        )
        parts.append(Markup(f'<div class="crops">{joined(_figure(m, c, view) for m, c in pictures)}</div>'))
    if others:
        lines = "\n".join(f"{_whose(m)}: {c.kind}, {_where(c, view)}" for m, c in others)
        title = f"{plural(len(others), 'change')} without a picture"
        parts.append(Markup(f"<details><summary>{title}</summary>{element('pre', lines)}</details>"))
    return joined(parts)


def _figure(model: Model, change: TargetChange, view: View) -> Markup:
    crop = change.crop
    assert crop is not None
    pictures = [(crop.frame, "frame"), (crop.truth, "truth"), (crop.reference, "reference"),
                (crop.candidate, precision_name(model))]  # fmt: skip
    row = joined(picture(png, label) for png, label in pictures)
    caption = f"{element('b', change.kind.capitalize())} by {text(_whose(model))}: {text(_where(change, view))}"
    return Markup(f'<figure><div class="row">{row}</div><figcaption>{caption}</figcaption></figure>')


def _whose(model: Model) -> str:
    return f"{precision_name(model)} at {size_text(model.height, model.width)}"


def _where(change: TargetChange, view: View) -> str:
    return (
        f"frame {change.frame}, row {change.row:.1f}, column {change.column:.1f}, "
        f"{change.area:g} {view.area}, {view.peak} {change.reference_peak:.2f} → {change.candidate_peak:.2f}"
    )
