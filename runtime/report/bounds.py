"""The page's look at other machines: what boards could do at best, the roofline, and the commands of trtexec."""

from __future__ import annotations

import re

from irforge.runtime.boards import BOARDS, CHECKED, Board, Bound, frame_bound, intensity, ridge
from irforge.runtime.report.markup import Cell, Markup, Row, element, heading, joined, named, table, text
from irforge.runtime.report.schema import EngineFacts, Model, Report
from irforge.runtime.report.wording import NOT_MEASURED, milliseconds, precision_name, quantity, size_text

_NOTE = (
    "Bounds, not measurements: no run of such kernels is faster, and real ones are slower. All MACs at the published "
    "dense peak of their type, as direct convolutions, and the weights and the frame read once at the published "
    "bandwidth. “Uncached” is all that the kernels read and write at that bandwidth: where caches hold nothing, no run "
    "is faster."
)


def plan_for(model: Model, board: Board) -> EngineFacts | None:
    """The plan that stands for a board: its own, or else the one for the nearest older GPU of its generation."""
    known = [plan for plan in model.engines if plan.macs]
    own = next((plan for plan in known if board.compute_capability in plan.targets), None)
    if own is not None:
        return own
    wanted = _version(board.compute_capability)
    older = [
        (max(v), k) for k, plan in enumerate(known) if (v := [t for t in map(_version, plan.targets) if t < wanted])
    ]
    return known[max(older)[1]] if older else None


def bound_of(model: Model, board: Board) -> Bound | None:
    """What a frame of this model takes on a board at the least; None without a plan that tells."""
    plan = plan_for(model, board)
    if plan is None:
        return None
    least = sum(plan.weight_bytes.values()) + _frame_bytes(model)
    return frame_bound(board, plan.macs, tf32=plan.tf32, least_bytes=least, moved=plan.bytes_moved)


def boards(report: Report) -> Markup:
    """Bounds beside what was measured, which is nothing unless the report's own GPU is on the list.

    A plan's bound is of one run, and a frame in tiles takes several: these models are left out.
    """
    parts = []
    for size in report.sizes:
        models = [m for m in report.at_size(size) if m.tiles is None and any(plan.macs for plan in m.engines)]
        if not models:
            continue
        headers = ["Board"]
        for model in models:
            headers += [f"{precision_name(model)}, bound", "measured"]
        rows: list[Row] = []
        for board in BOARDS:
            row: list[str | Cell] = [Cell(board.name)]
            for model in models:
                row += [_bound_cell(bound_of(model, board)), _measured(report, model, board)]
            rows.append(row)
        parts += [heading(size_text(*size), "milliseconds a frame, the session alone"), table(headers, rows)]
    if not parts:
        return Markup("")
    sources = "".join(
        f"<li>{text(board.name)}: {text(board.document)}. Derived: {text(board.derived)}.</li>" for board in BOARDS
    )
    parts.append(element("p", _NOTE, "note"))
    whence = f"<p>{text(CHECKED)}</p><ul>{sources}</ul>"
    parts.append(Markup(f"<details><summary>Where the peaks are from</summary>{whence}</details>"))
    return joined([*parts, _roofline(report)])


def _bound_cell(bound: Bound | None) -> Cell:
    if bound is None:
        return Cell(NOT_MEASURED)
    uncached = f", uncached {milliseconds(bound.traffic)}" if bound.traffic is not None else ""
    return Cell(f"≥ {milliseconds(bound.milliseconds)}", f"{bound.by}{uncached}")


def _measured(report: Report, model: Model, board: Board) -> Cell:
    gpu = model.latency.gpu if model.latency and model.device != "cpu" else None
    modes = {readings.power_mode.partition(" (")[0] for readings in report.readings}
    here = re.search(rf"\b{re.escape(board.known_as)}\b", report.environment.gpu) and board.mode in {"", *modes}
    return Cell(milliseconds(gpu.p50) if gpu and here else NOT_MEASURED)


def _roofline(report: Report) -> Markup:
    """Operations a byte of each plan, by the ridge of each board; and what the run here reached."""
    headers = ["", "GMAC / frame", "Moved / frame", "Operations / byte", "GMAC / s here"]
    rows: list[Row] = []
    known: list[Model] = []
    for model in report.models:
        if model.tiles:
            continue
        plan = next((p for p in model.engines if p.macs and p.bytes_moved), None)
        if plan is not None and plan.bytes_moved:
            at = f"{intensity(plan.macs, plan.bytes_moved):.1f}"
            macs = f"{sum(plan.macs.values()) / 1e9:.2f}"
            rows.append([_title(model), macs, quantity(plan.bytes_moved), at, _reached(model, plan)])
            known.append(model)
    if not rows:
        return Markup("")
    shares: list[Row] = [[board.name, *(_position(model, board) for model in known)] for board in BOARDS]
    names = [f"{precision_name(model)} {size_text(model.height, model.width)}" for model in known]
    note = (
        "Operations a byte (two a MAC, bytes as if uncached) by those at the board's ridge: below 1 memory is the "
        "bound, above 1 arithmetic. GMAC / s here: from this run's host clock at p50."
    )
    parts = [heading("Roofline", "what bounds it where"), table(headers, rows), table(["Board", *names], shares)]
    return joined([*parts, element("p", note, "note")])


def _position(model: Model, board: Board) -> Cell:
    plan = plan_for(model, board)
    if plan is None or not plan.bytes_moved:
        return Cell(NOT_MEASURED)
    share = intensity(plan.macs, plan.bytes_moved) / ridge(board, plan.macs, plan.tf32)
    return Cell(f"{share:.2f}", "memory" if share < 1 else "compute")


def _reached(model: Model, plan: EngineFacts) -> str:
    if model.latency is None or not model.latency.host.p50:
        return NOT_MEASURED
    return f"{sum(plan.macs.values()) / model.latency.host.p50 / 1e6:.1f}"


def commands(report: Report) -> Markup:
    """What measures the same files with NVIDIA's own tool."""
    parts = []
    for model in report.models:
        if model.trtexec:
            lines = "\n".join(f"# TensorRT {major}\n{line}" for major, line in model.trtexec.items())
            parts.append(Markup(f"<details><summary>{_title(model)}</summary>{element('pre', lines)}</details>"))
    if not parts:
        return Markup("")
    intro = (
        "trtexec's latency is the device's, without preparing and decoding: it stands beside the GPU clock, and in "
        "version 10 with the flags below. 'irforge report report.json NAME.times.json' shows both."
    )
    if any(model.tiles for model in report.models):
        intro += " Where frames are cut into tiles, it measures one tile."
    return joined([element("p", intro), *parts])


def _title(model: Model) -> Markup:
    return joined([named(model), size_text(model.height, model.width)], " ")


def _version(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split(".") if part.isdecimal())


def _frame_bytes(model: Model) -> int:
    door = model.contract.get("input", {})
    levels = 1 if door.get("door", "uint8") == "uint8" else 4
    channels = door.get("channels", 1)
    return model.height * model.width * levels * (channels if isinstance(channels, int) else 1)
