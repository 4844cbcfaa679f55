"""Frames in, detections out, in real time: the stages of a run overlap, each in its thread, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from irforge.contract import Contract
from irforge.detections import Detections
from irforge.errors import EnvironmentFault, UsageError
from irforge.frames import Frame
from irforge.frames.prepare import Tensor
from irforge.runtime.counts import STAGES, Counts
from irforge.runtime.intake import Intake, Policy
from irforge.runtime.sources import Source, SourceFrame
from irforge.session import Array, Session, StageTimes

__all__ = ["Pipeline", "Policy", "Result", "Steps", "Tracks"]

_JOIN_SECONDS = 15.0


class Steps(Protocol):
    """A detector in the steps that a pipeline overlaps: `SessionDetector`, `TiledDetector`.

    `batch` is the number of frames in each run where the graph or the detector insists on one, 0 otherwise. What
    `prepare` says of a frame's geometry is handed to `decode` as it is, with the frame's row in the outputs.
    """

    name: str
    session: Session
    batch: int

    @property
    def contract(self) -> Contract: ...

    def prepare(self, frame: Frame, where: str) -> tuple[Tensor, Any]: ...

    def infer(self, tensor: Array, out: dict[str, Array] | None) -> dict[str, Array]: ...

    def decode(self, outputs: dict[str, Array], geometry: Any, index: int) -> Detections: ...

    def rescored(self, found: Detections, frame: Frame, where: str) -> Detections: ...

    def extra(self, rescore_seconds: float) -> dict[str, float]: ...


class Tracks(Protocol):
    """What follows targets of one stream from frame to frame: `irforge.runtime.tracking.Tracker`."""

    def update(self, record: SourceFrame, found: Detections) -> Detections: ...


@dataclass(frozen=True, eq=False)
class Result:
    """A frame of stream `stream`, what was found in it, and the seconds each stage took (`infer`: of its batch).

    The detections are what a tracker made of them, `Tracked`, where there is one.
    """

    stream: int
    record: SourceFrame
    detections: Detections
    times: StageTimes


@dataclass(frozen=True)
class _End:
    """Travels through the stages behind the last frame, with what stopped them."""

    error: BaseException | None = None


@dataclass(frozen=True, eq=False)
class _Prepared:
    stream: int
    record: SourceFrame
    tensor: Tensor
    geometry: Any
    seconds: float


@dataclass(frozen=True, eq=False)
class _Inferred:
    frame: _Prepared
    outputs: dict[str, Array]
    row: int
    is_last: bool
    shape: tuple[int, ...]
    seconds: float


class Pipeline:
    """A detector over one or several sources: iterate over it, in a `with`, for a `Result` a frame.

    Reading (a thread a source), preparing, inferring, decoding and tracking overlap with each other and with what the
    caller does with a result. Each source's frames come in their order. Frames of several sources share a run of the
    graph where its batch allows; no frame waits for others to fill one. What runs behind the caller is bounded: while
    the caller is slow, reading waits (`lossless`) or the oldest frame that waits is dropped and counted (`latest`), and
    a result is then at most as old as reading one frame and passing twice through the slowest stage.

    An error in any stage comes out of the iteration as it is, after the results of the frames before it.

    Args:
        detector: closed by whoever opened it.
        sources: used up, and closed by whoever opened them.
        policy: None is `latest` where a source is live, `lossless` otherwise. A live source that has to wait loses
            frames in its driver, where nobody counts them.
        batch: frames in one run of a graph whose batch size is free; None is the number of sources.
        limit: read so many frames of each source and no further.
        trackers: one for each source; results then are what they make of the detections.

    Raises:
        UsageError: no source, or a batch that the graph does not have.
        EnvironmentFault: the detector's session is bound to one thread.
    """

    def __init__(
        self,
        detector: Steps,
        sources: Sequence[Source],
        *,
        policy: Policy | None = None,
        batch: int | None = None,
        limit: int | None = None,
        trackers: Sequence[Tracks] = (),
    ) -> None:
        if not sources:
            raise UsageError("there is no source to read", "Name at least one")
        if trackers and len(trackers) != len(sources):
            raise ValueError(f"{len(trackers)} trackers for {len(sources)} sources")
        if detector.session.thread_rule == "the creating thread":
            raise EnvironmentFault(
                f"a session on {detector.session.backend} by pycuda stays in the thread that made it",
                "pip install cuda-python, whose sessions may run in a pipeline's own thread",
            )
        self.policy: Policy = policy or ("latest" if any(source.live for source in sources) else "lossless")
        if detector.batch and batch not in (None, detector.batch):
            raise UsageError(
                f"'{detector.name}' takes batches of {detector.batch}, not of {batch}", "Leave --batch out"
            )
        self.batch = detector.batch or batch or len(sources)
        self.counts = Counts()
        self._detector = detector
        self._sources = list(sources)
        self._trackers = list(trackers)
        # Two batches keep the graph busy, one in it and one around it. Where nothing may be lost, and age is no matter,
        # a few more even out stages of changing speed.
        places = 2 * self.batch + (4 if self.policy == "lossless" else 0)
        waiting = 1 if self.policy == "latest" else 2
        self._intake: Intake[SourceFrame | _End] = Intake(len(self._sources), waiting, places, self.policy)
        # Not bounded themselves: all of them together hold no more than the intake has places.
        self._prepared: SimpleQueue[_Prepared | _End] = SimpleQueue()
        self._inferred: SimpleQueue[_Inferred | _End] = SimpleQueue()
        self._decoded: SimpleQueue[Result | _End] = SimpleQueue()
        self._results: SimpleQueue[Result | _End] = SimpleQueue()
        self._spare: deque[tuple[tuple[int, ...], dict[str, Array]]] = deque(maxlen=places)
        self._reading_seconds = [0.0] * len(self._sources)
        stages: list[Callable[[], None]] = [self._prepare, self._infer, self._decode]
        if trackers:
            self.counts.busy = dict.fromkeys((*STAGES[:-1], "track", STAGES[-1]), 0.0)
            stages.append(self._track)
        else:
            self._decoded = self._results
        reading = [partial(self._read, stream, limit) for stream in range(len(sources))]
        self._readers = [threading.Thread(target=stage, daemon=True) for stage in reading]
        self._workers = [threading.Thread(target=stage, daemon=True) for stage in stages]
        self._iterable = False

    def __enter__(self) -> Pipeline:
        self.counts.started = perf_counter()
        for thread in (*self._workers, *self._readers):
            thread.start()
        self._iterable = True
        return self

    def __iter__(self) -> Iterator[Result]:
        if not self._iterable:
            raise RuntimeError("iterate over a pipeline once, in its 'with'")
        self._iterable = False
        counts = self.counts
        while isinstance(result := self._results.get(), Result):
            if result.record.captured is not None:
                counts.ages.append(monotonic() - result.record.captured)
            counts.published += 1
            counts.detections += len(result.detections)
            counts.times.append(result.times)
            start = perf_counter()
            yield result
            counts.busy["publish"] += perf_counter() - start
            self._intake.leave()
        self.close()
        if result.error is not None:
            raise result.error

    def finish(self) -> None:
        """Read no further; what has been read is still handed out, and the iteration ends. Safe in a signal handler."""
        self._intake.ending = True

    @property
    def finishing(self) -> bool:
        """`finish` has been called."""
        return self._intake.ending

    def close(self) -> None:
        """Stop all stages, whatever is in them. The detector and the sources are free afterwards."""
        self._intake.close()
        for source in self._sources:
            source.stop()
        for thread in self._workers:
            if thread.ident is not None:
                # However long its last frame takes: the session must not be closed under it.
                thread.join()
        # A driver may never return; closing such a source is then up to whoever opened it.
        deadline = monotonic() + _JOIN_SECONDS
        for thread in self._readers:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - monotonic()))
        self.counts.seconds = self.counts.seconds or perf_counter() - self.counts.started
        self._count_reading()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, stream: int, limit: int | None) -> None:
        source = self._sources[stream]
        end = None
        try:
            records = islice(source.records(), limit)
            while not self._intake.ending:
                start = perf_counter()
                record = next(records, None)
                self._reading_seconds[stream] += perf_counter() - start
                if record is None or not self._intake.put(stream, record):
                    break
                self._count_reading()
        except BaseException as error:  # noqa: BLE001 - raised again where the results are taken; so in every stage
            end = _End(error)
        self._intake.finish(stream, end)

    def _prepare(self) -> None:
        end = _End()
        try:
            while (taken := self._intake.take()) is not None:
                stream, record = taken
                if isinstance(record, _End):
                    end = self._failed(record)
                    break
                start = perf_counter()
                tensor, geometry = self._detector.prepare(record.frame, f"'{record.id}'")
                seconds = perf_counter() - start
                self.counts.busy["prepare"] += seconds
                self._prepared.put(_Prepared(stream, record, tensor, geometry, seconds))
        except BaseException as error:  # noqa: BLE001
            end = self._failed(_End(error))
        self._prepared.put(end)

    def _infer(self) -> None:
        item = self._prepared.get()
        try:
            while isinstance(item, _Prepared):
                frames, following = self._gather(item)
                start = perf_counter()
                tensor = frames[0].tensor if len(frames) == 1 else np.concatenate([frame.tensor for frame in frames])
                shape = (max(len(tensor), self._detector.batch), *tensor.shape[1:])
                outputs = self._detector.infer(tensor, self._spare_outputs(shape))
                seconds = perf_counter() - start
                self.counts.busy["infer"] += seconds
                self.counts.inferred += len(frames)
                self.counts.runs += 1
                for row, frame in enumerate(frames):
                    self._inferred.put(_Inferred(frame, outputs, row, frame is frames[-1], shape, seconds))
                item = following or self._prepared.get()
            end = item
        except BaseException as error:  # noqa: BLE001
            end = self._failed(_End(error))
        self._inferred.put(end)

    def _decode(self) -> None:
        detector = self._detector
        try:
            while isinstance(item := self._inferred.get(), _Inferred):
                frame, record = item.frame, item.frame.record
                start = perf_counter()
                found = detector.decode(item.outputs, frame.geometry, item.row)
                decoded = perf_counter()
                found = detector.rescored(found, record.frame, f"'{record.id}'")
                stop = perf_counter()
                if item.is_last:
                    self._spare.append((item.shape, item.outputs))
                self.counts.busy["decode"] += stop - start
                times = StageTimes(frame.seconds, item.seconds, decoded - start, detector.extra(stop - decoded))
                self._decoded.put(Result(frame.stream, record, found, times))
            end = item
        except BaseException as error:  # noqa: BLE001
            end = self._failed(_End(error))
        self._decoded.put(end)

    def _track(self) -> None:
        try:
            while isinstance(item := self._decoded.get(), Result):
                start = perf_counter()
                found = self._trackers[item.stream].update(item.record, item.detections)
                seconds = perf_counter() - start
                self.counts.busy["track"] += seconds
                times = replace(item.times, extra={**item.times.extra, "track": seconds})
                self._results.put(replace(item, detections=found, times=times))
            end = item
        except BaseException as error:  # noqa: BLE001
            end = self._failed(_End(error))
        self._results.put(end)

    def _failed(self, end: _End) -> _End:
        self._intake.close()
        return end

    def _gather(self, first: _Prepared) -> tuple[list[_Prepared], _Prepared | _End | None]:
        """The frames that wait already and fit into one run with `first`; and what was taken that does not."""
        frames = [first]
        while len(frames) < self.batch:
            try:
                item = self._prepared.get_nowait()
            except Empty:
                break
            if isinstance(item, _End) or item.tensor.shape != first.tensor.shape:
                return frames, item
            frames.append(item)
        return frames, None

    def _spare_outputs(self, shape: tuple[int, ...]) -> dict[str, Array] | None:
        """Arrays whose results have been decoded, for a tensor of the same shape; those of other shapes are let go."""
        with suppress(IndexError):
            while True:
                fitting, outputs = self._spare.popleft()
                if fitting == shape:
                    return outputs
        return None

    def _count_reading(self) -> None:
        counts, intake = self.counts, self._intake
        counts.read, counts.dropped = sum(intake.accepted), sum(intake.dropped)
        counts.busy["read"] = sum(self._reading_seconds)
