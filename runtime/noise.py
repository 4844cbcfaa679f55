"""What is more than noise, between two runs on the same frames: of times, and of targets found.

Times: rounds are resampled (a bootstrap of blocks, Künsch, Annals of Statistics 1989), because the calls of one round
share its disturbances. Targets: where each one is known in both runs, an exact McNemar test decides (Psychometrika
1947); else an interval of the difference of two rates (Newcombe, Statistics in Medicine 1998, method 10), wider than
it need be where the frames are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from irforge.metrics import wilson_interval
from irforge.runtime.report.times import Latency

Verdict = Literal["more", "noise", "unknown", "counted"]
"""More than noise; within it; nothing tells; not a measurement but a count, whose every difference is real."""

SAME_SPEED = 0.05
"""Two runs of one file differ by as much; the rounds of one run do not show it."""
LEAST_ROUNDS = 5
"""Rounds without which nothing tells how far a repeated measurement differs."""
TAIL_CALLS = 1000
"""Calls without which p99 rests on a handful of them."""
CONFIDENCE = 0.99
_Z = 2.575829
_RESAMPLES = 2000


def judge_medians(before: Sequence[float] | None, after: Sequence[float] | None, floor: float) -> tuple[Verdict, str]:
    """Whether a clock's p50 changed by more than noise, from each round's; and what that rests on.

    Args:
        before, after: medians of the rounds; None where a report does not hold them.
        floor: the share below which no change counts.
    """
    if before is None or after is None:
        return "unknown", "a report before schema 1.2 does not hold its rounds"
    if min(len(before), len(after)) < LEAST_ROUNDS:
        return "unknown", f"fewer than {LEAST_ROUNDS} rounds tell nothing of the noise"
    draw = np.random.default_rng(0)
    return _judged(_medians(after, draw) / _medians(before, draw), floor)


def judge_tails(before: Latency, after: Latency, floor: float) -> tuple[Verdict, str]:
    """The same for the frame clock's p99, from all calls by round."""
    if before.frame_calls is None or after.frame_calls is None:
        return "unknown", "a report before schema 1.2 does not hold its calls"
    calls, rounds = min(len(before.frame_calls), len(after.frame_calls)), min(before.rounds, after.rounds)
    if calls < TAIL_CALLS or rounds < LEAST_ROUNDS:
        return "unknown", f"p99 needs {TAIL_CALLS} calls in {LEAST_ROUNDS} rounds"
    draw = np.random.default_rng(0)
    tails = [_tails(np.array(part.frame_calls).reshape(part.rounds, -1), draw) for part in (before, after)]
    return _judged(tails[1] / tails[0], floor)


def judge_found(
    before: tuple[int, int], after: tuple[int, int], changed: tuple[int, int] | None
) -> tuple[Verdict, str]:
    """Whether more or fewer targets were found than chance explains, and what that rests on.

    Args:
        before, after: targets found, and targets there are.
        changed: how many only the first found, and only the second; None where that is not known.
    """
    if changed is not None:
        lost, gained = changed
        p = mcnemar(lost, gained)
        return (
            "more" if p < 1 - CONFIDENCE else "noise"
        ), f"target by target: {lost} lost, {gained} gained, p = {p:.2g}"
    low, high = difference_interval(before, after)
    words = f"{100 * low:+.1f} to {100 * high:+.1f} points, as if the frames were others"
    return ("noise" if low <= 0 <= high else "more"), words


def mcnemar(lost: int, gained: int) -> float:
    """The two-sided p of so uneven a split of the targets that changed; exact."""
    n, fewer = lost + gained, min(lost, gained)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / (1 << n))


def difference_interval(before: tuple[int, int], after: tuple[int, int]) -> tuple[float, float]:
    """The 99 % interval of the second rate less the first, each given as hits and trials, of which there are some."""
    one, other = wilson_interval(*before, z=_Z), wilson_interval(*after, z=_Z)
    assert one and other
    rate_a, rate_b = before[0] / before[1], after[0] / after[1]
    low = math.hypot(rate_b - other[0], one[1] - rate_a)
    high = math.hypot(other[1] - rate_b, rate_a - one[0])
    return rate_b - rate_a - low, rate_b - rate_a + high


def _medians(rounds: Sequence[float], draw: np.random.Generator) -> npt.NDArray[np.float64]:
    picked = draw.integers(0, len(rounds), (_RESAMPLES, len(rounds)))
    medians: npt.NDArray[np.float64] = np.median(np.asarray(rounds)[picked], axis=1)
    return medians


def _tails(rounds: npt.NDArray[np.float64], draw: np.random.Generator) -> npt.NDArray[np.float64]:
    picked = draw.integers(0, len(rounds), (_RESAMPLES, len(rounds)))
    return np.array([np.percentile(rounds[rows], 99, method="inverted_cdf") for rows in picked])


def _judged(ratios: npt.NDArray[np.float64], floor: float) -> tuple[Verdict, str]:
    tail = (1 - CONFIDENCE) / 2
    low, middle, high = (float(value) for value in np.quantile(ratios, (tail, 0.5, 1 - tail)))
    words = f"{low:.2f} to {high:.2f} times as long, over the rounds"
    if low <= 1 <= high:
        return "noise", words
    if abs(middle - 1) < floor:
        return "noise", f"{words}; but two runs of one file differ by {100 * floor:.0f} %"
    return "more", words
