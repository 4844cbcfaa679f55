"""False alarms per hour: what is counted, its exact interval, and what cannot be said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irforge.datasets import BoxTruth
from irforge.detections import Detections
from irforge.metrics import BoxMetrics
from irforge.metrics.alarms import alarm_rate, gamma_quantile, poisson_interval, regularised_gamma

TARGET = [10, 10, 14, 13]


def frame(hit: float | None, *strays: float, targets: int = 1) -> tuple[Detections, BoxTruth]:
    """A frame whose target, if any, is found with score `hit`, and what else is found there."""
    boxes = [TARGET] * (hit is not None) + [[40 + 6 * i, 40, 43 + 6 * i, 43] for i in range(len(strays))]
    scores = ([] if hit is None else [hit]) + list(strays)
    true = BoxTruth(np.array([TARGET] * targets, np.float32).reshape(-1, 4), np.zeros(targets, np.int64))
    return Detections(np.array(boxes), np.array(scores), np.zeros(len(scores))), true


def metrics_of(*frames: tuple[Detections, BoxTruth], **settings: Any) -> BoxMetrics:
    metrics = BoxMetrics(("target",), 0.5, **settings)
    for detections, truth in frames:
        metrics.update(detections, truth, (64, 80))
    return metrics


FOUR = [frame(0.9), frame(0.8, 0.85), frame(0.6), frame(0.2, 0.7)]
EMPTY = [frame(None, 0.95, 0.61, targets=0), frame(None, 0.6, 0.59, targets=0), frame(None, targets=0)]


def test_the_threshold_falls_until_enough_targets_are_found() -> None:
    rate = metrics_of(*FOUR, *EMPTY, alarm_pd=0.75, frame_rate=10).result().alarms
    # Three of four targets need the score 0.6; a stray of that very score counts, one of 0.59 does not.
    assert rate.reached_pd == 0.75
    assert rate.threshold is not None and np.float32(0.59) < rate.threshold < np.float32(0.6)
    assert rate.target_free is not None and rate.every_frame is not None
    assert (rate.target_free.frames, rate.target_free.alarms) == (3, 3)
    assert (rate.every_frame.frames, rate.every_frame.alarms) == (7, 5)
    assert rate.target_free.per_hour == pytest.approx(3 / 3 * 10 * 3600)
    assert rate.every_frame.per_hour == pytest.approx(5 / 7 * 10 * 3600)
    # The 95 % interval of three events is 0.6187 .. 8.7673.
    assert rate.target_free.interval == pytest.approx((0.618672 * 12000, 8.767273 * 12000), rel=1e-6)
    assert rate.reason == ""


def test_its_threshold_gives_the_same_counts_again() -> None:
    metrics = metrics_of(*FOUR, *EMPTY)
    for pd in (0.25, 0.5, 0.75, 1.0):
        rate = metrics.alarms(pd)
        assert rate.threshold is not None and rate.every_frame is not None
        again = metrics.at(rate.threshold).result()
        assert (again.pd, again.centre.fp) == (rate.reached_pd, rate.every_frame.alarms)
    assert metrics.alarms(0.25, 1).target_free.alarms == 1
    assert metrics.alarms(0.25, 50).target_free.per_hour == 50 * metrics.alarms(0.25, 1).target_free.per_hour


def test_no_alarm_still_has_an_upper_bound() -> None:
    rate = metrics_of(frame(0.9), frame(None, 0.3, targets=0), frame_rate=25).alarms()
    assert rate.target_free is not None
    assert (rate.target_free.alarms, rate.target_free.per_hour) == (0, 0)
    # -ln 0.025 events on one frame.
    assert rate.target_free.interval == pytest.approx((0, 3.688879454 * 25 * 3600))


def test_nine_of_ten_is_a_pd_of_nine_tenths() -> None:
    frames = [frame(0.9 - i / 100) for i in range(9)] + [frame(None), frame(None, 0.5, targets=0)]
    assert metrics_of(*frames).alarms(0.9).reached_pd == 0.9
    assert metrics_of(*frames).alarms(0.91).reached_pd is None


def test_what_cannot_be_said_is_none_with_a_reason() -> None:
    unreachable = metrics_of(*FOUR[:3], frame(None), *EMPTY).alarms(0.9)
    assert unreachable.target_free is unreachable.every_frame is unreachable.threshold is None
    assert "3 of 4 targets" in unreachable.reason
    without = metrics_of(*FOUR).alarms(0.75)
    assert without.target_free is None and without.reason == "no frame is free of targets"
    assert without.every_frame is not None and without.every_frame.alarms == 2
    assert metrics_of(*EMPTY).alarms().reason == metrics_of().alarms().reason == "there are no targets"


@pytest.mark.parametrize(("pd", "rate"), [(0, 25), (1.1, 25), (0.9, 0), (0.9, float("inf"))])
def test_a_pd_or_rate_out_of_range_is_refused(pd: float, rate: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        metrics_of(*FOUR).alarms(pd, rate)
    nothing = np.empty(0, np.bool_)
    with pytest.raises(ValueError, match="must lie in"):
        alarm_rate(
            np.empty(0, np.float32), nothing, nothing, targets=1, frames=1, target_free_frames=0, pd=pd, frame_rate=rate
        )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 10, 33, 100, 1234, 50_000, 2_000_000])
def test_the_poisson_interval_is_that_of_scipy(count: int) -> None:
    # Importing scipy.stats would take seconds.
    quantile = pytest.importorskip("scipy.special", reason="scipy comes with irforge[train]").chdtri
    for confidence in (0.68, 0.95, 0.999):
        tail = (1 - confidence) / 2
        expected = quantile(2 * count, 1 - tail) / 2 if count else 0.0, quantile(2 * count + 2, tail) / 2
        assert poisson_interval(count, confidence) == pytest.approx(expected, rel=1e-8)


def test_the_incomplete_gamma_function_is_that_of_scipy() -> None:
    special = pytest.importorskip("scipy.special", reason="scipy comes with irforge[train]")
    for shape in (1, 2, 5.5, 40, 900):
        for x in (0.0, 1e-3, 0.5, 1, 3, 10, 40, 60, 850, 1000):
            assert regularised_gamma(shape, x) == pytest.approx(special.gammainc(shape, x), rel=1e-10, abs=1e-14)
        for share in (1e-6, 0.1, 0.5, 0.9, 1 - 1e-6):
            assert gamma_quantile(shape, share) == pytest.approx(special.gammaincinv(shape, share), rel=1e-8)
