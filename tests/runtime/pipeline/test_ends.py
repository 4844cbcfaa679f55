"""Promises of the pipeline's ends: each comes, with its cause, after the frames before it, and leaves no thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from irforge.detections import Detections
from irforge.errors import ArtifactError, EnvironmentFault, InputError, UsageError
from irforge.runtime import pipeline as pipelines
from irforge.runtime.detector import SessionDetector
from irforge.runtime.pipeline import Pipeline
from irforge.runtime.sources import SourceFrame
from tests.runtime.pipeline.conftest import Frames, hindered, scene


def test_a_failing_source_gives_its_cause_after_its_frames(detector: SessionDetector) -> None:
    fault = InputError("frame 5 is damaged")
    frames: list[np.ndarray | Exception] = [*(scene().frame(k) for k in range(5)), fault]
    numbers = []
    with pytest.raises(InputError) as raised, Pipeline(detector, [Frames(frames)]) as pipeline:
        for result in pipeline:
            numbers.append(result.record.index)
    assert raised.value is fault and numbers == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("policy", ["lossless", "latest"])
def test_a_failing_graph_stops_everything_with_its_cause(detector: SessionDetector, policy: Any) -> None:
    def fail(run: int) -> None:
        if run == 4:
            raise ArtifactError("the graph fails")

    endless = scene(frames=0)
    numbers = []
    with (
        pytest.raises(ArtifactError, match="the graph fails"),
        Pipeline(hindered(detector, fail), [endless, scene(frames=0, seed=1)], policy=policy, batch=1) as pipeline,
    ):
        for result in pipeline:
            numbers.append(result.record.index)
    assert len(numbers) == 3


@pytest.mark.parametrize("stage", ["prepare", "decode", "track"])
def test_a_failing_stage_stops_everything_with_its_cause(
    detector: SessionDetector, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    done: list[int] = []

    def fail_after_three(*_: Any) -> None:
        done.append(len(done))
        if len(done) == 4:
            raise ArtifactError(f"{stage} fails")

    class Tracks:
        def update(self, record: SourceFrame, found: Detections) -> Detections:
            fail_after_three()
            return found

    if stage != "track":
        real = getattr(detector, stage)
        monkeypatch.setattr(detector, stage, lambda *given: fail_after_three() or real(*given))
    trackers = [Tracks()] if stage == "track" else []
    with (
        pytest.raises(ArtifactError, match=f"{stage} fails"),
        Pipeline(detector, [scene(frames=0)], trackers=trackers) as pipeline,
    ):
        for _ in pipeline:
            pass
    assert pipeline.counts.published == 3


def test_a_failing_consumer_stops_everything(detector: SessionDetector) -> None:
    with pytest.raises(OSError, match="disk"), Pipeline(detector, [scene(frames=0)]) as pipeline:
        for _ in pipeline:
            raise OSError(28, "disk full")


def test_who_leaves_early_leaves_nothing_running(detector: SessionDetector) -> None:
    with Pipeline(detector, [scene(frames=0)]) as pipeline:
        for result in pipeline:
            if result.record.index == 5:
                break
    assert pipeline.counts.published == 6


@pytest.mark.parametrize("live", [0, 1])
def test_finish_reads_no_further_and_hands_out_what_was_read(detector: SessionDetector, live: int) -> None:
    with Pipeline(detector, [scene(frames=0, live=live, fps=500)]) as pipeline:
        for result in pipeline:
            if result.record.index >= 10:
                pipeline.finish()
    counts = pipeline.counts
    # A slow machine drops most frames of a fast camera.
    assert counts.published > (0 if live else 10) and counts.read == counts.published + counts.dropped


def test_finish_does_not_wait_for_a_source_that_gives_nothing(detector: SessionDetector) -> None:
    class Silent(Frames):
        def __init__(self) -> None:
            super().__init__([scene().frame(0)], live=True)
            self.stopped = threading.Event()

        def records(self) -> Iterator[SourceFrame]:
            yield from super().records()
            self.stopped.wait(60)

        def stop(self) -> None:
            self.stopped.set()

    start = time.monotonic()
    with Pipeline(detector, [Silent()]) as pipeline:
        for _ in pipeline:
            pipeline.finish()
    assert time.monotonic() - start < 10


def test_a_stage_that_dies_of_anything_stops_the_run(detector: SessionDetector) -> None:
    def leave(run: int) -> None:
        if run == 3:
            # No Exception: a thread that it ended in silence would leave the run hanging.
            raise SystemExit(4)

    with pytest.raises(SystemExit), Pipeline(hindered(detector, leave), [scene(frames=0)]) as pipeline:
        for _ in pipeline:
            pass
    assert pipeline.counts.published == 2


def test_the_session_is_free_once_the_pipeline_is_closed_however_long_a_frame_takes(
    detector: SessionDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "_JOIN_SECONDS", 0.01)
    running: list[int] = []

    def take_long(run: int) -> None:
        running.append(run)
        time.sleep(0.3)
        running.pop()

    with Pipeline(hindered(detector, take_long), [scene(frames=0)]) as pipeline:
        next(iter(pipeline))
        while not running:
            time.sleep(0.01)
    assert not running


def test_a_pipeline_is_iterated_once_and_in_its_with(detector: SessionDetector) -> None:
    pipeline = Pipeline(detector, [scene(frames=3)])
    with pytest.raises(RuntimeError, match="once, in its 'with'"):
        next(iter(pipeline))
    with pipeline:
        assert len(list(pipeline)) == 3
        with pytest.raises(RuntimeError, match="once"):
            list(pipeline)


def test_sessions_bound_to_a_thread_and_runs_without_a_source_are_refused(detector: SessionDetector) -> None:
    bound = hindered(detector, lambda _: None)
    bound.session.thread_rule = "the creating thread"
    with pytest.raises(EnvironmentFault, match="cuda-python"):
        Pipeline(bound, [scene()])
    with pytest.raises(UsageError, match="no source"):
        Pipeline(detector, [])
    with pytest.raises(ValueError, match="1 trackers for 2 sources"):
        Pipeline(detector, [scene(), scene()], trackers=[detector])  # type: ignore[list-item]
