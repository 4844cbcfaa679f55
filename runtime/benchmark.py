"""How long does a frame take? Three clocks and the host's stages, with the models taking turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from irforge.errors import UsageError
from irforge.frames import Frame
from irforge.runtime.clocks import distribution
from irforge.runtime.detector import SessionDetector
from irforge.runtime.report.schema import Latency


@dataclass(frozen=True)
class Schedule:
    """`warm_up` frames a model first, not counted; then `rounds` in which each model takes `frames_per_round` frames
    in turn."""

    rounds: int = 10
    frames_per_round: int = 10
    warm_up: int = 3

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.frames_per_round < 1 or self.warm_up < 0:
            raise UsageError("a measurement needs at least one round of one frame", "Raise --rounds")


def measure_latency(
    detectors: Mapping[str, SessionDetector],
    frames: Sequence[Frame],
    schedule: Schedule,
    *,
    threads: int,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Latency]:
    """Time every detector on the same frames, interleaved, so that a disturbance strikes all alike.

    The frame clock runs around the whole call, raw frame in, detections out. The host clock is the session's own part
    of that call. The GPU clock is what the session's device reports, if it has one.

    Args:
        detectors: by name.
        frames: raw frames, already in memory, used in a cycle.
        threads: what the sessions were opened with, for the record.
        tick: called after every counted frame of every model.

    Raises:
        UsageError: no frame.
    """
    if not frames:
        raise UsageError("there is no frame to time", "Name data that holds frames")
    clocks = {name: _Clocks() for name in detectors}
    for detector in detectors.values():
        for i in range(schedule.warm_up):
            detector(frames[i % len(frames)])
    names = list(detectors)
    for turn in range(schedule.rounds):
        # Who goes first changes: a cache or a clock speed left by the neighbour then favours nobody.
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            for i in range(schedule.frames_per_round):
                clocks[name].time(detectors[name], frames[(turn * schedule.frames_per_round + i) % len(frames)])
                tick()
    return {name: clocks[name].latency(detectors[name], schedule, threads) for name in names}


@dataclass
class _Clocks:
    frame: list[float] = field(default_factory=list)
    prepare: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    rescore: list[float] = field(default_factory=list)
    gpu: list[float] = field(default_factory=list)

    def time(self, detector: SessionDetector, frame: Frame) -> None:
        start = perf_counter()
        detector(frame)
        self.frame.append(perf_counter() - start)
        stages, device = detector.last_times, detector.session.last_timings
        self.prepare.append(stages.prepare)
        self.host.append(stages.infer)
        self.decode.append(stages.decode)
        if "rescore" in stages.extra:
            self.rescore.append(stages.extra["rescore"])
        if device is not None:
            self.gpu.append(device.compute)

    def latency(self, detector: SessionDetector, schedule: Schedule, threads: int) -> Latency:
        session = detector.session
        complete = len(self.gpu) == len(self.frame)
        if complete:
            note = ""
        elif session.device == "cpu":
            note = "this run computed on the CPU, and a GPU's time was not guessed"
        else:
            note = f"{session.backend} does not tell its device's time"
        return Latency(
            gpu=distribution(self.gpu) if complete else None,
            gpu_note=note,
            host=distribution(self.host),
            frame=distribution(self.frame),
            prepare=distribution(self.prepare),
            decode=distribution(self.decode),
            rescore=distribution(self.rescore) if self.rescore else None,
            threads=threads,
            rounds=schedule.rounds,
            frames_per_round=schedule.frames_per_round,
            warm_up=schedule.warm_up,
        )
