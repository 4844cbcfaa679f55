"""The tables of a few-shot study: means over draws with 95 % intervals, and differences paired by draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.study import verdict
from irforge.metrics.fewshot import mean_interval, paired_gain

Figures = Mapping[tuple[str, int, int], Mapping[str, float]]
"""(variant, K, seed) -> figures by name; a variant's name ends in `+pcb` where its boxes were judged again, and in
`+pcb5` where only the best 5 of a frame were."""

SHOWN = ("nAP", "nAP50", "nAP75", "bAP", "bAP50")
COMPARED = ("nAP", "nAP50", "bAP")
COMPARISONS = (
    ("confusion-aware losses", "ca", "plain"),
    ("neck and gates, with them", "neck", "ca"),
    ("PCB on plain", "plain+pcb", "plain"),
    ("PCB on all of GLMD-CA", "neck+pcb", "neck"),
    ("PCB of 5 boxes a frame, for all", "neck+pcb5", "neck+pcb"),
    ("PCB of 10 boxes a frame, for all", "neck+pcb10", "neck+pcb"),
    ("PCB of 20 boxes a frame, for all", "neck+pcb20", "neck+pcb"),
    ("all of GLMD-CA", "neck+pcb", "plain"),
    ("BNRL for cross-entropy", "bnrl", "plain"),
)


def summary(figures: Figures, bases: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """JSON-ready: each cell of the tables with mean, half of the interval and number of draws."""
    # Limited re-scoring has rows among the gains alone.
    names = [name for name in dict.fromkeys(variant for variant, _, _ in figures) if not name[-1].isdigit()]
    shots = sorted({k for _, k, _ in figures})
    means = [
        {"shots": k, "variant": name, "seeds": len(seeds)} | cells
        for k in shots
        for name in names
        if (seeds := _seeds(figures, name, k)) and (cells := _means(figures, name, k, seeds))
    ]
    gains = [
        {"shots": k, "what": what, "ours": ours, "theirs": theirs, "seeds": len(both)} | cells
        for k in shots
        for what, ours, theirs in COMPARISONS
        if (both := [seed for seed in _seeds(figures, ours, k) if (theirs, k, seed) in figures])
        and (cells := _gains(figures, ours, theirs, k, both))
    ]
    return {"base": {name: dict(own) for name, own in bases.items()}, "means": means, "gains": gains}


def markdown(found: Mapping[str, Any]) -> str:
    """Both tables, and before them what the base stages reached."""
    lines = ["| base stage | AP | AP50 |", "|---|---|---|"]
    lines += [
        f"| {name} | {_number(own.get('AP'))} | {_number(own.get('AP50'))} |" for name, own in found["base"].items()
    ]
    lines += ["", f"| K | variant | draws | {' | '.join(SHOWN)} |", "|---" * (3 + len(SHOWN)) + "|"]
    for row in found["means"]:
        cells = " | ".join(_interval(row.get(name)) for name in SHOWN)
        lines.append(f"| {row['shots']} | {row['variant']} | {row['seeds']} | {cells} |")
    lines += [
        "",
        f"| K | what it gains | draws | {' | '.join(COMPARED)} | shown for nAP |",
        "|---" * (4 + len(COMPARED)) + "|",
    ]
    for row in found["gains"]:
        cells = " | ".join(_interval(row.get(name), signed=True) for name in COMPARED)
        lines.append(f"| {row['shots']} | {row['what']} | {row['seeds']} | {cells} | {row['verdict']} |")
    return "\n".join(lines) + "\n"


def _seeds(figures: Figures, variant: str, shots: int) -> list[int]:
    return sorted(seed for name, k, seed in figures if (name, k) == (variant, shots))


def _means(figures: Figures, variant: str, shots: int, seeds: Sequence[int]) -> dict[str, Any]:
    rows = [figures[variant, shots, seed] for seed in seeds]
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: mean_interval([row[name] for row in rows])._asdict() for name in shared}


def _gains(figures: Figures, ours: str, theirs: str, shots: int, seeds: Sequence[int]) -> dict[str, Any]:
    pairs = [(figures[ours, shots, seed], figures[theirs, shots, seed]) for seed in seeds]
    gains = {
        name: paired_gain([mine[name] for mine, _ in pairs], [other[name] for _, other in pairs])
        for name in COMPARED
        if all(name in mine and name in other for mine, other in pairs)
    }
    said = verdict(gains["nAP"]) if "nAP" in gains else ""
    return {name: gain._asdict() for name, gain in gains.items()} | {"verdict": said}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(cell: Mapping[str, Any] | None, signed: bool = False) -> str:
    if cell is None:
        return "-"
    mean = f"{cell['mean']:+.3f}" if signed else f"{cell['mean']:.3f}"
    return mean if cell["half"] is None else f"{mean} ± {cell['half']:.3f}"
