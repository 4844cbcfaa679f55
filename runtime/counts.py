"""What a pipeline did: frames, busy stages, ages; in memory that does not grow with the frames."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from time import perf_counter

from irforge.runtime.clocks import distribution
from irforge.session import StageTimes

# Percentiles are over this many frames, the latest: enough for p99, whatever the run's length.
RECENT = 10_000
STAGES = ("read", "prepare", "infer", "decode", "publish")


@dataclass
class Counts:
    """Frames and times of a run; read it during the run or after it.

    read: frames that sources gave. dropped: of those, replaced by newer ones before anything was done with them.
    inferred: of those, run through the graph, in `runs` runs. published: handed out with their `detections`.
    busy: seconds that each stage worked, not waited; stages overlap, so that the sum exceeds `seconds`.
    ages: seconds from a frame's capture to when its detections were handed out, of live sources.
    """

    read: int = 0
    dropped: int = 0
    inferred: int = 0
    runs: int = 0
    published: int = 0
    detections: int = 0
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    times: deque[StageTimes] = field(default_factory=lambda: deque(maxlen=RECENT))
    ages: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    started: float = field(default_factory=perf_counter)
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """For people: frames, detections and each stage's p50/p99; and where frames were dropped or have an age, a
        second line with that, and with the share of the run that each stage was busy."""
        extra = self.times[0].extra if self.times else ()
        spent = {name: [getattr(time, name) for time in self.times] for name in ("prepare", "infer", "decode")}
        spent |= {name: [time.extra[name] for time in self.times] for name in extra}
        stages = [f"{name} {_spread(seconds)}" for name, seconds in spent.items() if seconds]
        first = f"{self.published} frames, {self.detections} detections"
        lines = [f"{first}; ms at p50/p99: {', '.join(stages)}" if stages else first]
        if self.dropped or self.ages:
            age = f"; age of a detection in ms at p50/p99: {_spread(list(self.ages))}" if self.ages else ""
            busy = ", ".join(f"{name} {seconds / max(self.seconds, 1e-9):.0%}" for name, seconds in self.busy.items())
            lines.append(f"read {self.read}, dropped {self.dropped}{age}; busy: {busy}")
        return lines


def _spread(seconds: list[float]) -> str:
    spread = distribution(seconds)
    return f"{spread.p50:.2f}/{spread.p99:.2f}"
