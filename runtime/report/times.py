"""The report's times: distributions, the clocks, how they begin, last and grow with the batch; and what was read of
memory, power and clocks meanwhile."""

from __future__ import annotations

from pydantic import Field, model_validator

from irforge.runtime.report.figures import Part


class Distribution(Part):
    """Times of `n` calls in milliseconds, none left out. Percentiles are measured values (nearest rank from above);
    `jitter` is p99 - p50."""

    n: int = Field(gt=0)
    min: float = Field(ge=0)
    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    jitter: float = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Distribution:
        if not self.min <= self.p50 <= self.p90 <= self.p99 <= self.max:
            raise ValueError("a distribution needs min <= p50 <= p90 <= p99 <= max")
        if not self.min <= self.mean <= self.max:
            raise ValueError("a mean lies between min and max")
        if abs(self.jitter - (self.p99 - self.p50)) > 1e-6 + 1e-9 * self.p99:
            raise ValueError("jitter is p99 - p50")
        return self


class RoundMedians(Part):
    """Each round's p50 in milliseconds, in the order of the rounds: by how much a repeated measurement differs."""

    frame: list[float]
    host: list[float]
    gpu: list[float] | None = None


class Latency(Part):
    """The three clocks and the host's own stages around the session, whose stage is `host`.

    `gpu` is null where no device tells its time, and `gpu_note` says why. `rescore` is null without a companion that
    judges the boxes again; `frame` holds its time too. `frame_calls` are the calls behind `frame` in milliseconds, in
    their order; it and `by_round` are null in reports of schema 1.1 and before.
    """

    gpu: Distribution | None
    gpu_note: str = ""
    host: Distribution
    frame: Distribution
    prepare: Distribution
    decode: Distribution
    rescore: Distribution | None = None
    by_round: RoundMedians | None = None
    frame_calls: list[float] | None = None
    threads: int = Field(gt=0)
    rounds: int = Field(gt=0)
    frames_per_round: int = Field(gt=0)
    warm_up: int = Field(ge=0)

    @model_validator(mode="after")
    def _complete(self) -> Latency:
        calls = self.rounds * self.frames_per_round
        parts = (self.host, self.frame, self.prepare, self.decode, self.gpu, self.rescore)
        if any(part is not None and part.n != calls for part in parts):
            raise ValueError(f"every clock needs all {calls} calls: nothing is clipped")
        if self.gpu is None and not self.gpu_note:
            raise ValueError("a missing GPU clock needs its reason")
        if self.frame_calls is not None and len(self.frame_calls) != calls:
            raise ValueError(f"frame_calls needs all {calls} calls")
        medians = self.by_round
        if medians and any(len(m) != self.rounds for m in (medians.frame, medians.host, medians.gpu) if m is not None):
            raise ValueError(f"by_round needs the medians of all {self.rounds} rounds")
        return self


class Memory(Part):
    """Bytes resident of the process, and in use on the GPU by whatever runs there, when a session was opened.

    All models of a size are open at once, one after another: `after - before` is this model's own. `end`: after the
    clocks of all of them. Null where the system does not tell.
    """

    before: int | None
    after: int | None
    end: int | None = None
    gpu_before: int | None = None
    gpu_after: int | None = None


class ColdStart(Part):
    """Milliseconds to open the session, file to ready, and of the first frame after that, detections out.

    The file may already lie in the system's cache. `loaded` names the libraries that this opening was the first to
    need in the process, and whose loading it therefore holds.
    """

    opening: float = Field(ge=0)
    first_frame: float = Field(ge=0)
    loaded: list[str] = Field(default_factory=list)


class Reading(Part):
    """One quantity over the samples."""

    name: str
    unit: str
    mean: float
    min: float
    max: float


class Readings(Part):
    """What a thread read beside the clocks, every `interval` seconds: one source, such as NVML.

    `cost_ms` is the mean time of one look, `cost_share` the share (0..1) of the whole time that all looks took, of one
    core. `power_mode` is a Jetson's; '' elsewhere.
    """

    source: str
    during: str
    samples: int = Field(ge=0)
    interval: float = Field(gt=0)
    cost_ms: float = Field(ge=0)
    cost_share: float = Field(ge=0)
    power_mode: str = ""
    readings: list[Reading]


class Window(Part):
    """A part of a sustained run: seconds from its beginning, the frame clock in milliseconds, resident memory at its
    end."""

    start: float = Field(ge=0)
    n: int = Field(gt=0)
    p50: float
    p99: float
    max: float
    resident_bytes: int | None = None


class Sustained(Part):
    """One model alone, frame after frame without a pause for `seconds`.

    Drifts are the median over the last third of the windows by that over the first third, minus 1; null with fewer
    than six windows.
    """

    seconds: float = Field(gt=0)
    frame: Distribution
    windows: list[Window] = Field(min_length=1)
    p50_drift: float | None
    p99_drift: float | None
    readings: list[Readings] = Field(default_factory=list)

    @model_validator(mode="after")
    def _counted(self) -> Sustained:
        if sum(window.n for window in self.windows) != self.frame.n:
            raise ValueError("the windows of a sustained run hold all of its frames")
        return self

    @property
    def frames_per_second(self) -> float:
        return self.frame.n / self.seconds


class BatchPoint(Part):
    """Runs of `batch` frames: `run` from frames to the detections of all of them, `host` the session's part."""

    batch: int = Field(gt=0)
    run: Distribution
    host: Distribution
    frames_per_second: float = Field(gt=0)
