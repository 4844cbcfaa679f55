"""Who works on a batch: processes of this machine, or actors of Ray."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from irforge.errors import EnvironmentFault, IrforgeError
from irforge.runtime.backends import ONNX_CPU, choose_backend
from irforge.runtime.backends.device import gpus
from irforge.runtime.batch_plan import Job, Recipe
from irforge.runtime.batch_work import Outcome, Worker

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_STOP_SECONDS = 20.0


def in_processes(recipe: Recipe, jobs: Sequence[Job], count: int | None = None) -> Iterator[Outcome]:
    """Run videos in processes of this machine; outcomes come as videos are done.

    A process that dies is the outcome of the video it was at, and another one takes its place. Where the iteration is
    left early, videos under way are dropped whole.

    Args:
        count: processes. None is one for each GPU, or without one as many as there are CPU cores, which they share.

    Raises:
        IrforgeError: the model cannot be loaded.
    """
    devices = _visible_gpus() if choose_backend(recipe.model, recipe.backend) != ONNX_CPU else []
    cores = _cores()
    count = min(count or len(devices) or cores, len(jobs))
    recipe = replace(recipe, threads=recipe.threads or max(1, cores // count))
    waiting, hands = deque(jobs), []
    try:
        hands = [_Hand.started(recipe, devices[k % len(devices)] if devices else None) for k in range(count)]
        for hand in hands:
            hand.give(waiting.popleft())
        while busy := {hand.pipe: hand for hand in hands if hand.job is not None}:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                hand = busy[pipe]
                outcome = hand.taken()
                if waiting and not hand.process.is_alive():
                    hands[hands.index(hand)] = hand = hand.renewed()
                if waiting:
                    hand.give(waiting.popleft())
                yield outcome
    finally:
        for hand in hands:
            hand.stop()


@dataclass(eq=False)
class _Hand:
    """A process that runs one video after the other."""

    recipe: Recipe
    device: str | None
    process: Any
    pipe: Connection
    job: Job | None = None

    @classmethod
    def started(cls, recipe: Recipe, device: str | None) -> _Hand:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, recipe, device), daemon=True)
        # Ctrl-C goes to the whole group; who has work under way is stopped by us, once.
        with _deaf_to_ctrl_c():
            process.start()
        theirs.close()
        return cls(recipe, device, process, ours)

    def renewed(self) -> _Hand:
        self.stop()
        return _Hand.started(self.recipe, self.device)

    def give(self, job: Job) -> None:
        self.job = job
        self.pipe.send(job)

    def taken(self) -> Outcome:
        job, self.job = self.job, None
        assert job is not None
        try:
            outcome = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(_STOP_SECONDS)
            code = self.process.exitcode
            how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with code {code}"
            return Outcome(job.name, error=f"its process ended {how}; too little memory is a common cause")
        if isinstance(outcome, IrforgeError):
            raise outcome
        assert isinstance(outcome, Outcome)
        return outcome

    def stop(self) -> None:
        self.pipe.close()
        if self.job is not None:
            self.process.terminate()
        self.process.join(_STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def serve(pipe: Connection, recipe: Recipe, device: str | None) -> None:
    """The life of a worker process: videos in, outcomes out, until the pipe ends or SIGTERM."""

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    if device is not None:
        os.environ[_VISIBLE] = device
    worker = None
    try:
        while True:
            job = pipe.recv()
            try:
                worker = worker or Worker(recipe)
            except IrforgeError as error:
                pipe.send(error)
                return
            pipe.send(worker(job))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _visible_gpus() -> list[str]:
    named = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
    return named or [str(number) for number in range(len(gpus()))]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ray_package() -> Any:
    """The package `ray`, with its reports of use switched off.

    Raises:
        EnvironmentFault: it is not here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Only a warning about what a future version will do with devices otherwise.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"--ray needs Ray, and there is no '{error.name}' here", "pip install 'irforge[ray]'"
        ) from None
    return ray


def on_ray(recipe: Recipe, jobs: Sequence[Job], count: int | None = None) -> Iterator[Outcome]:
    """Run videos by Ray Data, one actor a GPU; outcomes come as videos are done.

    The model, the videos and the results have to lie where every machine of the cluster sees them, under one path, and
    irforge has to be installed there. Without RAY_ADDRESS, or a cluster on this machine, Ray starts one here.

    Args:
        count: actors. None is one for each GPU of the cluster, or without one, for each CPU core.

    Raises:
        EnvironmentFault: Ray is not installed, or the cluster has no GPU where the model needs one.
    """
    ray = ray_package()
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # noqa: BLE001 - a plain Exception is what Ray raises where its processes do not start
            raise EnvironmentFault(
                f"Ray does not start here: {error}", "Look at its logs in /tmp/ray/session_latest"
            ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A machine that is lost costs the videos it was at, not the others.
    context.max_errored_blocks = -1
    resources = ray.cluster_resources()
    on_gpu = choose_backend(recipe.model, recipe.backend) != ONNX_CPU
    threads = recipe.threads or 1
    there = int(resources.get("GPU", 0)) if on_gpu else int(resources.get("CPU", 1)) // threads
    if not there:
        what = "no GPU" if on_gpu else f"fewer than {threads} CPU cores"
        raise EnvironmentFault(f"the Ray cluster has {what}", "Give it some, or leave --ray out")
    count = min(count or there, there, len(jobs))
    rows = [{"job": asdict(job)} for job in jobs]
    done = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(
            RayWorker,
            fn_constructor_args=(replace(recipe, threads=threads),),
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=threads,
            num_gpus=1 if on_gpu else 0,
        )
        .iter_rows()
    )
    left = {job.name for job in jobs}
    for row in done:
        outcome = Outcome(**row)
        left.discard(outcome.name)
        yield outcome
    for name in sorted(left):
        yield Outcome(name, error="its worker on Ray was lost; Ray's logs say more")


class RayWorker:
    """A `Worker` as an actor of Ray Data: a row with a job in, a row with its outcome out."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._worker: Worker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        job = Job(**row["job"])
        try:
            # Not when the actor is made: Ray would make it again and again.
            self._worker = self._worker or Worker(self._recipe)
        except IrforgeError as error:
            return asdict(Outcome(job.name, error=error.line))
        return asdict(self._worker(job))
