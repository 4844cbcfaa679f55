from __future__ import annotations

import numpy as np
import pytest

from irforge.calib.histogram import (
    BINS,
    METHODS,
    Histogram,
    check_method,
    entropy_threshold,
    mse_threshold,
    percentile_threshold,
    thresholds,
)
from irforge.errors import UsageError


def _histogram(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part.astype(np.float32), float(part.max()))
    return histogram


def _from_counts(counts: list[int], limit: float) -> Histogram:
    padded = np.zeros(BINS, np.int64)
    padded[: len(counts)] = counts
    return Histogram(limit, 0, padded)


def test_growing_equals_counting_at_once_in_any_order() -> None:
    random = np.random.default_rng(0)
    parts = [np.abs(random.normal(0, scale, 5000)).astype(np.float32) for scale in (0.01, 3, 0.4, 40)]
    whole = _histogram(np.concatenate(parts))
    for order in (parts, parts[::-1]):
        grown = _histogram(*order)
        assert grown.limit == whole.limit
        assert np.array_equal(grown.counts, whole.counts)


def test_zeros_are_counted_apart_and_nothing_is_lost() -> None:
    values = np.float32([0, 0, 0, 1e-30, 0.5, 1.0, 2.0])
    histogram = _histogram(values, np.zeros(4, np.float32))
    assert histogram.zeros == 7
    assert histogram.total == 11
    assert histogram.counts[0] == 1
    assert histogram.limit > 2.0


def test_every_value_lies_in_its_bin() -> None:
    values = np.float32([0.25, 1.0, 4.0, 7.99])
    histogram = _histogram(values)
    found = np.flatnonzero(histogram.counts)
    assert np.all(np.abs(histogram.centres[found] - values) <= histogram.limit / BINS / 2)


@pytest.mark.parametrize(("percentile", "expected"), [(50, 4.0), (99, 7.92), (100, 8.0)])
def test_percentile_is_the_edge_below_which_that_share_lies(percentile: float, expected: float) -> None:
    histogram = _from_counts([10] * BINS, 8.0)
    assert percentile_threshold(histogram, percentile) == pytest.approx(expected, abs=8 / BINS)


def test_percentile_counts_zeros() -> None:
    histogram = _from_counts([1] * 100, 1.0)
    histogram.zeros = 900
    assert percentile_threshold(histogram, 95) == pytest.approx(50 / BINS)
    assert percentile_threshold(histogram, 89) == pytest.approx(1 / BINS)


def _divergence_by_definition(counts: np.ndarray, size: int) -> float:
    inside = counts[:size]
    group = np.arange(size) * 128 // size
    filled = inside > 0
    members = np.maximum(np.bincount(group[filled], minlength=128), 1)
    image = np.where(filled, (np.bincount(group, inside, minlength=128) / members)[group], 0)
    reference = inside.astype(float)
    reference[-1] += counts[size:].sum()
    reference, image = reference / reference.sum(), image / image.sum()
    some = reference > 0
    return float(np.sum(reference[some] * np.log(reference[some] / np.maximum(image[some], 1e-12))))


def test_entropy_finds_the_smallest_divergence_by_definition() -> None:
    random = np.random.default_rng(3)
    counts = np.zeros(BINS, np.int64)
    counts[:600] = 5000 * np.exp(-np.arange(600) / 90) + random.integers(0, 20, 600)
    counts[1500:1510] = 3
    histogram = Histogram(1.0, 0, counts)
    sizes = [*range(128, 1510, 4), 1510]
    expected = min(sizes, key=lambda size: _divergence_by_definition(counts, size))
    assert entropy_threshold(histogram) == pytest.approx(expected / BINS)


def test_entropy_keeps_a_flat_distribution_and_clips_lone_outliers() -> None:
    assert entropy_threshold(_from_counts([1000] * BINS, 4.0)) == pytest.approx(4.0)
    falling = [int(100_000 * np.exp(-place / 40)) for place in range(400)]
    assert entropy_threshold(_from_counts([*falling, *[0] * 1600, 1], 1.0)) < 400 / BINS


def test_entropy_of_few_bins_keeps_them_all() -> None:
    assert entropy_threshold(_from_counts([5, 0, 7], 1.0)) == pytest.approx(3 / BINS)


def _mean_error(values: np.ndarray, threshold: float) -> float:
    step = threshold / 127
    return float(np.mean((values - np.minimum(np.rint(values / step), 127) * step) ** 2))


@pytest.mark.parametrize("outliers", [0, 20])
def test_mse_comes_close_to_the_best_threshold_on_the_values_themselves(outliers: int) -> None:
    random = np.random.default_rng(5)
    values = np.abs(random.normal(0, 1, 50_000))
    values[:outliers] = 9.0
    chosen = mse_threshold(_histogram(values), float(values.max()))
    best = min(_mean_error(values, threshold) for threshold in np.linspace(0.5, values.max(), 100))
    assert _mean_error(values, chosen) <= best * 1.02


def test_only_minmax_keeps_a_nine_pixel_target() -> None:
    """One 3 x 3 target in a frame of 256 x 256 is 0.014 % of the values."""
    random = np.random.default_rng(7)
    frame = np.abs(random.normal(0, 1, (256, 256)))
    frame[100:103, 50:53] = 40.0
    found = thresholds(_histogram(frame), 40.0, 99.98)
    assert found["minmax"] == 40.0
    assert found["percentile"] < 8
    assert found["entropy"] < 20


def test_no_threshold_exceeds_the_largest_value() -> None:
    values = np.float32([0.1, 0.2, 1.3])
    assert max(thresholds(_histogram(values), 1.3, 100).values()) <= 1.3


def test_a_tensor_that_is_always_zero_has_threshold_zero() -> None:
    histogram = _histogram(np.zeros(10, np.float32))
    assert thresholds(histogram, 0.0, 99.9) == dict.fromkeys(METHODS, 0.0)


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="minmax, percentile, entropy, mse"):
        check_method("max")
