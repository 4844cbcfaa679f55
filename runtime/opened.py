"""One model of a measurement: opened, past its first frame, and alone over minutes and in batches."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from irforge.contract import Contract
from irforge.frames import Frame
from irforge.runtime.benchmark import WINDOWS, Timed, measure_batches, measure_sustained
from irforge.runtime.detector import SessionDetector
from irforge.runtime.power import Probe, Watch, gpu_bytes, resident_bytes
from irforge.runtime.report.times import BatchPoint, ColdStart, Memory, Readings, Sustained
from irforge.runtime.rescoring import SessionRescorer, open_rescorer
from irforge.runtime.sidecar import read_sidecar
from irforge.runtime.tiling import TILES_A_RUN, TiledDetector

if TYPE_CHECKING:
    from irforge.runtime.measure import Entry, Plan, Progress

_LIBRARIES = ("onnxruntime", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "torch")


@dataclass
class Watched:
    """What can be read of the machine, and what was."""

    probes: list[Probe]
    interval: float
    readings: list[Readings] = field(default_factory=list)

    def during(self, what: str) -> Watch:
        return Watch(self.probes, what, self.interval)


@dataclass
class Opened:
    """A model that is ready: its detector, and what it took to get there; and, later, how it held out."""

    detector: Timed
    rescorer: SessionRescorer | None
    start: ColdStart
    memory: Memory
    sustained: Sustained | None = None
    batches: list[BatchPoint] = field(default_factory=list)
    batch_note: str = ""


def open_entry(
    entry: Entry, contract: Contract, home: Path, frame: Frame, threads: int, watched: Watched, stack: ExitStack
) -> Opened:
    """The model of an entry, open and with its first frame behind it."""
    known, resident, on_gpu = set(sys.modules), resident_bytes(), gpu_bytes(watched.probes)
    begin = perf_counter()
    session = stack.enter_context(entry.open())
    rescorer = open_rescorer(entry.contract, entry.path if entry.role == "candidate" else home, threads)
    if rescorer is not None:
        stack.enter_context(rescorer)
    detector = _detector(SessionDetector(session, contract, entry.name, rescorer=rescorer), entry)
    ready = perf_counter()
    loaded = [name for name in _LIBRARIES if name in sys.modules and name not in known]
    first = perf_counter()
    detector(frame)
    start = ColdStart(opening=1e3 * (ready - begin), first_frame=1e3 * (perf_counter() - first), loaded=loaded)
    memory = Memory(before=resident, after=resident_bytes(), gpu_before=on_gpu, gpu_after=gpu_bytes(watched.probes))
    return Opened(detector, rescorer, start, memory)


def _detector(detector: SessionDetector, entry: Entry) -> Timed:
    fit = detector.contract.input.fit
    if fit.kind != "tile":
        return detector
    most = None if detector.batch else _largest_batch(entry)
    return TiledDetector(detector, fit.overlap, most and min(most, TILES_A_RUN))


def run_alone(
    entry: Entry, model: Opened, frames: Sequence[Frame], plan: Plan, watched: Watched, progress: Progress
) -> None:
    """What one model does by itself, where the plan asks for it: minutes on end, and in batches."""
    if plan.sustained:
        tick = progress(f"{entry.name}: sustained", min(WINDOWS, int(plan.sustained) or 1))
        with watched.during("sustained") as watch:
            sustained = measure_sustained(model.detector, frames, plan.sustained, tick=tick)
        model.sustained = sustained.model_copy(update={"readings": watch.readings})
    if not plan.batches:
        return
    if isinstance(model.detector, TiledDetector):
        model.batch_note = f"the tiles of a frame fill its batches, of {model.detector.tiles_a_run}"
        return
    fixed, most = model.detector.batch, _largest_batch(entry)
    if fixed:
        model.batch_note = f"its batch is fixed at {fixed}"
        return
    fitting = [batch for batch in plan.batches if most is None or batch <= most]
    if len(fitting) < len(plan.batches):
        model.batch_note = f"its engine takes batches of up to {most}"
    calls = plan.schedule.rounds * plan.schedule.frames_per_round
    tick = progress(f"{entry.name}: batches", calls * len(fitting))
    model.batches = measure_batches(model.detector, frames, fitting, plan.schedule, tick=tick)


def _largest_batch(entry: Entry) -> int | None:
    """Of an engine, what its profile ends at; None where nothing limits it."""
    if not entry.path.name.endswith(".engine"):
        return None
    bounds = read_sidecar(entry.path).profile.get(entry.contract.input.name)
    return bounds[-1][0] if bounds else None
