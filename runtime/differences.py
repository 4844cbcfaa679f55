"""Two reports of the same data: what changed from one to the other, and what of it is more than noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from irforge.errors import UsageError
from irforge.runtime.noise import SAME_SPEED, Verdict, judge_found, judge_medians, judge_tails
from irforge.runtime.report.figures import Parity
from irforge.runtime.report.schema import EngineFacts, Model, Report
from irforge.runtime.report.times import Distribution, Latency
from irforge.runtime.report.wording import chosen_engine, precision_name, size_text

_FIGURES = (
    ("IoU", "iou", 1), ("nIoU", "niou", 1), ("AP", "ap", 1), ("AP50", "ap50", 1), ("Fa", "fa", -1),
    ("false pixels in 100 frames", "false_pixels_per_100_frames", -1),
    ("false boxes in 100 frames", "false_boxes_per_100_frames", -1),
)  # fmt: skip
Targets = set[tuple[str, float, float]]


@dataclass(frozen=True)
class Change:
    """One figure before and after. `why` says what the verdict rests on; `better`: more of it is better (1), worse
    (-1), or neither (0)."""

    name: str
    before: float | None
    after: float | None
    verdict: Verdict
    why: str = ""
    unit: str = ""
    better: int = 0


@dataclass(frozen=True)
class Pair:
    """The same model in both reports, by name, precision and size, or by the last two where they leave no choice.

    `same_file`: its content is the same, so that what differs is the machine or its software. `cautions`: in what else
    the two were not measured alike.
    """

    before: Model
    after: Model
    same_file: bool
    changes: tuple[Change, ...]
    cautions: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{precision_name(self.after)}, {size_text(self.after.height, self.after.width)}"


@dataclass(frozen=True)
class Differences:
    """`machines`: in what the two machines differ, and `software` their packages; empty where they do not. `floor`: the
    share below which no change of a latency counts. `unpaired`: names of models that only one report has."""

    pairs: tuple[Pair, ...]
    machines: tuple[str, ...]
    software: tuple[str, ...]
    floor: float
    unpaired: tuple[str, ...]


def compare_reports(before: Report, after: Report) -> Differences:
    """Hold one report against another.

    Raises:
        UsageError: they are of other data or another kind of output, or have no model in common.
    """
    _same_subject(before, after)
    matched = _pairs(before.models, after.models)
    if not matched:
        raise UsageError(
            "the two reports have no model in common: none of the same name, precision and size, nor the only one of "
            "its precision and size in both",
            "Compare reports of the same models",
        )
    shifts = [_shift(a, b) for a, b in matched if _same_file(a, b)]
    # Where a file that has not changed takes another time, so much is the machine's.
    floor = max([SAME_SPEED, *(abs(shift) for shift in shifts if shift is not None)])
    taken = {id(model) for pair in matched for model in pair}
    return Differences(
        pairs=tuple(_pair(a, b, before, after, SAME_SPEED if _same_file(a, b) else floor) for a, b in matched),
        machines=_machines(before, after),
        software=_software(before, after),
        floor=floor,
        unpaired=tuple(m.name for report in (before, after) for m in report.models if id(m) not in taken),
    )


def _same_subject(before: Report, after: Report) -> None:
    if before.output != after.output:
        raise UsageError(f"one report is of {before.output} and the other of {after.output}", "Compare like with like")
    for field, meaning in (("name", "data"), ("split", "split"), ("frames", "frames"), ("targets", "targets")):
        one, other = getattr(before.data, field), getattr(after.data, field)
        if one != other:
            raise UsageError(
                f"the two reports are not of the same data: {meaning} {one} and {other}",
                "Run 'irforge bench' again with the same --data and --limit",
            )


def _pairs(before: Sequence[Model], after: Sequence[Model]) -> list[tuple[Model, Model]]:
    def exact(model: Model) -> tuple[object, ...]:
        return model.name, *alike(model)

    def alike(model: Model) -> tuple[object, ...]:
        return model.role, model.precision, model.height, model.width

    found: dict[int, tuple[Model, Model]] = {}
    left_before, left_after = list(before), list(after)
    for key in (exact, alike):
        ones, others = Counter(map(key, left_before)), Counter(map(key, left_after))
        by_key = {key(model): model for model in left_after}
        for model in left_before:
            if ones[key(model)] == others[key(model)] == 1:
                found[id(model)] = (model, by_key[key(model)])
        left_before = [m for m in left_before if id(m) not in found]
        partners = {id(other) for _, other in found.values()}
        left_after = [m for m in left_after if id(m) not in partners]
    return [found[id(model)] for model in before if id(model) in found]


def _pair(a: Model, b: Model, before: Report, after: Report, floor: float) -> Pair:
    changes = [*_latency(a.latency, b.latency, floor), *_accuracy(a, b, before, after), *_counted(a, b)]
    return Pair(a, b, _same_file(a, b), tuple(changes), tuple(_cautions(a, b)))


def _same_file(a: Model, b: Model) -> bool:
    return a.sha256 == b.sha256 and a.backend == b.backend and a.device == b.device


def _cautions(a: Model, b: Model) -> list[str]:
    facts = {
        "name": (a.name, b.name),
        "backend": (a.backend, b.backend),
        "device": (a.device, b.device),
        "protocol": (a.protocol, b.protocol),
        "threshold": (a.threshold, b.threshold),
        "threads": (a.latency.threads if a.latency else None, b.latency.threads if b.latency else None),
    }
    return [f"{name} {one} and {other}" for name, (one, other) in facts.items() if one != other]


def _shift(a: Model, b: Model) -> float | None:
    if a.latency is None or b.latency is None or not a.latency.host.p50:
        return None
    return b.latency.host.p50 / a.latency.host.p50 - 1


def _latency(a: Latency | None, b: Latency | None, floor: float) -> list[Change]:
    if a is None or b is None:
        return []
    changes = []
    for clock, title in (("frame", "frame p50"), ("host", "host p50"), ("gpu", "GPU p50")):
        one: Distribution | None = getattr(a, clock)
        other: Distribution | None = getattr(b, clock)
        if one is None or other is None:
            continue
        before, after = (getattr(part.by_round, clock) if part.by_round else None for part in (a, b))
        verdict, why = judge_medians(before, after, floor)
        changes.append(Change(title, one.p50, other.p50, verdict, why, "ms", -1))
    verdict, why = judge_tails(a, b, floor)
    changes.append(Change("frame p99", a.frame.p99, b.frame.p99, verdict, why, "ms", -1))
    return changes


def _accuracy(a: Model, b: Model, before: Report, after: Report) -> list[Change]:
    if a.accuracy is None or b.accuracy is None:
        return []
    changes = []
    if a.accuracy.pd is not None and b.accuracy.pd is not None:
        one, other = ((part.found, part.targets) for part in (a.accuracy, b.accuracy))
        verdict, why = judge_found(one, other, _discordant(a, b, before, after))
        changes.append(Change("Pd", a.accuracy.pd, b.accuracy.pd, verdict, why, "rate", 1))
    for name, field, better in _FIGURES:
        old, new = getattr(a.accuracy, field, None), getattr(b.accuracy, field, None)
        if old is not None and new is not None:
            unit = "" if "100 frames" in name else "rate"
            why = "" if old == new else "the reports do not hold it frame by frame"
            changes.append(Change(name, old, new, "noise" if old == new else "unknown", why, unit, better))
    return changes


def _discordant(a: Model, b: Model, before: Report, after: Report) -> tuple[int, int] | None:
    """Targets that only the first and only the second found, from what each lost and gained against one reference."""
    one, other = _against_reference(a, before), _against_reference(b, after)
    if one is None or other is None or one[0] != other[0]:
        return None
    (_, lost_a, gained_a), (_, lost_b, gained_b) = one, other
    only_a = (gained_a - gained_b) | (lost_b - lost_a)
    only_b = (gained_b - gained_a) | (lost_a - lost_b)
    return len(only_a), len(only_b)


def _against_reference(model: Model, report: Report) -> tuple[str, Targets, Targets] | None:
    if model.parity is None:
        # The reference itself, of which others tell.
        return (model.sha256, set(), set()) if model.name in report.references else None
    reference = next((m for m in report.models if m.name == model.parity.reference), None)
    if reference is None or not _all_named(model.parity):
        return None
    lost, gained = (
        {(c.frame, c.row, c.column) for c in model.parity.changes if c.kind == kind} for kind in ("lost", "gained")
    )
    return reference.sha256, lost, gained


def _all_named(parity: Parity) -> bool:
    return len(parity.changes) == sum(size.lost + size.gained for size in parity.by_size)


def _counted(a: Model, b: Model) -> list[Change]:
    changes = [Change("file bytes", a.file_bytes, b.file_bytes, "counted", "", "bytes", -1)]
    one, other = chosen_engine(a), chosen_engine(b)
    if one is None or other is None or one.targets != other.targets:
        return changes
    for name, field, unit in (("kernels", "kernels", ""), ("bytes moved", "bytes_moved", "bytes"),
                              ("peak memory", "peak_bytes", "bytes")):  # fmt: skip
        values = getattr(one, field), getattr(other, field)
        if None not in values:
            changes.append(Change(name, *values, "counted", _compiled(one, other), unit, -1))
    return changes


def _compiled(one: EngineFacts, other: EngineFacts) -> str:
    return "" if one.runtime == other.runtime else f"by {one.runtime} and {other.runtime}"


def _machines(before: Report, after: Report) -> tuple[str, ...]:
    a, b = before.environment, after.environment
    facts = {
        "processor": (a.cpu, b.cpu),
        "GPU": (a.gpu, b.gpu),
        "cores": (a.cores, b.cores),
        "memory": (a.memory_bytes, b.memory_bytes),
        "threads": (a.threads, b.threads),
    }
    return tuple(f"{name} {one} and {other}" for name, (one, other) in facts.items() if one != other)


def _software(before: Report, after: Report) -> tuple[str, ...]:
    one, other = before.environment, after.environment
    names = [name for name in {**one.packages, **other.packages} if one.packages.get(name) != other.packages.get(name)]
    facts = [f"{name} {one.packages.get(name, 'absent')} and {other.packages.get(name, 'absent')}" for name in names]
    systems = [f"system {one.system} and {other.system}"] if one.system != other.system else []
    return (*systems, *facts)
