"""The page's second half: what each precision costs in time, memory and traffic."""

from __future__ import annotations

from typing import Any

from irforge.runtime.report import charts
from irforge.runtime.report.markup import Cell, Markup, Row, colour, element, heading, joined, named, table
from irforge.runtime.report.schema import EngineFacts, Latency, Model, Report
from irforge.runtime.report.views import VIEWS
from irforge.runtime.report.wording import (
    NOT_MEASURED,
    count,
    milliseconds,
    percent,
    plural,
    quantity,
    size_text,
    tiles_text,
)

CLOCKS = (
    ("frame", "Frame to detections", "prepare, infer and decode: what a pipeline waits for"),
    ("host", "Host to host", "the bare session: tensor in, tensor out"),
    ("gpu", "GPU only", "the device's own clock"),
)
STAGES = ("prepare", "infer", "decode", "rescore")


def latency(report: Report) -> Markup:
    timed = [(m, m.latency) for m in report.models if m.latency]
    if not timed:
        return element("p", "Not measured.")
    intro = (
        f"One frame at a time, {plural(timed[0][1].threads, 'thread')}. The models of one size take turns, so that a "
        "disturbance strikes all alike. Every call counts, none is clipped."
    )
    legend = (
        "Figures: p50 · p90 · p99 · max, then jitter (p99 − p50). "
        "Bars: solid to p50, notch at p90, pale to p99, a line to the slowest call."
    )
    parts = [element("p", intro), element("p", legend, "note")]
    for size in report.sizes:
        here = [(m, m.latency) for m in report.at_size(size) if m.latency]
        if here and (tiles := here[0][0].tiles):
            parts.append(element("p", f"At {size_text(*size)}, times of whole frames: {tiles_text(tiles)}.", "note"))
        parts += [_clock(here, clock, f"{size_text(*size)}, {title}", meaning) for clock, title, meaning in CLOCKS]
        if here:
            parts.append(element("p", _schedule(here[0][1]), "note"))
    notes = sorted({times.gpu_note for _, times in timed if times.gpu_note})
    parts += [element("p", f"No GPU clock: {note}.", "note") for note in notes]
    return joined([*parts, _stages(report)])


def _schedule(times: Latency) -> str:
    calls = times.rounds * times.frames_per_round
    rounds, frames = plural(times.rounds, "round"), plural(times.frames_per_round, "frame")
    few = " With fewer than 100 calls p99 is the slowest one." if calls < 100 else ""
    return f"{plural(calls, 'call')} a model: {rounds} of {frames}, after {times.warm_up} of warm-up.{few}"


def _clock(models: list[tuple[Model, Latency]], clock: str, title: str, meaning: str) -> Markup:
    rows = [(model, getattr(times, clock)) for model, times in models if getattr(times, clock) is not None]
    if not rows:
        return Markup("")
    longest = max(times.max for _, times in rows)
    bars = []
    for model, times in rows:
        p50, *rest = (milliseconds(v) for v in (times.p50, times.p90, times.p99, times.max))
        figures = f"<b>{p50}</b> · {' · '.join(rest)} ms, {milliseconds(times.jitter)}"
        bars.append(_bar(model, charts.latency_bar(times, longest, colour(model)), figures))
    return joined([heading(title, meaning), _bars(bars)])


def _stages(report: Report) -> Markup:
    used = {name for m in report.models if m.latency for name, _ in charts.stages(m.latency)}
    keys = "".join(f'<span><span class="key {stage}"></span>{stage}</span>' for stage in STAGES if stage in used)
    parts = [
        heading("Where the time goes", "mean times, because only means add up"),
        Markup(f'<div class="legend">{keys}</div>'),
    ]
    for size in report.sizes:
        here = [
            (m, [(name, t.mean) for name, t in charts.stages(m.latency)], m.latency)
            for m in report.at_size(size)
            if m.latency
        ]
        longest = max((sum(mean for _, mean in means) for _, means, _ in here), default=0)
        bars = []
        for model, means, times in here:
            words = [f"<b>{milliseconds(v)}</b>" if name == "infer" else milliseconds(v) for name, v in means]
            bars.append(_bar(model, charts.stage_bar(times, longest), f"{' + '.join(words)} ms"))
        if bars:
            parts += [heading(size_text(*size)), _bars(bars)]
    return joined(parts)


def _bar(model: Model, svg: str, figures: str) -> str:
    return f'<span class="name">{named(model)}</span>{svg}<span class="figures">{figures}</span>'


def _bars(bars: list[str]) -> Markup:
    return Markup(f'<div class="card"><div class="bars">{"".join(bars)}</div></div>')


def engines(report: Report) -> Markup:
    """What the compiled plans say, for each group of GPUs that share one."""
    headers = ["", "Kernels", "Convolutions read", "and write", "Moved / frame", "Peak memory", "Weights", "Engine"]
    parts = []
    for model in report.models:
        if not model.engines:
            continue
        title = joined([named(model), size_text(model.height, model.width)], " ")
        parts += [heading(title, model.name), table(headers, map(_engine_row, model.engines))]
        notes = dict.fromkeys(f"{plan.file}: {note}." for plan in model.engines for note in plan.notes)
        parts += [element("p", note, "note") for note in notes]
    if not parts:
        return element("p", "No engine built from these files lies beside them: 'irforge build' compiles one.")
    note = (
        "Reads and writes are shares of the convolutions' multiply-accumulates by type. Bytes moved count "
        "every tensor that a kernel names as if it came from memory; peak memory is what one execution holds."
    )
    if any(model.tiles for model in report.models):
        note += " Where frames are cut into tiles, “frame” is a tile here."
    return joined([*parts, element("p", note, "note")])


def _engine_row(plan: EngineFacts) -> Row:
    weights = ", ".join(f"{quantity(n)} {kind}" for kind, n in sorted(plan.weight_bytes.items()))
    return [
        f"SM {', '.join(plan.targets)}",
        count(plan.kernels),
        Cell(plan.reads or NOT_MEASURED, style="text"),
        Cell(plan.writes or NOT_MEASURED, style="text"),
        quantity(plan.bytes_moved),
        quantity(plan.peak_bytes),
        Cell(weights or NOT_MEASURED, style="text"),
        Cell(quantity(plan.file_bytes), plan.file),
    ]


def exceptions(report: Report) -> Markup:
    """What the INT8 files compute otherwise: convolutions with a measured cost one by one, the others by reason."""
    headers = ["Convolution", "Of all MACs", "Why it is not INT8", "INT8 there alone"]
    parts = []
    for model in report.models:
        kept = _kept(model)
        if not kept:
            continue
        priced = [entry for entry in kept if "crossed" in entry]
        rows: list[Row] = [
            [
                entry["weight"],
                percent(entry["share"]),
                Cell(entry["reason"], style="text"),
                Cell(VIEWS[report.output].moves(entry), style="text"),
            ]
            for entry in sorted(priced, key=lambda entry: -entry["share"])
        ]
        for reason in dict.fromkeys(entry["reason"] for entry in kept if entry not in priced):
            alike = [entry for entry in kept if entry["reason"] == reason and entry not in priced]
            share = percent(sum(entry["share"] for entry in alike))
            rows.append([plural(len(alike), "convolution"), share, Cell(reason, style="text"), NOT_MEASURED])
        title = joined([named(model), size_text(model.height, model.width)], " ")
        parts += [heading(title, model.name), table(headers, rows)]
    return joined(parts)


def _kept(model: Model) -> list[dict[str, Any]]:
    """The entries that `irforge quantize` left in the contract; none in files of another tool or an older version."""
    steps = model.contract.get("provenance", {}).get("history", [])
    entries = [entry for step in steps if step.get("tool") == "quantize" for entry in step.get("kept", [])]
    return [entry for entry in entries if isinstance(entry, dict)]
