"""How long does a frame take? Three clocks and the host's stages, with the models taking turns; then one model alone,
over minutes and over batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from irforge.errors import UsageError
from irforge.frames import Frame
from irforge.runtime.clocks import distribution, drift, median
from irforge.runtime.detector import SessionDetector
from irforge.runtime.power import resident_bytes
from irforge.runtime.report.times import BatchPoint, Latency, RoundMedians, Sustained, Window
from irforge.runtime.tiling import TiledDetector

Timed = SessionDetector | TiledDetector
"""A frame is a whole one for both."""

WINDOWS = 60
"""Parts of a sustained run: enough for its shape, and few enough that each p99 has its calls."""


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

    def medians(self, seconds: Sequence[float]) -> list[float]:
        """Each round's p50 in milliseconds, of the call times of one model."""
        n = self.frames_per_round
        return [1e3 * median(seconds[first : first + n]) for first in range(0, len(seconds), n)]


def measure_latency(
    detectors: Mapping[str, Timed],
    frames: Sequence[Frame],
    schedule: Schedule,
    *,
    threads: int,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Latency]:
    """Time every detector on the same frames, interleaved, so that a disturbance strikes all alike.

    The frame clock runs around the whole call, raw frame in, detections out. The host clock is the session's own part
    of that call. The GPU clock is what the session's device reports, if it has one. Where a detector cuts the frame
    into tiles, all of them count.

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


def measure_sustained(
    detector: Timed,
    frames: Sequence[Frame],
    seconds: float,
    *,
    tick: Callable[[], None] = lambda: None,
) -> Sustained:
    """Run one detector without a pause, and see whether its times hold: heat, clocks and memory show after minutes.

    The run is cut into `WINDOWS` parts of equal length, or of a second where it is shorter than that many; a frame
    belongs to the window in which it began.

    Args:
        detector: what runs.
        frames: raw frames, already in memory, used in a cycle.
        seconds: how long; the frame under way at the end is finished and counted.
        tick: called at the end of every window.

    Raises:
        UsageError: no frame, or no time.
    """
    if not frames:
        raise UsageError("there is no frame to time", "Name data that holds frames")
    if not seconds > 0:
        raise UsageError(f"a sustained run of {seconds:g} seconds shows nothing", "Give --sustained some minutes: 300")
    length = max(seconds / WINDOWS, 1.0)
    windows: list[Window] = []
    times: list[float] = []
    first, opened = 0, 0.0
    begin = now = perf_counter()
    while now - begin < seconds:
        detector(frames[len(times) % len(frames)])
        done = perf_counter()
        times.append(done - now)
        now = done
        if now - begin - opened >= length or now - begin >= seconds:
            windows.append(_window(times[first:], opened))
            first, opened = len(times), now - begin
            tick()
            now = perf_counter()
    return Sustained(
        seconds=now - begin,
        frame=distribution(times),
        windows=windows,
        p50_drift=drift([window.p50 for window in windows]),
        p99_drift=drift([window.p99 for window in windows]),
    )


def _window(seconds: Sequence[float], start: float) -> Window:
    times = distribution(seconds)
    return Window(start=start, n=times.n, p50=times.p50, p99=times.p99, max=times.max, resident_bytes=resident_bytes())


def measure_batches(
    detector: SessionDetector,
    frames: Sequence[Frame],
    batches: Sequence[int],
    schedule: Schedule,
    *,
    tick: Callable[[], None] = lambda: None,
) -> list[BatchPoint]:
    """What more frames in one run gain in throughput and cost in latency; batch by batch, smallest first.

    Args:
        detector: of a free batch size.
        frames: raw frames, already in memory, used in a cycle.
        batches: how many frames in a run.
        schedule: `rounds` times `frames_per_round` runs of each batch, after `warm_up` runs.
        tick: called after every counted run.
    """
    points = []
    for batch in sorted(set(batches)):
        part = [frames[i % len(frames)] for i in range(batch)]
        runs: list[float] = []
        host: list[float] = []
        for i in range(schedule.warm_up + schedule.rounds * schedule.frames_per_round):
            start = perf_counter()
            detector.run_batch(part)
            seconds = perf_counter() - start
            if i >= schedule.warm_up:
                runs.append(seconds)
                host.append(detector.last_times.infer)
                tick()
        points.append(
            BatchPoint(
                batch=batch,
                run=distribution(runs),
                host=distribution(host),
                frames_per_second=batch * len(runs) / sum(runs),
            )
        )
    return points


@dataclass
class _Clocks:
    frame: list[float] = field(default_factory=list)
    prepare: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    rescore: list[float] = field(default_factory=list)
    gpu: list[float] = field(default_factory=list)

    def time(self, detector: Timed, frame: Frame) -> None:
        start = perf_counter()
        detector(frame)
        self.frame.append(perf_counter() - start)
        stages, device = detector.last_times, detector.last_timings
        self.prepare.append(stages.prepare)
        self.host.append(stages.infer)
        self.decode.append(stages.decode)
        if "rescore" in stages.extra:
            self.rescore.append(stages.extra["rescore"])
        if device is not None:
            self.gpu.append(device.compute)

    def latency(self, detector: Timed, schedule: Schedule, threads: int) -> Latency:
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
            by_round=RoundMedians(
                frame=schedule.medians(self.frame),
                host=schedule.medians(self.host),
                gpu=schedule.medians(self.gpu) if complete else None,
            ),
            # To the tenth of a microsecond: finer is noise, and the report is read by people too.
            frame_calls=[round(1e3 * seconds, 4) for seconds in self.frame],
        )
