"""Promises of the pipeline: order, no loss where none is allowed, every drop counted, memory that stays flat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irforge.errors import InputError, UsageError
from irforge.runtime.counts import RECENT, Counts
from irforge.runtime.detector import SessionDetector, load
from irforge.runtime.intake import Intake
from irforge.runtime.pipeline import Pipeline, Result
from irforge.runtime.sources import open_source
from irforge.session import StageTimes
from tests.runtime.pipeline.conftest import Frames, hindered, scene

Model = Callable[..., Path]


def same(found: Result, detector: SessionDetector) -> bool:
    alone = detector(found.record.frame)
    # Batches may be summed up in another order.
    return np.array_equal(found.detections.boxes, alone.boxes) and np.allclose(found.detections.scores, alone.scores)


# --- lossless


def test_every_frame_comes_out_in_order_with_what_a_lone_call_finds(detector: SessionDetector) -> None:
    source = scene()
    with Pipeline(detector, [source]) as pipeline:
        assert pipeline.policy == "lossless"
        results = list(pipeline)
    assert [result.record.index for result in results] == list(range(40))
    assert all(same(result, detector) for result in results)
    for result in results:
        truth = source.truth(result.record.index)
        centres = (result.detections.boxes[:, :2] + result.detections.boxes[:, 2:]) / 2
        for centre in (truth[:, :2] + truth[:, 2:]) / 2:
            assert np.abs(centres - centre).max(axis=1).min() <= 1
    counts = pipeline.counts
    assert (counts.read, counts.dropped, counts.inferred, counts.published) == (40, 0, 40, 40)
    assert counts.detections == sum(len(result.detections) for result in results)
    assert all(seconds > 0 for seconds in counts.busy.values())


def test_a_slow_consumer_holds_the_source_back_and_loses_nothing(detector: SessionDetector) -> None:
    source = scene(frames=60)
    ahead = []
    with Pipeline(detector, [source]) as pipeline:
        for result in pipeline:
            time.sleep(0.004)
            ahead.append(pipeline.counts.read - result.record.index)
    assert len(ahead) == 60
    # Six places inside, two frames that wait, one that is being handed in.
    assert max(ahead) <= 9


def test_limit_reads_no_further(detector: SessionDetector) -> None:
    frames: list[np.ndarray | Exception] = [scene().frame(k) for k in range(3)]
    with Pipeline(detector, [Frames([*frames, AssertionError("read too far")])], limit=3) as pipeline:
        assert len(list(pipeline)) == 3


def test_an_empty_source_is_an_empty_result(detector: SessionDetector) -> None:
    with Pipeline(detector, [Frames([])]) as pipeline:
        assert list(pipeline) == []
    assert pipeline.counts.lines() == ["0 frames, 0 detections"]


# --- latest


def test_the_oldest_that_waits_is_dropped_and_counted() -> None:
    intake: Intake[int] = Intake(2, waiting=1, places=2, policy="latest")
    for item in range(10):
        intake.put(0, item)
    intake.put(1, 100)
    assert (intake.accepted, intake.dropped) == ([10, 1], [9, 0])
    assert [intake.take(), intake.take()] == [(0, 9), (1, 100)]
    intake.put(0, 10)
    intake.put(0, 11)
    taken: list[object] = []
    taker = threading.Thread(target=lambda: taken.append(intake.take()))
    taker.start()
    taker.join(0.1)
    # Both places are held: nothing goes in before one is free.
    assert taken == []
    intake.leave()
    taker.join(5)
    assert taken == [(0, 11)] and intake.dropped == [10, 0]


def test_streams_take_turns() -> None:
    intake: Intake[str] = Intake(3, waiting=4, places=100, policy="lossless")
    for stream in (0, 2):
        for item in "abc":
            intake.put(stream, item)
        intake.finish(stream)
    intake.put(1, "d")
    intake.finish(1)
    order = [intake.take() for _ in range(8)]
    assert order == [(0, "a"), (1, "d"), (2, "a"), (0, "b"), (2, "b"), (0, "c"), (2, "c"), None]
    assert not intake.put(0, "late") and intake.accepted == [3, 1, 3]


def test_a_slow_consumer_of_a_live_source_drops_and_every_drop_is_counted(detector: SessionDetector) -> None:
    # 100 frames in half a second, of which a consumer at 50 ms a frame takes about ten.
    with Pipeline(detector, [scene(frames=100, fps=200, live=1)]) as pipeline:
        assert pipeline.policy == "latest"
        numbers = []
        for result in pipeline:
            numbers.append(result.record.index)
            time.sleep(0.05)
    counts = pipeline.counts
    assert numbers == sorted(set(numbers)) and 2 <= len(numbers) <= 40
    assert counts.read == 100 and counts.published == counts.inferred == len(numbers)
    assert counts.dropped == 100 - len(numbers)
    # What is dropped is what is missing: the last frame is the newest of all.
    assert numbers[-1] == 99
    # Twice through the slowest stage is 0.1 s; a queue of all frames would make it 2 s.
    assert len(counts.ages) == len(numbers) and np.median(counts.ages) < 1
    assert "dropped" in counts.lines()[1] and "age of a detection" in counts.lines()[1]


def test_a_live_source_may_be_lossless_where_the_user_says_so(detector: SessionDetector) -> None:
    with Pipeline(detector, [scene(frames=20, fps=400, live=1)], policy="lossless") as pipeline:
        for _ in pipeline:
            time.sleep(0.005)
    assert (pipeline.counts.published, pipeline.counts.dropped) == (20, 0)


# --- several streams


def test_streams_share_runs_and_each_keeps_its_order(detector: SessionDetector) -> None:
    slow = hindered(detector, lambda _: time.sleep(0.004))
    sources = [scene(frames=30, seed=seed) for seed in range(3)]
    with Pipeline(slow, sources) as pipeline:
        results = list(pipeline)
    for stream in range(3):
        mine = [result for result in results if result.stream == stream]
        assert [result.record.index for result in mine] == list(range(30))
        assert all(np.array_equal(result.record.frame, sources[stream].frame(result.record.index)) for result in mine)
    assert all(same(result, detector) for result in results)
    assert max(slow.session.batches) == 3 and pipeline.counts.runs == len(slow.session.batches) < 60


def test_a_short_stream_does_not_stop_a_long_one(detector: SessionDetector) -> None:
    with Pipeline(detector, [scene(frames=3), scene(frames=25, seed=1)]) as pipeline:
        streams = [result.stream for result in pipeline]
    assert (streams.count(0), streams.count(1)) == (3, 25)


def test_drops_are_counted_over_all_streams_and_each_keeps_its_order(detector: SessionDetector) -> None:
    sources = [scene(frames=60, fps=200, live=1, seed=seed) for seed in (1, 2)]
    with Pipeline(detector, sources) as pipeline:
        numbers: list[list[int]] = [[], []]
        for result in pipeline:
            numbers[result.stream].append(result.record.index)
            time.sleep(0.03)
    for mine in numbers:
        # The last frame of a stream is its newest, and never dropped.
        assert mine == sorted(set(mine)) and mine[-1] == 59
    counts = pipeline.counts
    assert counts.read == 120 and counts.published == sum(map(len, numbers)) < 120
    assert counts.dropped == 120 - counts.published


def test_a_fixed_batch_is_filled_up_and_its_spare_rows_are_nobodys(spot_model: Model) -> None:
    model = spot_model(batch=4)
    with load(model, threads=1) as detector:
        slow = hindered(detector, lambda _: time.sleep(0.004))
        with Pipeline(slow, [scene(frames=10)]) as pipeline:
            results = list(pipeline)
        assert [result.record.index for result in results] == list(range(10))
        assert set(slow.session.batches) == {4} and pipeline.counts.runs < 10
        assert all(same(result, detector) for result in results)
        with pytest.raises(UsageError, match="batches of 4, not of 2"):
            Pipeline(detector, [scene()], batch=2)


# --- frames that change


def test_a_resolution_change_in_mid_stream_is_followed(conv_model: Model) -> None:
    random = np.random.default_rng(0)
    sizes = [(32, 48)] * 4 + [(64, 80)] * 4 + [(32, 48)] * 4
    frames: list[np.ndarray | Exception] = [random.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    with load(conv_model(batch="N", height="H", width="W"), threads=1, with_mask=True) as detector:
        with Pipeline(detector, [Frames(frames)], batch=3) as pipeline:
            results = list(pipeline)
        assert [result.record.frame.shape for result in results] == sizes
        for result in results:
            mask = detector(result.record.frame).mask
            assert result.detections.mask is not None and np.array_equal(result.detections.mask, mask)


def test_what_the_contract_refuses_stops_the_run_after_the_frames_before_it(detector: SessionDetector) -> None:
    frames: list[np.ndarray | Exception] = [scene().frame(k) for k in range(10)]
    frames[6] = np.full((64, 64), 9000, np.uint16)
    numbers = []
    with (
        pytest.raises(InputError, match="'frame 6' holds uint16 levels"),
        Pipeline(detector, [Frames(frames)]) as pipeline,
    ):
        for result in pipeline:
            numbers.append(result.record.index)
    assert numbers == [0, 1, 2, 3, 4, 5]


# --- memory


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="resident memory is read from Linux's /proc")
def test_memory_stays_flat(detector: SessionDetector) -> None:
    with open_source("synthetic:64x64,frames=2000") as source, Pipeline(detector, [source]) as pipeline:
        resident = [resident_bytes() for result in pipeline if result.record.index % 100 == 0]
    assert pipeline.counts.published == 2000
    assert max(resident[5:]) < 1.05 * resident[5]


def test_counts_do_not_grow_with_the_frames() -> None:
    counts = Counts()
    for k in range(RECENT + 5):
        counts.times.append(StageTimes(prepare=float(k)))
        counts.ages.append(float(k))
    assert len(counts.times) == len(counts.ages) == RECENT and counts.times[0].prepare == 5
