"""Histograms of absolute values that grow with their data, and the four ways to choose a range from one.

int8 here is symmetric: a threshold T makes a scale T / 127, and values beyond T are clipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from irforge.errors import UsageError

BINS = 2048
LEVELS = 127
METHODS = ("minmax", "percentile", "entropy", "mse")
"""`minmax` is the default: an infrared target is the largest activation in 0.01 % of the pixels, and the other three
take it for an outlier."""

# Half of int8's levels carry one sign; the reference distribution of the entropy method is folded onto them.
_FOLDED = 128
# Ranges are tried in steps of 0.2 % of the limit (entropy) and 0.8 % of the largest value (mse).
_STRIDE = 4
_BLOCK = 1 << 15
_CANDIDATES = 128

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


@dataclass
class Histogram:
    """Counts of |x| in `BINS` equal bins from 0 to `limit`, exact zeros apart.

    `limit` is the power of two above the largest value, so that growing merges whole bins and the order of the data
    does not matter.
    """

    limit: float = 0.0
    zeros: int = 0
    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, magnitudes: Values, largest: float) -> None:
        """Count finite magnitudes (>= 0, any shape), the largest of which is `largest`."""
        if largest > 0:
            self._grow(largest)
            places = (magnitudes.ravel() * np.float32(BINS / self.limit)).astype(np.intp)
            fresh = np.bincount(places, minlength=BINS)
        else:
            fresh = np.zeros(BINS, np.int64)
            fresh[0] = magnitudes.size
        zeros = magnitudes.size - int(np.count_nonzero(magnitudes)) if fresh[0] else 0
        fresh[0] -= zeros
        self.counts += fresh
        self.zeros += zeros

    @property
    def total(self) -> int:
        return self.zeros + int(self.counts.sum())

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Middle of each bin."""
        middles: npt.NDArray[np.float64] = (np.arange(BINS, dtype=np.float64) + 0.5) * (self.limit / BINS)
        return middles

    def _grow(self, largest: float) -> None:
        wanted = math.ldexp(1.0, math.frexp(largest)[1])
        if self.limit == 0:
            self.limit = wanted
        while self.limit < wanted:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2


def blocks(values: Values) -> Iterator[Values]:
    """All values, in runs that stay in the cache: temporary arrays of whole maps cost more by their page faults."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def thresholds(histogram: Histogram, absmax: float, percentile: float) -> dict[str, float]:
    """The threshold of each method, at most `absmax`; all 0 for a tensor that is always 0."""
    if absmax <= 0:
        return dict.fromkeys(METHODS, 0.0)
    found = {
        "minmax": absmax,
        "percentile": percentile_threshold(histogram, percentile),
        "entropy": entropy_threshold(histogram),
        "mse": mse_threshold(histogram, absmax),
    }
    return {method: min(value, absmax) for method, value in found.items()}


def check_method(method: str) -> None:
    """Raises UsageError: no such method."""
    if method not in METHODS:
        raise UsageError(f"there is no range method '{method}'", f"Methods: {', '.join(METHODS)}")


def percentile_threshold(histogram: Histogram, percentile: float) -> float:
    """Upper edge of the first bin below which at least `percentile` % of all values lie, zeros included."""
    wanted = math.ceil(histogram.total * percentile / 100)
    below = histogram.zeros + np.cumsum(histogram.counts)
    return float((int(np.searchsorted(below, wanted)) + 1) * histogram.limit / BINS)


def entropy_threshold(histogram: Histogram) -> float:
    """The threshold that loses least information: the smallest Kullback-Leibler divergence of the clipped histogram
    from its image on 128 levels (S. Migacz, "8-bit inference with TensorRT", GTC 2017). Exact zeros do not count.
    """
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    if used <= _FOLDED:
        return float(used * histogram.limit / BINS)
    sizes = np.append(np.arange(_FOLDED, used, _STRIDE), used)
    return float(sizes[int(np.argmin(_divergences(histogram.counts[:used], sizes)))] * histogram.limit / BINS)


def _divergences(counts: Counts, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """For each size n: KL(P || Q), where P is the first n bins with the clipped tail added to the last of them, and Q
    spreads what 128 groups of the same n bins hold evenly over the bins of each group that are not empty.

    With p summed over groups, sum p log p/q needs prefix sums only, so that all sizes are done at once.
    """
    held = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    own = np.concatenate([[0.0], np.cumsum(_times_log(counts.astype(np.float64)))])
    total, inside = held[-1], np.maximum(held[sizes], 1e-9)
    edges = -(-np.arange(_FOLDED + 1)[None, :] * sizes[:, None] // _FOLDED)
    sums, members = np.diff(held[edges], axis=1), np.diff(filled[edges], axis=1)
    log_level = np.log(sums / np.maximum(members, 1), out=np.zeros_like(sums), where=sums > 0)
    last, tail = counts[sizes - 1].astype(np.float64), total - inside
    # The tail may land in a bin that holds nothing by itself; the image misses that mass altogether.
    log_last = np.where(last > 0, log_level[:, -1], np.log(inside * 1e-12))
    of_reference = own[sizes] - _times_log(last) + _times_log(last + tail)
    of_image = (sums * log_level).sum(1) + tail * log_last
    divergences: npt.NDArray[np.float64] = (of_reference - of_image) / total + np.log(inside / total)
    # A range that clips every value but zero would compare two empty distributions.
    return np.where(held[sizes] > 0, divergences, np.inf)


def _times_log(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    product: npt.NDArray[np.float64] = x * np.log(x, out=np.zeros_like(x), where=x > 0)
    return product


def mse_threshold(histogram: Histogram, absmax: float) -> float:
    """The threshold with the smallest mean squared error of rounding inside plus clipping outside."""
    some = histogram.counts > 0
    weights = histogram.counts[some].astype(np.float64)
    centres = histogram.centres[some]
    candidates = absmax * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    width = histogram.limit / BINS
    losses = [float(weights @ _squared_error(centres, threshold, width)) for threshold in candidates]
    return float(candidates[int(np.argmin(losses))])


def _squared_error(centres: npt.NDArray[np.float64], threshold: float, width: float) -> npt.NDArray[np.float64]:
    step = threshold / LEVELS
    if step < width:
        # Bins wider than a step cannot tell where inside it a value falls: the mean error of uniform rounding.
        return np.where(centres <= threshold, step**2 / 12, (centres - threshold) ** 2)
    return (centres - np.minimum(np.round(centres / step), LEVELS) * step) ** 2
