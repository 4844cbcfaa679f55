"""Times as distributions: every call counts, and a percentile is a time that was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irforge.runtime.report.times import Distribution


def distribution(seconds: Sequence[float]) -> Distribution:
    """Summarise call times, given in seconds, in milliseconds.

    Percentiles take the smallest measured time that at least that share of the calls did not exceed, so none is
    invented between two calls; with fewer than 100 calls p99 is therefore the slowest one.
    """
    times = np.sort(np.asarray(seconds, np.float64)) * 1e3
    p50, p90, p99 = (float(v) for v in np.percentile(times, (50, 90, 99), method="inverted_cdf"))
    low, high = float(times[0]), float(times[-1])
    return Distribution(
        n=times.size,
        min=low,
        # Rounding in the sum can carry the mean of equal times an ulp past them.
        mean=min(max(float(times.mean()), low), high),
        p50=p50,
        p90=p90,
        p99=p99,
        max=high,
        jitter=p99 - p50,
    )


def median(values: Sequence[float]) -> float:
    """The p50 of `distribution`, in the unit of `values`."""
    return float(np.percentile(np.asarray(values, np.float64), 50, method="inverted_cdf"))


def drift(values: Sequence[float]) -> float | None:
    """By how much a series has changed: the median of its last third by that of its first, minus 1.

    None with fewer than six values, or none to compare with.
    """
    third = len(values) // 3
    if third < 2:
        return None
    first, last = float(np.median(values[:third])), float(np.median(values[-third:]))
    return last / first - 1 if first > 0 else None
