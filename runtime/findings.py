"""What a reader of the report should not miss, in sentences made from its figures."""

from __future__ import annotations

from collections.abc import Sequence

from irforge.runtime.report.figures import Check, Parity
from irforge.runtime.report.schema import Data, EngineFacts, Environment, Finding, Model
from irforge.runtime.report.views import VIEWS
from irforge.runtime.report.wording import (
    UNITLESS,
    chosen_engine,
    count,
    milliseconds,
    plural,
    precision_name,
    quantity,
    size_text,
)

# One thread measured on an otherwise idle machine leaves the one-minute load below this.
BUSY_LOAD = 0.7
# The limits on accuracy go down to half a point: with fewer targets than this, a single one can decide.
FEW_TARGETS = 200
# Closer than this is the same speed: repeated runs differ by as much.
SAME_SPEED = 0.05

ORDER = ("bad", "caution", "good", "note")


def findings(models: Sequence[Model], data: Data, here: Environment) -> list[Finding]:
    """Worst first: missed limits, precisions that are slower than FP32 here, a busy machine, few targets, what held."""
    found = [finding for model in models for finding in _missed_limits(model)]
    found += _speed(models) + _plans(models)
    if here.load_average and here.load_average[0] >= BUSY_LOAD:
        load = f"{here.load_average[0]:.1f} on {plural(here.cores, 'core')}"
        text = f"The machine was busy when the measurement began (load {load}): times are too long, ratios hold better."
        found.append(Finding(level="caution", text=text))
    if data.targets is not None and 0 < data.targets < FEW_TARGETS:
        n = f"{plural(data.targets, 'target')} in {plural(data.frames, 'frame')}"
        text = f"Only {n}: one more or less is {100 / data.targets:.1f} points of Pd."
        found.append(Finding(level="caution", text=text))
    found += _kept_limits(models)
    return sorted(found, key=lambda finding: ORDER.index(finding.level))


def _missed_limits(model: Model) -> list[Finding]:
    if model.parity is None or model.parity.passed:
        return []
    missed = [check for check in model.parity.checks if not check.passed]
    name = f"{precision_name(model)} at {size_text(model.height, model.width)}"
    words = "; ".join(_missed(check) for check in missed)
    if all(_one_target_decides(check, model.parity) for check in missed):
        n = f"{plural(model.parity.frames, 'frame')} with {plural(model.parity.targets, 'target')}"
        text = f"{name} misses its limits on {n}, where a single target decides: {words}. Measure it on a larger set."
        return [Finding(level="caution", text=text)]
    return [Finding(level="bad", text=f"{name} misses its limits: {words}.")]


def _one_target_decides(check: Check, parity: Parity) -> bool:
    """Whether the loss is what one target of 25 pixels lost, or one such false alarm, makes in so small a set."""
    if parity.targets == 0 or check.value is None:
        return False
    one = {"points": 100 / parity.targets, "per 100 frames": 100 * 25 / parity.frames}.get(check.unit, 0.0)
    return check.limit < check.value <= one * (1 + 1e-9)


def _missed(check: Check) -> str:
    if check.value is None:
        return f"{check.name} cannot be measured"
    unit = "" if check.unit in UNITLESS else check.unit
    measured = f"{check.value:.3g} {unit}".rstrip()
    return f"{check.name} {measured} (limit {check.limit:g})"


def _kept_limits(models: Sequence[Model]) -> list[Finding]:
    parts = []
    for size in dict.fromkeys((m.height, m.width) for m in models):
        kept = [m for m in models if (m.height, m.width) == size and m.parity and m.parity.passed]
        words = [f"{precision_name(m)}{_change(m)}" for m in kept]
        if words:
            parts.append(f"at {size_text(*size)} {', '.join(words)}")
    return [Finding(level="good", text=f"Within limits: {'; '.join(parts)}.")] if parts else []


def _change(model: Model) -> str:
    words = VIEWS[model.parity.kind].change(model.parity) if model.parity else ""
    return f" ({words})" if words else ""


def _speed(models: Sequence[Model]) -> list[Finding]:
    """Runs on the CPU only: a low precision that gains nothing there must not look like a gain."""
    bases: dict[tuple[int, int], Model] = {}
    for model in models:
        if model.role == "candidate" and model.precision == "fp32" and model.device == "cpu" and model.latency:
            bases.setdefault((model.height, model.width), model)
    found = []
    lower = [m for m in models if m.precision != "fp32" and m.device == "cpu" and (m.height, m.width) in bases]
    for precision in dict.fromkeys(m.precision for m in lower):
        own = [(m, bases[m.height, m.width]) for m in lower if m.precision == precision and m.latency]
        slower = [pair for pair in own if _times(*pair) > 1 + SAME_SPEED]
        faster = [pair for pair in own if _times(*pair) < 1 - SAME_SPEED]
        if slower:
            words = ", ".join(f"{_times(*pair):.2f}× {_at(*pair)}" for pair in slower)
            text = f"{precision.upper()} is slower than FP32 on this CPU: {words}. {_plan_gain(*slower[0])}"
            found.append(Finding(level="caution", text=text))
        if faster:
            words = ", ".join(f"{1 / _times(*pair):.2f}× {_at(*pair)}" for pair in faster)
            found.append(Finding(level="good", text=f"{precision.upper()} is faster than FP32 on this CPU: {words}."))
    return found


def _times(model: Model, base: Model) -> float:
    assert model.latency and base.latency
    return model.latency.frame.p50 / base.latency.frame.p50


def _at(model: Model, base: Model) -> str:
    assert model.latency and base.latency
    own, other = milliseconds(model.latency.frame.p50), milliseconds(base.latency.frame.p50)
    return f"{model.variant} at {size_text(model.height, model.width)} ({own} against {other} ms)".lstrip()


def _plan_gain(model: Model, base: Model) -> str:
    """What the compiled plan promises instead, where both were compiled for the same targets."""
    plan, fp32 = chosen_engine(model), chosen_engine(base)
    remark = "Such a file is made for TensorRT; here it gains nothing"
    if not plan or not fp32 or plan.targets != fp32.targets or not plan.bytes_moved or not fp32.bytes_moved:
        return f"{remark}."
    targets, size = ", ".join(plan.targets), size_text(model.height, model.width)
    return (
        f"{remark}: compiled for SM {targets}, a frame of {size} moves {quantity(plan.bytes_moved)} in "
        f"{count(plan.kernels)} kernels, {quantity(fp32.bytes_moved)} in {count(fp32.kernels)} as FP32. "
        "No GPU was here to time it."
    )


def _plans(models: Sequence[Model]) -> list[Finding]:
    """Files of one precision and size beside each other: a rewritten graph, say, and the one it was made of."""
    alike: dict[object, list[tuple[int, Model, EngineFacts]]] = {}
    for model in models:
        plan = chosen_engine(model)
        if model.variant and plan and plan.kernels:
            key = (model.height, model.width, model.precision, *plan.targets)
            alike.setdefault(key, []).append((plan.kernels, model, plan))
    found = []
    for first, *others in alike.values():
        for other in others:
            (fewer, model, a), (more, origin, b) = sorted((first, other), key=lambda entry: entry[0])
            bytes_share = (
                f", {a.bytes_moved / b.bytes_moved:.2f} of the bytes" if a.bytes_moved and b.bytes_moved else ""
            )
            text = (
                f"Compiled for SM {', '.join(a.targets)}, a frame of {size_text(model.height, model.width)} takes "
                f"{_work(model, a)}, {_work(origin, b)}: {fewer / more:.2f} of the kernels{bytes_share}."
            )
            found.append(Finding(level="note", text=text))
    return found


def _work(model: Model, plan: EngineFacts) -> str:
    moved = f" and {quantity(plan.bytes_moved)} moved" if plan.bytes_moved else ""
    return f"{plural(plan.kernels or 0, 'kernel')}{moved} as {model.variant}"
