"""The sections of the page."""

from __future__ import annotations

from html import escape

from irforge.runtime.comparison.plots import Series, chart, powers, rates, style_of
from irforge.runtime.comparison.schema import MAY_MISS, Box, Comparison, Contestant, Disagreement, Seen
from irforge.runtime.comparison.wording import frames_text, giga, mega, rate
from irforge.runtime.report.figures import BoxRates, MaskAccuracy
from irforge.runtime.report.markup import Cell, Markup, Row, element, heading, joined, table, text
from irforge.runtime.report.wording import NOT_MEASURED, count, milliseconds, plural, quantity, size_text

READING = (
    "F1 is the harmonic mean of precision and recall; Pd is recall by the distance of centres, with its 95 % Wilson "
    "interval. False alarms an hour are those on frames without a target, with the exact 95 % Poisson interval: frames "
    "of one video repeat their alarms, and there it is too narrow. AP50 is COCO's over all scores; mNoCoAP is the mean "
    "over contrast levels 0.1 to 0.9 of the average precision of points. A mask that is resized loses pixels: the "
    "smaller figure under IoU is at the size that the model saw, as some published tables are. MACs are those of "
    "convolutions and matrix products. Kernels and bytes come from a compiled plan; they are counted, not timed."
)
_SIDE = 65
_TITLES = dict(
    zip(
        MAY_MISS,
        ("masks", "mNoCoAP", "mNoCoAP as published", "false alarms an hour", "parameters", "MACs", "plan", "latency"),
        strict=True,
    )
)


def accuracy(comparison: Comparison) -> Markup:
    """Masks and boxes, a row each."""
    headers = [
        "",
        "Pd, 3 px",
        "Precision",
        "F1, 3 px",
        "F1, IoU 0.5",
        "AP50",
        "mNoCoAP",
        "as published",
        "False / frame",
    ]
    headers.append(f"False / h at {comparison.frame_rate:g} Hz")
    rows: list[Row] = [[_named(comparison, one), *_objects(one)] for one in comparison.contestants]
    aside = f"{frames_text(comparison)}; in %"
    parts = [heading("Every detector, in frame pixels", aside), table(headers, rows)]
    parts.append(element("p", "False alarms an hour are counted on frames without a target.", "note"))
    masks: list[Row] = [[_named(comparison, one), *_mask(one)] for one in comparison.contestants if one.mask]
    if masks:
        headers = ["", "IoU", "nIoU", "Pd", "Found", "Fa, 10⁻⁶", "False px / 100 frames"]
        parts += [
            heading("Those that give masks", "in frame pixels; below, at the model's size"),
            table(headers, masks),
        ]
    return joined(parts)


def curves(comparison: Comparison) -> Markup:
    """Precision over recall, Pd over false alarms, Pd over Fa, accuracy over latency."""
    several = list(enumerate(comparison.contestants))
    drawn = [(i, one, [(p.recall, p.precision) for p in one.curve]) for i, one in several]
    precision = chart(
        "Precision over recall",
        rates("Recall, %"),
        rates("Precision, %"),
        [Series(i, one.name, points, _recall_precision(one.objects.centre)) for i, one, points in drawn],
    )
    falses = powers("False detections a frame", [p.false_per_frame for _, one in several for p in one.curve], 1e-4)
    alarms = chart(
        "Pd over false detections a frame",
        falses,
        rates("Pd, %"),
        [Series(i, one.name, [(p.false_per_frame, p.recall) for p in one.curve], _works_at(one)) for i, one in several],
    )
    figures = [
        _figure(precision, "Precision and recall", "by the distance of centres, as the threshold falls"),
        _figure(alarms, "Pd and false detections", "the same detections, false ones counted a frame"),
    ]
    masks = [(i, one, one.mask) for i, one in several if one.mask]
    if masks:
        fa = powers("Fa: share of false pixels", [p.fa for _, one, _ in masks for p in one.mask_curve], 1e-8)
        series = [Series(i, o.name, [(p.fa, p.pd) for p in o.mask_curve], _mask_works_at(m)) for i, o, m in masks]
        plot = chart("Pd over Fa of masks", fa, rates("Pd, %"), series)
        figures.append(_figure(plot, "Pd and Fa of masks", "at probabilities 0.1, 0.2 .. 0.9"))
    timed = [(i, one, one.timing.frame.p50) for i, one in several if one.timing]
    if timed:
        series = [Series(i, one.name, [], (p50, one.objects.centre.f1 or 0.0)) for i, one, p50 in timed]
        times = powers("Median time of a frame, ms", [p50 for *_, p50 in timed])
        plot = chart("Accuracy over latency", times, rates("F1 within 3 px, %"), series, labels=True)
        figures.append(_figure(plot, "Accuracy and latency", f"on {comparison.environment.cpu}"))
    keys = joined(Markup(f"<span>{_named(comparison, one)}</span>") for one in comparison.contestants)
    note = "Dots: at each contract's threshold. The detections of a mask end there: what scores lower is no component."
    return Markup(
        f'<div class="legend">{keys}</div><div class="plots">{joined(figures)}</div>{element("p", note, "note")}'
    )


def cost(comparison: Comparison) -> Markup:
    """What each detector takes."""
    headers = ["", "p50 ms", "p99 ms", "Clock", "Parameters", "MACs", "Kernels", "Moved", "File"]
    rows: list[Row] = []
    for one in comparison.contestants:
        engine, timing = one.engine, one.timing
        rows.append(
            [
                _named(comparison, one),
                milliseconds(timing.frame.p50) if timing else NOT_MEASURED,
                milliseconds(timing.frame.p99) if timing else NOT_MEASURED,
                Cell("turns" if timing.interleaved else "alone", plural(timing.frame.n, "call")) if timing else "",
                f"{mega(one.parameters)} M" if one.parameters else mega(one.parameters),
                Cell(f"{giga(one.macs)} G", size_text(*one.macs_size))
                if one.macs and one.macs_size
                else giga(one.macs),
                Cell(count(engine.kernels), f"SM {', '.join(engine.targets)}") if engine else NOT_MEASURED,
                quantity(engine.bytes_moved if engine else None),
                quantity(one.file_bytes),
            ]
        )
    note = (
        f"One raw frame in memory to its detections, {plural(comparison.environment.threads, 'thread')} a model, on "
        f"{comparison.environment.cpu}. Turns: the models took turns on the same frames, so that a disturbance strikes "
        "all alike. Every call counts; with fewer than 100, p99 is the slowest one."
    )
    return joined([table(headers, rows), element("p", note, "note")])


def gallery(comparison: Comparison) -> Markup:
    """The frames with the largest disagreement, a row of views each."""
    if not comparison.gallery:
        return Markup("")
    note = (
        "The frames on which they are most at odds: a target that a share p of them finds counts 4 p (1 − p), and so "
        "do false detections, once a frame. White: the truth. Green: right. Red: false."
    )
    rows = joined(_frame_row(index, row) for index, row in enumerate(comparison.gallery))
    return joined([element("p", note, "note"), rows])


def missing(comparison: Comparison) -> Markup:
    """The reasons, said once for all that share one."""
    names: dict[tuple[str, str], list[str]] = {}
    for one in comparison.contestants:
        for field, reason in one.missing.items():
            names.setdefault((_TITLES.get(field, field), reason), []).append(one.name)
    every = len(comparison.contestants)
    rows: list[Row] = [
        [title, Cell(reason, style="text"), Cell("all" if len(who) == every else ", ".join(who), style="text")]
        for (title, reason), who in sorted(names.items())
    ]
    return table(["", "Why", "Of"], rows) if rows else Markup("")


def models(comparison: Comparison) -> Markup:
    """Files by hash, and what trained them."""
    rows: list[Row] = [
        [
            _named(comparison, one),
            one.detector,
            Cell(one.fit, f"{one.backend}, {one.device}, {one.precision.upper()}", "text"),
            f"{one.threshold:.3g}",
            Cell("; ".join(one.trained_on) or NOT_MEASURED, style="text"),
            Cell(Markup(f"<code>{text(one.sha256)}</code>"), style="text wide"),
        ]
        for one in comparison.contestants
    ]
    return table(["", "Detector", "Frames", "Threshold", "Trained on: list, frames", "SHA-256"], rows)


def _objects(one: Contestant) -> Row:
    found = one.objects
    low_high = found.pd_interval
    hourly = found.alarms
    return [
        Cell(rate(found.pd), f"{100 * low_high[0]:.1f} to {100 * low_high[1]:.1f}" if low_high else ""),
        rate(found.centre.precision),
        rate(found.centre.f1),
        rate(found.iou50.f1),
        rate(found.ap50),
        rate(found.nocoap),
        rate(found.nocoap_legacy),
        f"{found.false_per_frame:.3f}",
        Cell(count(round(hourly.per_hour)), f"{count(round(hourly.interval[0]))} to {count(round(hourly.interval[1]))}")
        if hourly
        else NOT_MEASURED,
    ]


def _mask(one: Contestant) -> Row:
    mask, other = one.mask, one.mask_at_model
    assert mask is not None
    return [
        Cell(rate(mask.iou), rate(other.iou) if other else ""),
        Cell(rate(mask.niou), rate(other.niou) if other else ""),
        Cell(rate(mask.pd), rate(other.pd) if other else ""),
        f"{count(mask.found)} of {count(mask.targets)}",
        Cell(f"{mask.fa * 1e6:.2f}", f"{other.fa * 1e6:.2f}" if other else ""),
        count(round(mask.false_pixels_per_100_frames)),
    ]


def _named(comparison: Comparison, one: Contestant) -> Markup:
    style = style_of(next(i for i, other in enumerate(comparison.contestants) if other is one))
    return Markup(f'<span class="key {style}"></span>{text(one.name)}')


def _figure(plot: Markup, title: str, remark: str) -> Markup:
    return Markup(f"<figure>{plot}<figcaption>{element('b', title)}: {text(remark)}</figcaption></figure>")


def _recall_precision(rates_found: BoxRates) -> tuple[float, float] | None:
    recall, precision = rates_found.recall, rates_found.precision
    return None if recall is None or precision is None else (recall, precision)


def _works_at(one: Contestant) -> tuple[float, float] | None:
    return None if one.objects.pd is None else (one.objects.false_per_frame, one.objects.pd)


def _mask_works_at(mask: MaskAccuracy) -> tuple[float, float] | None:
    return None if mask.pd is None else (mask.fa, mask.pd)


def _frame_row(index: int, row: Disagreement) -> Markup:
    title = (
        f"{element('b', row.frame)}: {plural(row.targets, 'target')}, around row {row.row:.0f}, column {row.column:.0f}"
        f"; disagreement {row.amount:.2f}"
    )
    # The picture is held once, by the first view; the others use it.
    data = f"data:image/png;base64,{escape(row.picture)}"
    image = f'<image id="frame{index}" width="{_SIDE}" height="{_SIDE}" href="{data}"/>'
    views = [_view(image, row.truth, None, "truth", f"{plural(len(row.truth), 'target')} in the frame")]
    views += [
        _view(f'<use href="#frame{index}"/>', row.truth, seen, seen.name, _verdict(row, seen)) for seen in row.seen
    ]
    return Markup(
        f'<figure class="frame-row"><figcaption>{title}</figcaption><div class="views">{joined(views)}</div></figure>'
    )


def _view(image: str, truth: list[Box], seen: Seen | None, name: str, remark: str) -> Markup:
    marks = [_rect(box, "true", 1.5) for box in truth]
    if seen is not None:
        marks += [_rect(box, "right" if ok else "false", 0.0) for box, ok in zip(seen.boxes, seen.right, strict=True)]
    inside = "".join(mark for mark in marks if mark)
    words = escape(f"{name}: {remark}")
    svg = f'<svg role="img" aria-label="{words}" viewBox="0 0 {_SIDE} {_SIDE}">{image}{inside}</svg>'
    return Markup(f"<div>{svg}<b>{text(name)}</b>{text(remark)}</div>")


def _rect(box: Box, style: str, margin: float) -> str:
    """A box of the picture, `margin` pixels larger on each side; nothing where it lies outside."""
    x0, y0, x1, y1 = box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin
    if x1 <= 0 or y1 <= 0 or x0 >= _SIDE or y0 >= _SIDE:
        return ""
    return f'<rect class="{style}" x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}"/>'


def _verdict(row: Disagreement, seen: Seen) -> str:
    return f"{len(seen.found)} of {row.targets} found, {seen.false} false"
