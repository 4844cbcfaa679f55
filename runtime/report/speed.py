"""The page's tables and pictures of time: percentiles, spread, the first frame, minutes on end, batches, power."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from irforge.runtime.report import charts
from irforge.runtime.report.markup import Cell, Markup, Row, colour, element, heading, joined, named, table
from irforge.runtime.report.run_timing import RunTiming
from irforge.runtime.report.schema import Model, Report
from irforge.runtime.report.times import Distribution, Readings, Sustained
from irforge.runtime.report.wording import (
    NOT_MEASURED,
    count,
    milliseconds,
    per_second,
    percent,
    plural,
    quantity,
    signed,
    size_text,
)

PERCENTILES = ("Calls", "min", "mean", "p50", "p90", "p99", "max", "jitter")
_CLOCKS = (("frame", "frame to detections"), ("host", "host to host"), ("gpu", "GPU only"))


def distribution_cells(times: Distribution) -> list[str]:
    """Cells for `PERCENTILES`."""
    values = (times.min, times.mean, times.p50, times.p90, times.p99, times.max, times.jitter)
    return [count(times.n), *map(milliseconds, values)]


def percentiles(report: Report) -> Markup:
    """Every clock of every model as figures, in milliseconds."""
    parts = []
    for size in report.sizes:
        rows: list[Row] = []
        for model in report.at_size(size):
            clocks = [(title, getattr(model.latency, clock)) for clock, title in _CLOCKS] if model.latency else []
            rows += [
                [named(model), Cell(title, style="text"), *distribution_cells(times)]
                for title, times in clocks
                if times
            ]
        if rows:
            parts += [heading(size_text(*size), "milliseconds"), table(["", "Clock", *PERCENTILES], rows)]
    return joined(parts)


def spread(report: Report) -> Markup:
    """How the calls of the frame clock lie, as a histogram and in their order; not in reports before schema 1.2."""
    parts = []
    for size in report.sizes:
        called = [(m, m.latency.frame_calls) for m in report.at_size(size) if m.latency and m.latency.frame_calls]
        if not called:
            continue
        least, most = min(min(calls) for _, calls in called), max(max(calls) for _, calls in called)
        plots = [
            (model, (charts.histogram(calls, least, most, colour(model)), charts.series(calls, most, colour(model))))
            for model, calls in called
        ]
        note = (
            f"Left: how many calls took how long, from {milliseconds(least)} to {milliseconds(most)} ms, logarithmic. "
            f"Right: all calls in their order, from 0 to {milliseconds(most)} ms."
        )
        parts += [heading(f"{size_text(*size)}, every call", "frame to detections"), _plots(plots)]
        parts.append(element("p", note, "note"))
    return joined(parts)


def cold_start(report: Report) -> Markup:
    """From a file to the first detections, and what it takes of memory."""
    headers = ["", "Opening", "First frame", "p50 after that", "Resident before", "after", "at the end", "GPU memory"]
    rows: list[Row] = []
    for model in report.models:
        if model.start is None:
            continue
        start, memory = model.start, model.memory
        grown = _difference(memory.gpu_before, memory.gpu_after) if memory else None
        rows.append(
            [
                _title(model),
                Cell(milliseconds(start.opening), f"with {', '.join(start.loaded)}" if start.loaded else ""),
                milliseconds(start.first_frame),
                milliseconds(model.latency.frame.p50) if model.latency else NOT_MEASURED,
                quantity(memory.before if memory else None),
                quantity(memory.after if memory else None),
                quantity(memory.end if memory else None),
                quantity(grown),
            ]
        )
    if not rows:
        return Markup("")
    note = (
        "Milliseconds. Opening: from the file, which may lie in the system's cache, to a session that is ready; a "
        "library that had to be loaded for it is named. Resident: memory of the whole process before the model was "
        "opened, after its first frame, and after the clocks of all models of its size, which are open side by side. "
        "GPU memory: what it grew by, whoever took it."
    )
    return joined([table(headers, rows), element("p", note, "note")])


def sustained(report: Report) -> Markup:
    """Minutes on end: whether p99 holds."""
    run = [(m, m.sustained) for m in report.models if m.sustained]
    if not run:
        return element(
            "p", "Not run: 'irforge bench ... --sustained 300' keeps each model busy for five minutes.", "note"
        )
    headers = [
        "",
        "Seconds",
        "Frames a second",
        "p50",
        "p99",
        "max",
        "jitter",
        "p50 drift",
        "p99 drift",
        "Memory",
        "J / frame",
    ]
    rows: list[Row] = []
    for model, kept in run:
        times = kept.frame
        rows.append(
            [
                _title(model),
                f"{kept.seconds:.0f}",
                per_second(kept.frames_per_second),
                *map(milliseconds, (times.p50, times.p99, times.max, times.jitter)),
                _drift(kept.p50_drift),
                _drift(kept.p99_drift),
                _growth(kept),
                _energy(kept),
            ]
        )
    shapes = [(model, [charts.windows(kept.windows, kept.frame.max, colour(model))]) for model, kept in run]
    least = min(window.n for _, kept in run for window in kept.windows)
    few = f" A window holds as few as {plural(least, 'frame')}: its p99 is then its slowest." if least < 100 else ""
    note = (
        "One model alone, frame after frame without a pause; nothing is clipped. Columns: a window of time each, solid "
        "to p50, pale to p99, a line at the slowest call. Drift: the median over the last third of the windows by that "
        f"over the first. Memory: resident, last window less first.{few}"
    )
    aside = "windows of time; each model up to its own slowest call"
    parts = [table(headers, rows), heading("p50 and p99 over time", aside), _plots(shapes), element("p", note, "note")]
    for model, kept in run:
        if kept.readings:
            parts += [_title(model), _readings(kept.readings)]
    return joined(parts)


def batches(report: Report) -> Markup:
    """Throughput against latency, where the batch is free."""
    headers = ["", "Batch", "Frames a second", "p50 of a run", "p99 of a run", "Session p50", "Against batch 1"]
    rows: list[Row] = []
    for model in report.models:
        name = _title(model)
        alone = next((point.frames_per_second for point in model.batches if point.batch == 1), None)
        for point in model.batches:
            gain = f"{point.frames_per_second / alone:.2f}× the frames" if alone else NOT_MEASURED
            run, host = point.run, point.host
            times = map(milliseconds, (run.p50, run.p99, host.p50))
            rows.append([name, str(point.batch), per_second(point.frames_per_second), *times, gain])
    parts = [table(headers, rows)] if rows else []
    notes = [f"{m.name}, {size_text(m.height, m.width)}: {m.batch_note}." for m in report.models if m.batch_note]
    parts += [element("p", note, "note") for note in dict.fromkeys(notes)]
    if not parts:
        return element("p", "Not swept: 'irforge bench ... --batches 1,2,4,8' tries them.", "note")
    return joined(parts)


def power(report: Report) -> Markup:
    """What was read of clocks, power and temperature beside the clocks, and what reading took."""
    parts = [_readings(report.readings)] if report.readings else []
    if report.readings_note:
        parts.append(element("p", f"Not read: {report.readings_note}.", "note"))
    return joined(parts)


def age(runs: Sequence[RunTiming]) -> Markup:
    """The fourth clock, of runs on live sources."""
    title = heading("Age of a detection", "from a frame's capture to its detections, on a live source")
    if not runs:
        words = (
            "Not in a bench, whose frames lie in memory: nobody captured them. 'irforge run MODEL camera:0 --timing "
            "run.json' takes this clock, and 'irforge report report.json run.json' shows it here."
        )
        return joined([title, element("p", words, "note")])
    headers = ["Run", *PERCENTILES, "Frames a second", "Dropped"]
    rows: list[Row] = [
        [
            ", ".join(run.sources),
            *distribution_cells(run.age),
            per_second(run.frames_per_second),
            f"{count(run.dropped)} of {count(run.read)}",
        ]
        for run in runs
        if run.age
    ]
    parts = [title, table(headers, rows)] if rows else [title]
    parts += [element("p", f"{', '.join(run.sources)}: {run.age_note}.", "note") for run in runs if not run.age]
    lines = [f"{run.date.replace('T', ' ')} {run.detector}, {run.policy}: {run.command}" for run in runs]
    return joined([*parts, element("pre", "\n".join(lines))])


def _readings(readings: Iterable[Readings]) -> Markup:
    parts = []
    for one in readings:
        mode = f", power mode {one.power_mode}" if one.power_mode else ""
        rows: list[Row] = [
            [f"{r.name}, {r.unit}", f"{r.mean:.1f}", f"{r.min:.1f}", f"{r.max:.1f}"] for r in one.readings
        ]
        cost = (
            f"{plural(one.samples, 'look')}, one every {one.interval:g} s; a look took {milliseconds(one.cost_ms)} ms, "
            f"all of them {percent(one.cost_share)} of a core."
        )
        parts += [
            heading(f"{one.source}{mode}", one.during),
            table(["", "mean", "min", "max"], rows),
            element("p", cost, "note"),
        ]
    return joined(parts)


def _plots(plots: Iterable[tuple[Model, Sequence[str]]]) -> Markup:
    rows = []
    for model, pictures in plots:
        cells = "".join(f"<div>{picture}</div>" for picture in pictures)
        rows.append(f'<div class="plot"><span class="name">{named(model)}</span>{cells}</div>')
    return Markup(f'<div class="card plots">{"".join(rows)}</div>')


def _title(model: Model) -> Markup:
    return joined([named(model), size_text(model.height, model.width)], " ")


def _drift(share: float | None) -> str:
    return NOT_MEASURED if share is None else f"{signed(100 * share, 1)} %"


def _growth(kept: Sustained) -> str:
    grown = _difference(kept.windows[0].resident_bytes, kept.windows[-1].resident_bytes)
    return NOT_MEASURED if grown is None else f"{signed(grown / 1e6, 1)} MB"


def _energy(kept: Sustained) -> str:
    """Of the whole board or module where it tells: NVML's board, a Jetson module's input."""
    watts = next(
        (r.mean for one in kept.readings for r in one.readings if r.unit == "W" and r.name in ("GPU power", "VDD_IN")),
        None,
    )
    return NOT_MEASURED if watts is None else f"{watts / kept.frames_per_second:.3f}"


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
