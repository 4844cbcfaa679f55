"""A study in steps, each of which leaves one JSON file: whoever finds it there goes on to the next one.

Workers share a folder and nothing else. A step is taken by a lock on a file, which the system lets go when its worker
dies, so that a run may be killed and started again at any time. Training goes on from its last whole epoch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import typer

from irforge import files
from irforge.errors import UsageError
from irforge.train.checkpoint import read_contract
from irforge.train.recipe import Recipe
from irforge.train.run import FINAL, LAST, run_training

Say = Callable[[str], None]


class Named(Protocol):
    """A step: its name is that of its files."""

    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=Named)


class Study(ABC, Generic[S]):
    """What a study of trainings is made of; `out` is the folder of all its files."""

    out: Path
    data_root: str | None

    @property
    @abstractmethod
    def steps(self) -> list[S]:
        """In the order of their use, so that what is there can always be compared."""

    @abstractmethod
    def recipe(self, step: S) -> Recipe:
        """What a step trains by."""

    @abstractmethod
    def key(self, step: S) -> str:
        """A hash of all that a step's figures depend on: recipes and data."""

    @abstractmethod
    def measured(self, step: S, weights: Path) -> dict[str, Any]:
        """The figures of a trained step, ready for JSON."""

    def start(self, step: S) -> Path | None:
        """The weights that a step's training starts from; None for random ones."""
        return None

    def is_ready(self, step: S) -> bool:
        """Is all there that a step starts from?"""
        return True

    def keeps(self, step: S) -> tuple[str, ...]:
        """Files of a finished training that are not removed."""
        return (FINAL,)

    def record(self, step: S) -> dict[str, Any] | None:
        """What a finished step wrote.

        Raises:
            UsageError: it was made by another recipe or on other data.
        """
        path = self._file(step, ".json")
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_bytes())
        if found["key"] != self.key(step):
            raise UsageError(
                f"'{path}' was made by another recipe or for other data", "Choose another folder with --out"
            )
        return found

    def run(self, step: S, say: Say) -> None:
        """Train and measure one step, and write its file."""
        begin = time.perf_counter()
        folder = self.out / step.name
        resumed = (folder / LAST).is_file()
        say(f"{step.name}: {'goes on' if resumed else 'begins'}")
        start = self.start(step)
        # Between the last epoch and the measurement there is nothing left to train.
        if not (resumed and self._is_trained(step)):
            run_training(self.recipe(step), step.name, folder, resume=resumed, data_root=self.data_root, weights=start)
        trained = time.perf_counter()
        record = {"step": step.name, "key": self.key(step), "resumed": resumed}
        record |= self.measured(step, folder / FINAL)
        record |= {"train_seconds": trained - begin, "evaluate_seconds": time.perf_counter() - trained}
        files.write_json(self._file(step, ".json"), record)
        for name in {LAST, FINAL} - set(self.keeps(step)):
            (folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def taken(self, step: S) -> Iterator[bool]:
        """True inside where this worker has the step for itself, and it is not done yet."""
        path = self._file(step, ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield self.record(step) is None

    def work(self, say: Say) -> None:
        """Take steps until none is left; where other workers have all that can be done now, wait for them."""
        while any(self.record(step) is None for step in self.steps):
            for step in self.steps:
                if self.record(step) is not None or not self.is_ready(step):
                    continue
                with self.taken(step) as mine:
                    if mine:
                        self.run(step, say)
                        break
            else:
                time.sleep(2)
            done = sum(self.record(step) is not None for step in self.steps)
            say(f"{done} of {len(self.steps)} steps are done")

    def _file(self, step: S, ending: str) -> Path:
        return self.out / "steps" / f"{step.name}{ending}"

    def _is_trained(self, step: S) -> bool:
        weights = self.out / step.name / FINAL
        return weights.is_file() and read_contract(weights).provenance.epochs == self.recipe(step).epochs


def run_study(study: Study[Any], *, minutes: float | None, jobs: int, threads: int | None, begin: float) -> None:
    """Work on a study in several processes, this one among them, until it is done or the time is over.

    Args:
        study: of the command that this process was started by, which the other workers are started by too.
        minutes: since `begin`, a time of `time.monotonic`.
        threads: of each process; None shares the cores out.
    """
    import torch

    share = threads or max((os.cpu_count() or 1) // jobs, 1)
    torch.set_num_threads(share)
    end = None if minutes is None else begin + 60 * minutes

    def say(text: str) -> None:
        typer.echo(f"{(time.monotonic() - begin) / 60:6.1f} min  {text}", err=True)

    workers = [_worker(study.out, number, share, end) for number in range(1, jobs)]
    before = signal.signal(signal.SIGALRM, _interrupt)
    try:
        if end is not None:
            signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 0.001))
        study.work(say)
    except KeyboardInterrupt:
        if end is None or time.monotonic() < end:
            raise
        say("the time is over; the same command goes on")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for child in workers:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        for child in workers:
            child.wait()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _worker(out: Path, number: int, threads: int, end: float | None) -> subprocess.Popen[bytes]:
    """Another worker on the same folder: this command with one job, and the time that is left."""
    command = [sys.executable, *sys.argv, "--jobs", "1", "--threads", str(threads)]
    if end is not None:
        command += ["--minutes", str(max((end - time.monotonic()) / 60, 0.01))]
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"worker{number}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def verdict(gain: Any, draws: str = "draw") -> str:
    """What an interval (`irforge.metrics.fewshot.Interval`) supports: `gain` or `loss` where 0 lies outside."""
    if gain.half is None:
        return f"one {draws} shows nothing"
    return "gain" if gain.is_above(0) else "loss" if gain.is_below(0) else "not shown"
