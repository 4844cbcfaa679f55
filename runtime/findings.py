"""What a reader of the report should not miss, in sentences made from its figures."""

from __future__ import annotations

from collections.abc import Sequence

from irforge.runtime.report.schema import Check, Data, Environment, Finding, Model
from irforge.runtime.report.wording import chosen_engine, milliseconds, plural, quantity, ratio, signed, size_text

# One thread measured on an otherwise idle machine leaves the one-minute load below this.
BUSY_LOAD = 0.7
# Below this many targets a single one moves Pd by more than half a point.
FEW_TARGETS = 200

_ORDER = ("bad", "caution", "good", "note")


def findings(models: Sequence[Model], data: Data, here: Environment) -> list[Finding]:
    """Worst first: missed limits, precisions that are slower than FP32 here, a busy machine, few targets, what held."""
    found: list[Finding] = []
    for size in sorted({(m.height, m.width) for m in models}, key=lambda s: -s[0] * s[1]):
        here_models = [m for m in models if (m.height, m.width) == size]
        found += _parity(here_models, size_text(*size))
        found += _speed(here_models, size_text(*size))
    if here.load_average and here.load_average[0] >= BUSY_LOAD:
        found.append(
            Finding(
                level="caution",
                text=f"The machine was busy when the measurement began (load {here.load_average[0]:.1f} on "
                f"{plural(here.cores, 'core')}): times are too long, and their ratios are the safer figures.",
            )
        )
    if data.targets is not None and 0 < data.targets < FEW_TARGETS:
        found.append(
            Finding(
                level="caution",
                text=f"Only {plural(data.targets, 'target')} in {plural(data.frames, 'frame')}: one more or less is "
                f"{100 / data.targets:.1f} points of Pd.",
            )
        )
    return sorted(found, key=lambda finding: _ORDER.index(finding.level))


def _parity(models: Sequence[Model], size: str) -> list[Finding]:
    found, kept = [], []
    for model in models:
        if model.parity is None:
            continue
        missed = [check for check in model.parity.checks if not check.passed]
        name = model.precision.upper()
        if missed:
            words = "; ".join(_missed(check) for check in missed)
            found.append(Finding(level="bad", text=f"{name} at {size} misses its limits: {words}."))
        elif model.parity.iou_points is None:
            kept.append(name)
        else:
            kept.append(f"{name} ({signed(model.parity.iou_points)} IoU, {signed(model.parity.pd_points)} Pd)")
    if kept:
        found.append(Finding(level="good", text=f"Within limits at {size}, in points: {', '.join(kept)}."))
    return found


def _missed(check: Check) -> str:
    if check.value is None:
        return f"{check.name} cannot be measured"
    unit = "" if check.unit == "probability" else f" {check.unit}"
    return f"{check.name} {check.value:.3g}{unit} (limit {check.limit:g})"


def _speed(models: Sequence[Model], size: str) -> list[Finding]:
    """Runs on the CPU only: a low precision that gains nothing there must not look like a gain."""
    base = next((m for m in models if m.role == "candidate" and m.precision == "fp32" and m.device == "cpu"), None)
    if base is None or base.latency is None:
        return []
    p50 = base.latency.frame.p50
    lower = [m for m in models if m.role == "candidate" and m.precision != "fp32" and m.device == "cpu" and m.latency]
    slower = [m for m in lower if m.latency and m.latency.frame.p50 >= p50]
    faster = [m for m in lower if m not in slower]
    found = []
    if faster:
        words = f"On this CPU at {size} {_compared(faster, p50)}."
        found.append(Finding(level="good", text=words))
    if slower:
        pronoun = "Its" if len(slower) == 1 else "Their"
        words = f"On this CPU at {size} {_compared(slower, p50)}. {pronoun} gain is for TensorRT, not here"
        found.append(Finding(level="caution", text=f"{words}{_plan_gain(slower, base)}."))
    return found


def _compared(models: Sequence[Model], p50: float) -> str:
    """'FP16 is 1.09× slower and INT8 1.55× slower than FP32 (628.0 and 895.9 against 578.0 ms)'."""
    times = [m.latency.frame.p50 for m in models if m.latency]
    words = " and ".join(
        f"{m.precision.upper()}{' is' if i == 0 else ''} {ratio(t, p50).replace('same', 'as fast')}"
        for i, (m, t) in enumerate(zip(models, times, strict=True))
    )
    measured = " and ".join(milliseconds(t) for t in times)
    # "as fast than" is no English: equal times compare with "as".
    link = "as" if ratio(times[-1], p50) == "same" else "than"
    return f"{words} {link} FP32 ({measured} against {milliseconds(p50)} ms)"


def _plan_gain(models: Sequence[Model], base: Model) -> str:
    """What the compiled plans promise instead, where they say it for the same target."""
    fp32 = chosen_engine(base)
    if fp32 is None or not fp32.bytes_moved:
        return ""
    moved = [
        f"{quantity(plan.bytes_moved)} in {model.precision.upper()}"
        for model in models
        for plan in model.engines
        if plan.targets == fp32.targets and plan.bytes_moved
    ]
    if not moved:
        return ""
    targets, against = ", ".join(fp32.targets), f"{quantity(fp32.bytes_moved)} in FP32"
    return f": compiled for SM {targets} a frame moves {' and '.join(moved)}, {against}; no GPU was here to time it"
