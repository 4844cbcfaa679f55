"""Promises of the verdicts: what is called more than noise is, and noise seldom is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from irforge.runtime.noise import SAME_SPEED, difference_interval, judge_found, judge_medians, judge_tails, mcnemar
from irforge.runtime.report.times import Distribution, Latency

STEADY = [10.0, 10.1, 9.9, 10.2, 10.0, 9.8, 10.1, 10.0]


def latency(calls: np.ndarray, rounds: int) -> Latency:
    one = Distribution(n=calls.size, min=1, mean=1, p50=1, p90=1, p99=1, max=1, jitter=0)
    return Latency(
        gpu=None, gpu_note="none", host=one, frame=one, prepare=one, decode=one, frame_calls=calls.tolist(),
        threads=1, rounds=rounds, frames_per_round=calls.size // rounds, warm_up=0,
    )  # fmt: skip


def test_a_clear_change_counts_and_says_by_how_much() -> None:
    verdict, why = judge_medians(STEADY, [1.3 * v for v in STEADY], SAME_SPEED)
    assert verdict == "more"
    low, high = (float(part) for part in why.split(" times")[0].split(" to "))
    assert low <= 1.3 <= high and high - low < 0.1


def test_a_change_within_the_spread_of_the_rounds_is_noise() -> None:
    wild = [10.0, 14.0, 8.0, 13.0, 9.0, 12.0, 7.0, 11.0]
    assert judge_medians(wild, [1.1 * v for v in wild], SAME_SPEED)[0] == "noise"


def test_a_sure_but_small_change_is_below_what_two_runs_differ_by() -> None:
    verdict, why = judge_medians(STEADY, [1.03 * v for v in STEADY], SAME_SPEED)
    assert verdict == "noise" and "two runs of one file differ by 5 %" in why
    assert judge_medians(STEADY, [1.2 * v for v in STEADY], floor=0.25)[0] == "noise"


@pytest.mark.parametrize("before", [None, STEADY[:4]])
def test_without_enough_rounds_nobody_knows(before: list[float] | None) -> None:
    assert judge_medians(before, STEADY, SAME_SPEED)[0] == "unknown"


def test_runs_of_one_distribution_are_seldom_told_apart() -> None:
    draw = np.random.default_rng(3)
    pairs = [(draw.normal(10, 1, 10).tolist(), draw.normal(10, 1, 10).tolist()) for _ in range(100)]
    false = sum(judge_medians(one, other, 0.0)[0] == "more" for one, other in pairs)
    assert false <= 6


def test_p99_is_judged_by_whole_rounds_and_only_with_enough_calls() -> None:
    draw = np.random.default_rng(1)
    calls = draw.gamma(9, 1, 2000)
    assert judge_tails(latency(calls, 10), latency(1.5 * calls, 10), SAME_SPEED)[0] == "more"
    assert judge_tails(latency(calls, 10), latency(draw.gamma(9, 1, 2000), 10), SAME_SPEED)[0] == "noise"
    verdict, why = judge_tails(latency(calls[:500], 10), latency(calls, 10), SAME_SPEED)
    assert verdict == "unknown" and "1000 calls" in why


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 0), (9, 1), (12, 12), (40, 22)])
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(min(1.0, expected))


def test_paired_targets_decide_where_two_rates_alone_cannot() -> None:
    before, after = (280, 300), (268, 300)
    assert judge_found(before, after, None)[0] == "noise"
    assert judge_found(before, after, (12, 0))[0] == "more"
    assert judge_found(before, after, (40, 28))[0] == "noise"


def test_newcombes_interval_is_that_of_his_table() -> None:
    # Statistics in Medicine 17 (1998), table II, case a: 56/70 against 48/80, 95 %: 0.0524 to 0.3339. Here 99 %.
    low, high = difference_interval((48, 80), (56, 70))
    assert low < 0.0524 < 56 / 70 - 48 / 80 < 0.3339 < high
    assert (high - low) / (0.3339 - 0.0524) == pytest.approx(2.5758 / 1.96, rel=0.05)
