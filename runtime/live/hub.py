"""What there is to see: the latest frames with what was found in them, how fast they came, how the source is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from time import monotonic, perf_counter
from typing import Any, Literal

from irforge.runtime.clocks import distribution
from irforge.runtime.counts import Counts
from irforge.runtime.pipeline import Result

Status = Literal["starting", "running", "lost", "ended", "stopped"]

# Percentiles are over the frames of half a minute at a camera's usual rate; the sparkline shows the last of them.
RECENT, DRAWN = 750, 150
_KEPT_FRAMES, _KEPT_BYTES = 48, 64 << 20
_RATE_SECONDS = 2.0


@dataclass(frozen=True, eq=False)
class Shown:
    """A result by its place among all that were ever shown; `latency` in seconds, None for a frame shown again."""

    seq: int
    result: Result
    latency: float | None


class Hub:
    """Between one thread that publishes and any number of viewers, who never make it wait.

    `threshold` and `paused` are what was last asked for; `status` and `note` say how the source is. `version` grows
    with each of them.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.paused = False
        self.status: Status = "starting"
        self.note = ""
        self.version = 0
        self.latest: Shown | None = None
        self._kept: deque[Shown] = deque()
        self._bytes = 0
        self._seq = 0
        self._moments: deque[float] = deque(maxlen=RECENT)
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._past, self._counts = Counts(), Counts()
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called, in the publishing thread, whenever there is something new; returns how to stop it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def count(self, counts: Counts) -> None:
        """Go on with the counts of a pipeline that starts now."""
        with self._lock:
            self._past, self._counts = _sum(self._past, self._counts), counts

    def lines(self) -> list[str]:
        """See `Counts.lines`: of all pipelines together."""
        return _sum(self._past, self._counts).lines()

    def publish(self, result: Result) -> None:
        """Show a result to whoever looks; with it the source is there, whatever was said about it."""
        now = monotonic()
        captured = result.record.captured
        with self._lock:
            self._seq += 1
            shown = Shown(self._seq, result, None if captured is None else now - captured)
            if shown.latency is not None:
                self._moments.append(now)
                self._latencies.append(shown.latency)
            self._kept.append(shown)
            self._bytes += result.record.frame.nbytes
            while len(self._kept) > _KEPT_FRAMES or (self._bytes > _KEPT_BYTES and len(self._kept) > 1):
                self._bytes -= self._kept.popleft().result.record.frame.nbytes
            self.latest = shown
        if self.status == "running":
            self._wake()
        else:
            self.report("running")

    def report(self, status: Status, note: str = "") -> None:
        """Say how the source is."""
        self.status, self.note = status, note
        self.changed()

    def changed(self) -> None:
        """Tell the viewers that something other than the picture is new."""
        self.version += 1
        self._wake()

    def find(self, seq: int) -> Shown | None:
        """A frame that was shown lately; None where it is gone."""
        with self._lock:
            return next((shown for shown in reversed(self._kept) if shown.seq == seq), None)

    def statistics(self) -> dict[str, Any]:
        """JSON-ready: frames and rates since the start, latencies (ms) of the last `RECENT` frames, stage medians (ms).

        `fps` is of the last two seconds, or of the last two frames where those took longer; `still` is how long ago the
        last one was, in seconds. `dropped` were read and replaced by newer ones before anything was done with them.
        """
        with self._lock:
            moments, latencies, past, counts = list(self._moments), list(self._latencies), self._past, self._counts
        now = monotonic()
        spread = distribution(latencies) if latencies else None
        return {
            "published": past.published + counts.published,
            "read": past.read + counts.read,
            "dropped": past.dropped + counts.dropped,
            "fps": _rate(moments, now),
            "still": round(now - moments[-1], 2) if moments else None,
            "p50": round(spread.p50, 2) if spread else None,
            "p99": round(spread.p99, 2) if spread else None,
            "latencies": [round(1e3 * seconds, 2) for seconds in latencies[-DRAWN:]],
            "stages": _stages(counts),
        }

    def _wake(self) -> None:
        for listener in list(self._listeners):
            listener()


def _sum(first: Counts, second: Counts) -> Counts:
    # One that has not ended yet has no length.
    lasted = second.seconds or (perf_counter() - second.started if second.read else 0.0)
    total = Counts(started=first.started, seconds=first.seconds + lasted)
    for name in ("read", "dropped", "inferred", "runs", "published", "detections"):
        setattr(total, name, getattr(first, name) + getattr(second, name))
    total.busy = {stage: first.busy.get(stage, 0.0) + seconds for stage, seconds in second.busy.items()}
    total.times.extend([*first.times, *second.times])
    total.ages.extend([*first.ages, *second.ages])
    return total


def _rate(moments: list[float], now: float) -> float:
    lately = [moment for moment in moments if moment > now - _RATE_SECONDS]
    window = lately if len(lately) > 2 else moments[-2:]
    return round((len(window) - 1) / (now - window[0]), 1) if len(window) > 1 else 0.0


def _stages(counts: Counts) -> dict[str, float]:
    times: list[Any] = []
    # The publishing thread appends meanwhile; the next glance will do.
    with suppress(RuntimeError):
        times = list(counts.times)[-DRAWN:]
    if not times:
        return {}
    spent = {name: [getattr(time, name) for time in times] for name in ("prepare", "infer", "decode")}
    spent |= {name: [time.extra.get(name, 0.0) for time in times] for name in times[-1].extra}
    return {name: round(1e3 * median(seconds), 2) for name, seconds in spent.items()}
