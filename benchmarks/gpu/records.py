"""What OUT/gpu.json holds: a record type for each kind of result, and the report that gathers them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from irforge.errors import UsageError
from irforge.files import write_json


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds of one call: percentiles of `n` samples."""

    p10: float
    p50: float
    p90: float
    p99: float
    n: int


@dataclass(frozen=True, kw_only=True)
class NativeTest:
    """One test of the C++ programs. `tool`: 'ctest' or 'compute-sanitizer'; `outcome`: passed, failed or skipped."""

    tool: str
    name: str
    outcome: str
    seconds: float
    detail: str = ""

    @property
    def failure(self) -> str:
        return (self.detail or "failed") if self.outcome == "failed" else ""


@dataclass(frozen=True, kw_only=True)
class KernelCheck:
    """A kernel against float64; errors in units of the last place of its output, for int8 in steps before rounding."""

    op: str
    variant: str
    shape: list[int]
    max_error: float | None
    limit: float
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A device-to-device copy; bytes are those read and those written."""

    bytes_moved: int
    times: Times
    gb_per_s: float


@dataclass(frozen=True, kw_only=True)
class GateTiming:
    """One form of an op: 'kernel', 'eager' or 'torch.compile'.

    Attributes:
        sets: how many sets of inputs and outputs take turns.
        set_bytes: what one call must move at least: inputs read once, outputs written once.
    """

    op: str
    variant: str
    shape: list[int]
    form: str
    cuda_graph: bool
    sets: int
    set_bytes: int
    times: Times | None = None
    gb_per_s: float | None = None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A promise, and what was measured."""

    name: str
    value: float
    at_least: float

    @property
    def failure(self) -> str:
        return "" if self.value >= self.at_least else f"{self.value:.3g}, promised at least {self.at_least:g}"


@dataclass(frozen=True, kw_only=True)
class NetworkTiming:
    """One network in torch. `max_difference`: from its own FP32 output, as a share of the largest FP32 value."""

    network: str
    shape: list[int]
    mode: str
    times: Times | None = None
    max_difference: float | None = None
    failure: str = ""

    @property
    def label(self) -> str:
        return f"{self.network} {self.shape} in {self.mode}"


@dataclass(frozen=True, kw_only=True)
class PartTiming:
    """A part of a detector, exported by itself, on one backend.

    Attributes:
        form: 'body', 'body, merged' or 'plugin'; see `benchmarks.gpu.neck`.
        max_difference, largest: the largest difference from torch in FP32 on the CPU, and torch's largest value.
        clocks: by mode ('cuda graph', 'no graph') and clock ('gpu', 'host') percentiles in milliseconds, as
            `irforge.runtime.clocks.distribution` gives them.
    """

    part: str
    shape: list[int]
    precision: str
    form: str
    backend: str
    custom_ops: str = ""
    build_seconds: float | None = None
    engine_bytes: int | None = None
    proofs: list[dict[str, Any]] = field(default_factory=list)
    proof_unavailable: str = ""
    max_difference: float | None = None
    largest: float | None = None
    clocks: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    failure: str = ""

    @property
    def best(self) -> dict[str, dict[str, float]]:
        """The clocks as users would run it: with a CUDA graph where there is one."""
        return self.clocks.get("cuda graph") or self.clocks.get("no graph") or {}


@dataclass(frozen=True, kw_only=True)
class Note:
    """A step, or a part of one, that was skipped or failed, and why."""

    step: str
    reason: str


_LISTS: dict[str, Any] = {
    "native_tests": NativeTest,
    "checks": KernelCheck,
    "copies": Copy,
    "gates": GateTiming,
    "targets": Target,
    "networks": NetworkTiming,
    "parts": PartTiming,
    "skipped": Note,
    "failed": Note,
}


@dataclass
class Report:
    """All that one run found. `results` holds one dictionary an engine, as `engines.check` makes them."""

    date: str
    gpu: dict[str, Any]
    versions: dict[str, str]
    l2_bytes: int | None = None
    native_tests: list[NativeTest] = field(default_factory=list)
    checks: list[KernelCheck] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    gates: list[GateTiming] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    networks: list[NetworkTiming] = field(default_factory=list)
    parts: list[PartTiming] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report in a file that `write` made."""
        found = json.loads(path.read_text())
        for name, kind in _LISTS.items():
            found[name] = [_record(kind, values) for values in found[name]]
        return cls(**found)

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    def joined(self, other: Report) -> Report:
        """This report and one of another run on the same kind of GPU, whose steps and networks are others.

        Raises:
            UsageError: the GPUs differ.
        """
        if self.gpu != other.gpu:
            raise UsageError(
                f"one run was on {self.gpu['name']}, the other on {other.gpu['name']}", "Render a page for each GPU"
            )
        lists = {name: [*getattr(self, name), *getattr(other, name)] for name in (*_LISTS, "results")}
        measured = tuple(f"{network.label}:" for network in lists["networks"] if network.times)
        lists["skipped"] = [note for note in lists["skipped"] if not note.reason.startswith(measured)]
        seconds = {
            step: round(self.seconds.get(step, 0) + other.seconds.get(step, 0), 1)
            for step in {**self.seconds, **other.seconds}
        }
        both = {**lists, "seconds": seconds, "l2_bytes": self.l2_bytes or other.l2_bytes}
        return replace(self, versions={**other.versions, **self.versions}, **both)

    def failures(self) -> list[str]:
        """One line for each check that failed and each step that broke off."""
        lines = [f"{note.step}: {note.reason}" for note in self.failed]
        lines += [f"{test.tool} {test.name}: {test.failure}" for test in self.native_tests if test.failure]
        lines += [f"{made.op} {made.variant} {made.shape}: {made.failure}" for made in self.checks if made.failure]
        lines += [f"{gate.op} {gate.variant}, {gate.form}: {gate.failure}" for gate in self.gates if gate.failure]
        lines += [f"{target.name}: {target.failure}" for target in self.targets if target.failure]
        lines += [f"{net.network} {net.shape}, {net.mode}: {net.failure}" for net in self.networks if net.failure]
        lines += [
            f"{made.part} {made.shape} {made.precision}, {made.form} on {made.backend}: {made.failure}"
            for made in self.parts
            if made.failure
        ]
        lines += [f"{r['model']} on {r['backend']}: {r['failure']}" for r in self.results if r["failure"]]
        return lines


def _record(kind: Any, values: dict[str, Any]) -> Any:
    known = {entry.name for entry in fields(kind)}
    kept = {name: value for name, value in values.items() if name in known}
    if kept.get("times"):
        kept["times"] = Times(**kept["times"])
    return kind(**kept)


def picked(records: Sequence[Any], **wanted: Any) -> list[Any]:
    """The records whose attributes have these values."""
    return [record for record in records if all(getattr(record, name) == value for name, value in wanted.items())]
