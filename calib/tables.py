"""What the calibration commands print."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from irforge.calib.histogram import METHODS
from irforge.calib.islands import Island

if TYPE_CHECKING:
    from irforge.calib.costs import Cost, Costs, Search
    from irforge.calib.ranges import Ranges


@dataclass(frozen=True)
class Kept:
    """A convolution that was not quantised: its output, its share of all MACs, why, and its weight's name."""

    node: str
    share: float
    reason: str
    weight: str = ""


@dataclass(frozen=True)
class PassReport:
    """What a precision pass did to a model, and to its companion; `quantized` is None for FP16, else the share of MACs
    now in int8."""

    model: Path
    output: Path
    half: int
    float_nodes: int
    casts: int
    islands: list[Island]
    measured: bool
    target: str = ""
    method: str = ""
    convolutions: int = 0
    quantized: float | None = None
    points: int = 0
    kept: list[Kept] = field(default_factory=list)
    companion: PassReport | None = None


def print_ranges(ranges: Ranges, output: Path) -> None:
    """A short table of RANGES.json."""
    frames, tensors = ranges.frames, ranges.tensors
    used = f"{len(frames.sha256)} of {frames.available} in {frames.source}"
    if frames.asked and frames.asked > frames.available:
        used += f"; {frames.asked} were asked for"
    table = _table(f"{ranges.model} -> {output}")
    table.add_row("frames", used)
    table.add_row("tensors", str(len(tensors)))
    name, largest = max(tensors.items(), key=lambda item: item[1].absmax)
    table.add_row("largest value", f"{largest.absmax:.4g} in {name}")
    tiny = sum(found.subnormal > 0.5 for found in tensors.values())
    table.add_row("mostly below FP16's normals", f"{tiny} tensors")
    for method in METHODS:
        ratios = sorted(found.thresholds[method] / found.absmax for found in tensors.values() if found.absmax)
        chosen = " (chosen)" if method == ranges.method else ""
        if ratios:
            middle, low = ratios[len(ratios) // 2], ratios[0]
            table.add_row(f"{method}{chosen}", f"range / largest value: median {middle:.3f}, lowest {low:.3f}")
    table.add_row("key", ranges.key[:16])
    Console().print(table)


def print_costs(costs: Costs, output: Path) -> None:
    """The places that cost most, and what all cost together."""
    table = Table(title=f"{costs.model} -> {output}", title_justify="left")
    titles = ("INT8 in", "of the MACs", "lost", "alarms", "difference", "crossing")
    for title in titles:
        table.add_column(title, justify="left" if title == titles[0] else "right", overflow="fold")
    ranked = sorted(costs.places, key=lambda place: -place.difference)
    worst, others = ranked[:12], ranked[12:]

    def row(name: str, share: float, cost: Cost) -> None:
        figures = (f"{share:.2%}", f"{cost.lost:.1f}", f"{cost.alarms:.1f}")
        table.add_row(name, *figures, f"{cost.difference:.3f}", f"{cost.crossed:.1f}")

    for place in worst:
        row("\n".join(place.weights), place.share, place)
    if others:
        lost, alarms = max(place.lost for place in others), max(place.alarms for place in others)
        share = sum(place.share for place in others)
        figures = (f"{share:.2%}", f"<= {lost:.1f}", f"<= {alarms:.1f}", f"<= {others[0].difference:.3f}", "")
        table.add_row(f"{len(others)} more, each", *figures)
    row("all at once", sum(place.share for place in costs.places), costs.together)
    of = "detections of FP32" if costs.truth == "none" else f"targets by {costs.truth}"
    table.caption = (
        f"{of} lost, alarms gained, pixels or boxes crossing the threshold: in 100 frames; "
        f"difference of a frame's answers; n = {costs.frames}"
    )
    Console().print(table)


def print_search(costs: Costs, search: Search) -> None:
    """What the search leaves in FP16, beside INT8 everywhere."""
    convolutions = sum(len(place.nodes) for place in costs.places)
    table = _table("the fewest convolutions in FP16")
    limits = {"lost + alarms in 100 frames": search.max_loss, "difference": search.max_difference}
    table.add_row("allowed", ", ".join(f"{name} <= {value:g}" for name, value in limits.items() if value is not None))
    table.add_row("left in FP16", f"{len(search.kept)} of {convolutions}, {search.share:.2%} of all MACs")
    for name, cost in (("then", search.cost), ("INT8 everywhere", costs.together)):
        figures = f"lost {cost.lost:.1f}, alarms {cost.alarms:.1f}, difference {cost.difference:.3f}"
        table.add_row(name, figures)
    table.add_row("sets tried", str(search.trials))
    Console().print(table)


def print_pass(report: PassReport) -> None:
    """What a precision pass quantised, kept and saved."""
    table = _table(f"{report.model} -> {report.output}")
    if report.quantized is not None:
        table.add_row("for", f"{report.target}, ranges by {report.method}")
        table.add_row("int8 convolutions", f"{report.convolutions}, {report.quantized:.2%} of all MACs")
        table.add_row("int8 tensors", str(report.points))
        for reason, share, count in _by_reason(report.kept):
            table.add_row("not int8", f"{count} of {share:.2%} of the MACs: {reason}")
    if report.half:
        table.add_row("nodes in FP16", f"{report.half}, {report.casts} casts")
        table.add_row("nodes in FP32", f"{report.float_nodes}" + ("" if report.measured else " (no ranges given)"))
        for (op, reason), count in Counter((island.op, island.reason) for island in report.islands).most_common():
            table.add_row(f"  {count} {op}", reason)
    before, after = report.model.stat().st_size, report.output.stat().st_size
    table.add_row("bytes", f"{before:,} -> {after:,} ({after / before:.0%})")
    Console().print(table)
    if report.companion:
        print_pass(report.companion)


def _by_reason(kept: list[Kept]) -> list[tuple[str, float, int]]:
    shares: dict[str, list[float]] = {}
    for conv in kept:
        shares.setdefault(conv.reason, []).append(conv.share)
    return [(reason, sum(found), len(found)) for reason, found in shares.items()]


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table
