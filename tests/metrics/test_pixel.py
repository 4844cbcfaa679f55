"""Golden values of the published evaluation code and of its corrected form, and what they leave open."""

from __future__ import annotations

import json
import math
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from irforge.errors import ArtifactError
from irforge.metrics import PixelMetrics, match_targets, wilson_interval

Spots = list[tuple[int, int, int, int]]

GT1: Spots = [(2, 2, 2, 2), (10, 10, 2, 2)]
DIAGONAL: Spots = [(5, 5, 1, 1), (6, 6, 1, 1)]


def drawn(spots: Spots) -> Any:
    """bool 16 x 16; a spot is (row, column, height, width)."""
    mask = np.zeros((16, 16), bool)
    for row, column, height, width in spots:
        mask[row : row + height, column : column + width] = True
    return mask


GOLDEN: dict[str, tuple[Spots, Spots, float, float, float, float, float]] = {
    # case: truth, prediction, Pd legacy, Pd correct, Fa legacy x 1e6, Fa correct x 1e6, IoU
    "M1": (GT1, [(2, 3, 2, 2), (13, 2, 2, 2)], 0.5, 0.5, 0, 15625, 1 / 7),
    "M2": (GT1, [(2, 3, 2, 2), (13, 2, 2, 3)], 0.5, 0.5, 23437.5, 23437.5, 0.125),
    "M3": (GT1, [(2, 2, 2, 2), (10, 13, 2, 2)], 0.5, 0.5, 0, 15625, 1 / 3),
    "M4": (DIAGONAL, DIAGONAL, 1, 1, 0, 0, 1),
    "M6": ([(8, 5, 1, 1), (8, 9, 1, 1)], [(6, 7, 1, 1), (10, 4, 1, 1)], 0.5, 1, 0, 0, 0),
    "M8": (GT1, [], 0, 0, 0, 0, 0),
    "M9": (GT1, [(0, 0, 16, 16)], 0, 0, 1e6, 1e6, 0.03125),
}


@pytest.mark.parametrize("case", GOLDEN)
@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "correct"])
def test_golden_cases(case: str, legacy: bool) -> None:
    truth, prediction, pd_legacy, pd, fa_legacy, fa, iou = GOLDEN[case]
    metrics = PixelMetrics(legacy=legacy)
    metrics.update(drawn(prediction), drawn(truth))
    result = metrics.result()
    assert result.pd == (pd_legacy if legacy else pd)
    assert result.fa is not None and result.fa * 1e6 == pytest.approx(fa_legacy if legacy else fa)
    assert result.iou == pytest.approx(iou)


def test_one_diagonal_pair_is_one_target() -> None:
    metrics = PixelMetrics()
    metrics.update(drawn(DIAGONAL), drawn(DIAGONAL))
    assert metrics.result().true_targets == 1
    apart = PixelMetrics(connectivity=4)
    apart.update(drawn(DIAGONAL), drawn(DIAGONAL))
    assert apart.result().true_targets == 2


def test_niou_weighs_frames_and_iou_pixels() -> None:
    metrics = PixelMetrics()
    metrics.update(drawn([(0, 0, 2, 3)]), drawn([(0, 1, 2, 3)]))  # 4 of 8
    metrics.update(drawn([(0, 0, 1, 5)]), drawn([(0, 4, 1, 5)]))  # 1 of 9
    result = metrics.result()
    assert result.iou == pytest.approx(5 / 17) and result.niou == pytest.approx((0.5 + 1 / 9) / 2)
    assert round(float(result.niou or 0), 4) == 0.3056


def test_a_frame_without_any_target_counts_in_niou_only_in_legacy() -> None:
    for legacy, expected in ((False, 1.0), (True, 0.5)):
        metrics = PixelMetrics(legacy=legacy)
        metrics.update(drawn(GT1), drawn(GT1))
        metrics.update(drawn([]), drawn([]))
        assert metrics.result().niou == expected


def test_perfect_predictions_stay_perfect_however_often_asked() -> None:
    metrics = PixelMetrics()
    for _ in range(4):
        metrics.update(drawn(GT1), drawn(GT1))
        assert metrics.result().pd == 1


def test_roc_golden() -> None:
    p = 1 / (1 + np.exp(-np.array([[2.0, -1.0, 0.0, -3.0]])))
    truth = np.array([[True, True, False, False]])
    legacy, correct = PixelMetrics(legacy=True), PixelMetrics()
    legacy.update(p, truth)
    correct.update(p, truth)
    result = legacy.result()
    assert [round(v or 0, 4) for v in result.tpr] == [0.9995] * 3 + [0.4998] * 6 + [0] * 2
    assert [round(v or 0, 4) for v in result.fpr] == [0.9995] + [0.4998] * 4 + [0] * 6
    exact = correct.result()
    assert exact.tpr == (1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0)
    assert exact.fpr == (1, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0, 0)


def test_roc_counts_every_pixel_above_every_threshold() -> None:
    rng = np.random.default_rng(0)
    metrics = PixelMetrics()
    frames = [(np.round(rng.random((20, 30)), 2).astype(np.float32), rng.random((20, 30)) > 0.7) for _ in range(3)]
    for p, truth in frames:
        metrics.update(p, truth)
    result = metrics.result()
    p = np.stack([f for f, _ in frames])
    truth = np.stack([t for _, t in frames])
    for k, threshold in enumerate(result.roc_thresholds):
        above = p > np.float32(threshold)
        assert result.tpr[k] == (above & truth).sum() / truth.sum()
        assert result.fpr[k] == (above & ~truth).sum() / (~truth).sum()


def test_the_threshold_is_strict() -> None:
    metrics = PixelMetrics(threshold=0.5)
    metrics.update(np.full((4, 4), 0.5, np.float32), np.ones((4, 4), bool))
    assert metrics.result().iou == 0


def test_figures_without_a_denominator_are_none() -> None:
    empty = PixelMetrics().result()
    assert empty.iou is empty.niou is empty.pd is empty.fa is empty.pd_interval is None and empty.frames == 0
    metrics = PixelMetrics()
    metrics.update(drawn([]), drawn([]))
    result = metrics.result()
    assert result.iou is result.pd is None and result.fa == 0
    json.dumps(result.as_dict(), allow_nan=False)


def test_nearer_pairs_are_matched_first() -> None:
    truth, prediction = drawn([(5, 5, 1, 1), (5, 9, 1, 1)]), drawn([(5, 7, 1, 1), (5, 10, 1, 1)])
    match = match_targets(prediction, truth)
    # Legacy gives the middle one to the first target too, but by order and not by distance.
    assert match.pairs == ((0, 0), (1, 1))
    single = match_targets(drawn([(5, 7, 1, 1)]), drawn([(5, 5, 1, 1), (5, 8, 1, 1)]))
    assert single.pairs == ((1, 0),) and single.lost == [0]
    assert match_targets(drawn([(5, 7, 1, 1)]), drawn([(5, 5, 1, 1), (5, 8, 1, 1)]), legacy=True).pairs == ((0, 0),)


def test_lost_and_extra_targets_are_listed_with_their_areas() -> None:
    truth = drawn([(1, 1, 2, 2), (8, 8, 3, 3)])
    match = match_targets(drawn([(1, 1, 2, 3), (13, 0, 2, 2)]), truth)
    assert match.matched_areas == [4] and match.lost_areas == [9] and match.extra_areas == [4]
    assert match.lost == [1] and match.extra == [1]


def test_update_returns_the_match_of_its_frame() -> None:
    metrics = PixelMetrics()
    assert metrics.update(drawn(GT1), drawn(GT1)).pairs == ((0, 0), (1, 1))
    assert metrics.update(drawn([]), drawn(GT1)).lost_areas == [4, 4]


@pytest.mark.parametrize("legacy", [True, False])
def test_merged_parts_give_the_figures_of_the_whole(legacy: bool) -> None:
    rng = np.random.default_rng(1)
    frames = [(rng.random((32, 32)) ** 8, rng.random((32, 32)) > 0.98) for _ in range(6)]
    whole, first, second = (PixelMetrics(legacy=legacy) for _ in range(3))
    for i, (p, truth) in enumerate(frames):
        whole.update(p, truth)
        (first if i % 2 else second).update(p, truth)
    first.merge(second)
    merged, expected = first.result(), whole.result()
    assert merged.niou == pytest.approx(expected.niou)
    assert {k: v for k, v in merged.as_dict().items() if k != "niou"} == {
        k: v for k, v in expected.as_dict().items() if k != "niou"
    }
    with pytest.raises(ValueError, match="different settings"):
        first.merge(PixelMetrics(legacy=not legacy))


def test_predictions_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(ArtifactError, match="NaN"):
        PixelMetrics().update(np.full((4, 4), np.nan), np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="one size"):
        PixelMetrics().update(np.zeros((4, 4)), np.zeros((4, 5), bool))


def test_wilson_interval_is_the_textbooks() -> None:
    # Wilson 1927; 81 of 263: 0.2553 .. 0.3662 (Newcombe 1998, table I).
    low, high = wilson_interval(81, 263) or (math.nan, math.nan)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson_interval(0, 0) is None
    low, high = wilson_interval(0, 20) or (math.nan, math.nan)
    assert low == 0 and round(high, 4) == 0.1611


def test_a_frame_is_scored_in_milliseconds() -> None:
    rng = np.random.default_rng(2)
    p = (rng.random((256, 256)) * 0.4).astype(np.float32)
    truth = np.zeros((256, 256), bool)
    for row in range(20, 240, 40):
        p[row : row + 4, row : row + 5] = 0.9
        truth[row : row + 4, row + 1 : row + 5] = True
    metrics, took = PixelMetrics(), []
    for _ in range(15):
        start = perf_counter()
        metrics.update(p, truth)
        took.append(perf_counter() - start)
    assert metrics.result().pd == 1
    assert min(took) < 0.010
