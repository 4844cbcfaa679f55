"""What a step of the GPU script is given, and how it is run: in a process of its own.

A kernel that reads outside its memory ends the CUDA context of its process, and a compiler can hang; neither may cost
the run what other steps find.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.gpu.records import Note, Report
from irforge.errors import EnvironmentFault, IrforgeError

# Between the moment after which nothing new is begun and the end of a step that has not come back.
GRACE_SECONDS = 20.0


@dataclass
class Run:
    """The state of one step.

    Attributes:
        out: the folder of gpu.json.
        step: the step's name.
        report: what is known so far; `add` writes it.
        deadline: of `time.monotonic`, after which nothing new is begun.
        checkpoint, models: what engines are built of.
    """

    out: Path
    step: str
    report: Report
    deadline: float
    checkpoint: Path | None = None
    models: list[Path] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.out / "gpu.json"

    @property
    def build(self) -> Path:
        return self.out / "build"

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def has_time(self, what: str, seconds: float) -> bool:
        """Whether there are `seconds` left for `what`; if not, it is listed as skipped."""
        if self.seconds_left() >= seconds:
            return True
        self.skip(f"{what}: out of time")
        return False

    def add(self, kind: str, record: Any) -> None:
        """Record one result in the report's list `kind`, on disk too."""
        getattr(self.report, kind).append(record)
        self.report.write(self.file)

    def skip(self, reason: str) -> None:
        self.add("skipped", Note(step=self.step, reason=reason))

    def fail(self, reason: str) -> None:
        self.add("failed", Note(step=self.step, reason=reason))


@dataclass(frozen=True)
class Step:
    """A step's function as 'module:name', what it does in a few words, and the most seconds it may take."""

    function: str
    what: str
    seconds: float


def run_isolated(step: Step, run: Run) -> None:
    """Run a step in a child process and read back what it recorded; a step that breaks off is recorded as failed."""
    seconds = min(step.seconds, run.seconds_left())
    start = time.monotonic()
    run.report.write(run.file)
    child = multiprocessing.get_context("spawn").Process(
        target=_run_in_child, args=(step.function, run.out, run.step, seconds, run.checkpoint, run.models)
    )
    child.start()
    try:
        child.join(seconds + GRACE_SECONDS)
        late = child.is_alive()
    finally:
        _end(child)
    run.report = Report.read(run.file)
    if late:
        run.fail(f"stopped after {seconds + GRACE_SECONDS:.0f} s")
    elif child.exitcode and not any(note.step == run.step for note in run.report.failed):
        run.fail(f"its process ended with {child.exitcode}")
    run.report.seconds[run.step] = round(time.monotonic() - start, 1)
    run.report.write(run.file)


def _end(child: BaseProcess) -> None:
    """End a step and whatever it started: a compiler that goes on would be timed along with the next step."""
    if child.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.join()


def _run_in_child(
    function: str, out: Path, name: str, seconds: float, checkpoint: Path | None, models: list[Path]
) -> None:
    os.setsid()
    deadline = time.monotonic() + seconds
    run_guarded(function, Run(out, name, Report.read(out / "gpu.json"), deadline, checkpoint, models))


def run_guarded(function: str, run: Run) -> None:
    """Run a step's function. What this machine lacks is recorded as skipped, a failure of ours as failed; anything else
    is recorded and raised."""
    module, name = function.split(":")
    try:
        getattr(import_module(module), name)(run)
    except EnvironmentFault as error:
        run.skip(error.line)
    except ModuleNotFoundError as error:
        run.skip(f"no Python package '{error.name}' here")
    except IrforgeError as error:
        run.fail(error.line)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        run.fail(f"{type(error).__name__}: {text}" if text else type(error).__name__)
        raise
