"""Frames in, detections out, in real time: the stages of a run overlap, each in its thread, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter
from types import TracebackType

import numpy as np

from irforge.detections import Detections
from irforge.errors import EnvironmentFault, UsageError
from irforge.frames import Geometry, prepare
from irforge.frames.prepare import Tensor
from irforge.runtime.counts import Counts
from irforge.runtime.detector import SessionDetector
from irforge.runtime.intake import Intake, Policy
from irforge.runtime.sources import Source, SourceFrame
from irforge.session import Array, StageTimes

__all__ = ["Pipeline", "Policy", "Result"]

_JOIN_SECONDS = 15.0


@dataclass(frozen=True, eq=False)
class Result:
    """A frame of stream `stream`, what was found in it, and the seconds each stage took (`infer`: of its batch)."""

    stream: int
    record: SourceFrame
    detections: Detections
    times: StageTimes


@dataclass(frozen=True)
class _End:
    """Travels through the stages behind the last frame, with what stopped them."""

    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class _Prepared:
    stream: int
    record: SourceFrame
    tensor: Tensor
    geometry: Geometry
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

    Reading (a thread a source), preparing, inferring and decoding overlap with each other and with what the caller does
    with a result. Each source's frames come in their order. Frames of several sources share a run of the graph where
    its batch allows; no frame waits for others to fill one. What runs behind the caller is bounded: while the caller is
    slow, reading waits (`lossless`) or the oldest frame that waits is dropped and counted (`latest`), and a result is
    then at most as old as reading one frame and passing twice through the slowest stage.

    An error in any stage comes out of the iteration as it is, after the results of the frames before it.

    Args:
        detector: closed by whoever opened it.
        sources: used up, and closed by whoever opened them.
        policy: None is `latest` where a source is live, `lossless` otherwise. A live source that has to wait loses
            frames in its driver, where nobody counts them.
        batch: frames in one run of a graph whose batch size is free; None is the number of sources.
        limit: read so many frames of each source and no further.

    Raises:
        UsageError: no source, or a batch that the graph does not have.
        EnvironmentFault: the detector's session is bound to one thread.
    """

    def __init__(
        self,
        detector: SessionDetector,
        sources: Sequence[Source],
        *,
        policy: Policy | None = None,
        batch: int | None = None,
        limit: int | None = None,
    ) -> None:
        if not sources:
            raise UsageError("there is no source to read", "Name at least one")
        if detector.session.thread_rule == "the creating thread":
            raise EnvironmentFault(
                f"a session on {detector.session.backend} by pycuda stays in the thread that made it",
                "pip install cuda-python, whose sessions may run in a pipeline's own thread",
            )
        self.policy: Policy = policy or ("latest" if any(source.live for source in sources) else "lossless")
        self.batch, self._fixed = _batch(detector, batch, len(sources))
        self.counts = Counts()
        self._detector = detector
        self._spec = detector.contract.input
        self._sources = list(sources)
        # Two batches keep the graph busy, one in it and one around it. Where nothing may be lost, and age is no matter,
        # a few more even out stages of changing speed.
        places = 2 * self.batch + (4 if self.policy == "lossless" else 0)
        waiting = 1 if self.policy == "latest" else 2
        self._intake: Intake[SourceFrame | _End] = Intake(len(self._sources), waiting, places, self.policy)
        # Not bounded themselves: all of them together hold no more than the intake has places.
        self._prepared: SimpleQueue[_Prepared | _End] = SimpleQueue()
        self._inferred: SimpleQueue[_Inferred | _End] = SimpleQueue()
        self._results: SimpleQueue[Result | _End] = SimpleQueue()
        self._spare: deque[tuple[tuple[int, ...], dict[str, Array]]] = deque(maxlen=places)
        self._reading_seconds = [0.0] * len(self._sources)
        readers = [partial(self._read, stream, limit) for stream in range(len(sources))]
        stages: list[Callable[[], None]] = [self._prepare, self._infer, self._decode, *readers]
        self._threads = [threading.Thread(target=stage, daemon=True) for stage in stages]

    def __enter__(self) -> Pipeline:
        self.counts.started = perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __iter__(self) -> Iterator[Result]:
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
        deadline = monotonic() + _JOIN_SECONDS
        for thread in self._threads:
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
        except Exception as error:  # noqa: BLE001 - raised again where the results are taken; so in every stage
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
                tensor, geometry = prepare(record.frame, self._spec, f"'{record.id}'")
                seconds = perf_counter() - start
                self.counts.busy["prepare"] += seconds
                self._prepared.put(_Prepared(stream, record, tensor, geometry, seconds))
        except Exception as error:  # noqa: BLE001
            end = self._failed(_End(error))
        self._prepared.put(end)

    def _infer(self) -> None:
        item = self._prepared.get()
        try:
            while isinstance(item, _Prepared):
                frames, following = self._gather(item)
                start = perf_counter()
                tensor = self._join(frames)
                outputs = self._detector.session.run({self._spec.name: tensor}, self._spare_outputs(tensor.shape))
                seconds = perf_counter() - start
                self.counts.busy["infer"] += seconds
                self.counts.inferred += len(frames)
                self.counts.runs += 1
                for row, frame in enumerate(frames):
                    self._inferred.put(_Inferred(frame, outputs, row, frame is frames[-1], tensor.shape, seconds))
                item = following or self._prepared.get()
            end = item
        except Exception as error:  # noqa: BLE001
            end = self._failed(_End(error))
        self._inferred.put(end)

    def _decode(self) -> None:
        # Private to the detector until it offers its steps to others than its own call.
        decode, rescore, extra = self._detector._decode, self._detector._rescored, self._detector._extra
        try:
            while isinstance(item := self._inferred.get(), _Inferred):
                frame, record = item.frame, item.frame.record
                start = perf_counter()
                found = decode(item.outputs, frame.geometry, item.row)
                decoded = perf_counter()
                found = rescore(found, record.frame, f"'{record.id}'")
                stop = perf_counter()
                if item.is_last:
                    self._spare.append((item.shape, item.outputs))
                self.counts.busy["decode"] += stop - start
                times = StageTimes(frame.seconds, item.seconds, decoded - start, extra(stop - decoded))
                self._results.put(Result(frame.stream, record, found, times))
            end = item
        except Exception as error:  # noqa: BLE001
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

    def _join(self, frames: list[_Prepared]) -> Array:
        rows: list[Array] = [frame.tensor for frame in frames]
        # A fixed batch is filled up with what is there; nobody looks at those rows.
        rows += rows[-1:] * (self._fixed - len(rows))
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

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


def _batch(detector: SessionDetector, wanted: int | None, streams: int) -> tuple[int, int]:
    """Frames in a run, and the batch size that the graph insists on, 0 where it is free."""
    size = detector.session.inputs[detector.contract.input.name].shape[0]
    if not isinstance(size, int):
        return wanted or streams, 0
    if wanted not in (None, size):
        raise UsageError(f"'{detector.name}' takes batches of {size}, not of {wanted}", "Leave --batch out")
    return size, size
