"""Promises of the clocks."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pydantic import ValidationError

from irforge.errors import UsageError
from irforge.runtime.benchmark import Schedule, measure_batches, measure_latency, measure_sustained
from irforge.runtime.clocks import distribution, drift
from irforge.runtime.detector import load
from irforge.runtime.report.schema import Distribution
from irforge.runtime.report.times import Sustained, Window
from irforge.session import Timings


def test_percentiles_are_times_that_were_measured() -> None:
    seconds = np.random.default_rng(5).gamma(3, 0.01, 250).tolist()
    found = distribution(seconds)
    measured = {1e3 * s for s in seconds}
    assert {found.min, found.p50, found.p90, found.p99, found.max} <= measured
    assert sum(1e3 * s <= found.p90 for s in seconds) == 225
    assert found.n == 250 and found.jitter == found.p99 - found.p50


def test_the_slowest_call_is_never_clipped() -> None:
    found = distribution([0.001] * 999 + [5.0])
    assert found.max == 5000 and found.p99 == 1 and found.mean == pytest.approx(5.999)
    few = distribution([0.001] * 20 + [5.0])
    assert few.p99 == few.max == 5000


def test_equal_times_make_a_distribution() -> None:
    found = distribution([0.1] * 3)
    assert found.min == found.mean == found.p99 == found.max


@pytest.mark.parametrize(
    "wrong", [{"p90": 0.5}, {"max": 1.5}, {"mean": 9.0}, {"jitter": 3.0}, {"n": 0}, {"p50": float("nan")}]
)
def test_figures_that_contradict_each_other_are_refused(wrong: dict[str, float]) -> None:
    right = {"n": 5, "min": 0.5, "mean": 1.2, "p50": 1.0, "p90": 1.5, "p99": 2.0, "max": 2.0, "jitter": 1.0}
    Distribution(**right)
    with pytest.raises(ValidationError):
        Distribution(**right | wrong)


def test_models_take_turns_and_the_first_of_a_round_changes(spot_model, spot_frame) -> None:
    calls: list[str] = []
    detectors = {name: load(spot_model()) for name in "abc"}
    for name, detector in detectors.items():
        run = detector.session.run
        detector.session.run = lambda *a, name=name, run=run: calls.append(name) or run(*a)  # type: ignore[method-assign]
    measure_latency(detectors, [spot_frame()], Schedule(rounds=3, frames_per_round=2, warm_up=1), threads=1)
    assert "".join(calls) == "abc" + "aabbcc" + "bbccaa" + "ccaabb"


def test_every_call_counts_on_every_clock_and_stages_make_up_the_frame(spot_model, spot_frame) -> None:
    with load(spot_model(), threads=1) as detector:
        ticks: list[None] = []
        schedule = Schedule(rounds=4, frames_per_round=5, warm_up=2)
        frames = [spot_frame(x=x) for x in (3, 9)]
        found = measure_latency({"m": detector}, frames, schedule, threads=1, tick=lambda: ticks.append(None))["m"]
    assert len(ticks) == 20
    assert {part.n for part in (found.frame, found.host, found.prepare, found.decode)} == {20}
    stages = found.prepare.mean + found.host.mean + found.decode.mean
    assert stages <= found.frame.mean < stages + 0.5
    assert (found.rounds, found.frames_per_round, found.warm_up, found.threads) == (4, 5, 2, 1)


def test_a_slow_stage_shows_in_its_own_clock(spot_model, spot_frame) -> None:
    with load(spot_model(), threads=1) as detector:
        run = detector.session.run

        def slow(*arguments):
            time.sleep(0.02)
            return run(*arguments)

        detector.session.run = slow  # type: ignore[method-assign]
        found = measure_latency({"m": detector}, [spot_frame()], Schedule(1, 3, 0), threads=1)["m"]
    assert found.host.min >= 20 and found.frame.min >= 20
    assert found.prepare.max < 20 and found.decode.max < 20


def test_without_a_gpu_its_clock_is_null_and_says_so(spot_model, spot_frame) -> None:
    with load(spot_model()) as detector:
        found = measure_latency({"m": detector}, [spot_frame()], Schedule(1, 2, 0), threads=1)["m"]
        assert found.gpu is None and "CPU" in found.gpu_note
        run = detector.session.run

        def timed(*arguments):
            detector.session.last_timings = Timings(compute=0.00125)
            return run(*arguments)

        detector.session.run = timed  # type: ignore[method-assign]
        found = measure_latency({"m": detector}, [spot_frame()], Schedule(1, 2, 0), threads=1)["m"]
        assert found.gpu is not None and found.gpu.p50 == 1.25 and not found.gpu_note


def test_nothing_to_time_is_refused(spot_model) -> None:
    with pytest.raises(UsageError, match="no frame to time"):
        measure_latency({}, [], Schedule(), threads=1)
    with pytest.raises(UsageError, match="at least one round"):
        Schedule(rounds=0)


def test_rounds_and_calls_are_kept_in_their_order(spot_model, spot_frame) -> None:
    with load(spot_model(), threads=1) as detector:
        run, calls = detector.session.run, iter(range(100))

        def slow(*arguments):
            # The second round of three is slow.
            time.sleep(0.02 if 4 <= next(calls) < 8 else 0)
            return run(*arguments)

        detector.session.run = slow  # type: ignore[method-assign]
        found = measure_latency({"m": detector}, [spot_frame()], Schedule(3, 4, 0), threads=1)["m"]
    assert found.by_round is not None and found.frame_calls is not None and len(found.frame_calls) == 12
    assert max(found.frame_calls) == pytest.approx(found.frame.max, abs=1e-4)
    assert found.by_round.frame[1] >= 20 > max(found.by_round.frame[0], found.by_round.frame[2])
    assert sorted(found.frame_calls[4:8])[1] == pytest.approx(found.by_round.frame[1], abs=1e-4)
    assert found.by_round.gpu is None and len(found.by_round.host) == 3


def test_a_sustained_run_counts_every_frame_in_its_window(spot_model, spot_frame) -> None:
    ticks: list[None] = []
    with load(spot_model(), threads=1) as detector:
        run, calls = detector.session.run, []

        def slow(*arguments):
            calls.append(time.perf_counter())
            time.sleep(0.05)
            return run(*arguments)

        detector.session.run = slow  # type: ignore[method-assign]
        found = measure_sustained(detector, [spot_frame()], 2.2, tick=lambda: ticks.append(None))
    assert found.frame.n == len(calls) and found.frame.min >= 50
    assert 2.2 <= found.seconds < 2.2 + 0.5
    assert [round(window.start) for window in found.windows] == [0, 1, 2] and len(ticks) == 3
    assert max(window.max for window in found.windows) == found.frame.max
    assert all(window.resident_bytes and window.resident_bytes > 1e7 for window in found.windows)
    assert found.p99_drift is None
    assert found.frames_per_second == pytest.approx(found.frame.n / found.seconds)


def test_windows_that_lose_frames_are_refused() -> None:
    whole = distribution([0.001] * 5)
    window = Window(start=0, n=4, p50=1, p99=1, max=1)
    with pytest.raises(ValidationError, match="all of its frames"):
        Sustained(seconds=1, frame=whole, windows=[window], p50_drift=None, p99_drift=None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([10, 10, 11, 12, 12, 12], 0.2), ([12, 12, 0, 0, 6, 6], -0.5), ([1, 1, 1, 1, 99], None), ([0] * 6, None)],
)
def test_drift_is_the_last_third_by_the_first(values: list[float], expected: float | None) -> None:
    assert drift(values) == (expected if expected is None else pytest.approx(expected))


def test_batches_are_runs_of_so_many_frames(spot_model, spot_frame) -> None:
    with load(spot_model(), threads=1) as detector:
        run, sizes = detector.session.run, []

        def seen(feeds, out=None):
            sizes.append(len(feeds["frames"]))
            time.sleep(0.01)
            return run(feeds, out)

        detector.session.run = seen  # type: ignore[method-assign]
        found = measure_batches(detector, [spot_frame(), spot_frame(x=5)], [4, 1], Schedule(2, 3, 1))
    assert sizes == [1] * 7 + [4] * 7
    assert [point.batch for point in found] == [1, 4]
    assert all(point.run.n == point.host.n == 6 and point.run.p50 >= point.host.p50 >= 10 for point in found)
    # Ten milliseconds a run however many frames it holds: four times the batch, more than twice the frames.
    assert found[1].frames_per_second > 2 * found[0].frames_per_second


def test_no_time_and_no_frame_for_a_sustained_run_are_refused(spot_model, spot_frame) -> None:
    with load(spot_model()) as detector:
        with pytest.raises(UsageError, match="shows nothing"):
            measure_sustained(detector, [spot_frame()], 0)
        with pytest.raises(UsageError, match="no frame to time"):
            measure_sustained(detector, [], 1)
