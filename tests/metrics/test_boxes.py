"""What the box metrics promise: COCO's precision, one-to-one matching, rates at one threshold, the best threshold."""

from __future__ import annotations

import json
import pickle
import sys
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from irforge.datasets import BoxTruth
from irforge.detections import Detections
from irforge.errors import ArtifactError, EnvironmentFault
from irforge.metrics import SIZE_BUCKETS, BoxMetrics, best_threshold, match_boxes
from irforge.metrics.matching import box_iou

SIZE = (64, 80)
A, B, FAR = [10, 12, 13, 14], [30, 20, 34, 24], [60, 50, 63, 52]


def truth(*boxes: list[float], classes: Any = None) -> BoxTruth:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return BoxTruth(array, np.zeros(len(array), np.int64) if classes is None else np.array(classes, np.int64))


def found(*rows: tuple[list[float], float], classes: Any = None) -> Detections:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in rows], np.float32)
    return Detections(boxes, scores, np.zeros(len(rows)) if classes is None else classes)


def metrics_of(*frames: tuple[Detections, BoxTruth], threshold: float = 0.0, **settings: Any) -> BoxMetrics:
    metrics = BoxMetrics(settings.pop("classes", ("target",)), threshold, **settings)
    for detections, true in frames:
        metrics.update(detections, true, SIZE)
    return metrics


def random_frames(count: int, classes: int = 1, seed: int = 0) -> list[tuple[Detections, BoxTruth]]:
    """Crowded frames with scores of two digits, so that boxes compete and scores are often equal."""
    random = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        n = int(random.integers(0, 5))
        corner, side = random.uniform(0, 25, (n, 2)), random.uniform(3, 14, (n, 2))
        true = np.concatenate([corner, corner + side], axis=1)
        near = np.repeat(true, 3, axis=0) + random.normal(0, 0.8, (3 * n, 4))
        corner = random.uniform(0, 25, (4, 2))
        boxes = np.concatenate([near, np.concatenate([corner, corner + random.uniform(2, 9, (4, 2))], axis=1)])
        scores = random.integers(1, 100, len(boxes)) / 100
        kinds = np.concatenate([np.repeat(random.integers(0, classes, n), 3), random.integers(0, classes, 4)])
        own = kinds[: 3 * n : 3]
        frames.append((Detections(boxes, scores, kinds), BoxTruth(true.astype(np.float32), own.astype(np.int64))))
    return frames


# A 3x2 target moved by d in both axes; one of its edges moved by d; a 24x14 target moved by d.
@pytest.mark.parametrize(
    ("box", "moved", "iou"),
    [
        (A, (0.1, 0.1, 0.1, 0.1), 0.849),
        (A, (0.2, 0.2, 0.2, 0.2), 0.724),
        (A, (0.5, 0.5, 0.5, 0.5), 0.455),
        (A, (1, 1, 1, 1), 0.2),
        (A, (0, 0, 0.2, 0), 0.9375),
        (A, (0, 0, 0.5, 0), 0.857),
        ([5, 5, 29, 19], (0.1, 0.1, 0.1, 0.1), 0.978),
        ([5, 5, 29, 19], (0.2, 0.2, 0.2, 0.2), 0.956),
        ([5, 5, 29, 19], (0.5, 0.5, 0.5, 0.5), 0.894),
        ([5, 5, 29, 19], (1, 1, 1, 1), 0.802),
    ],
)
def test_iou_of_worked_examples(box: list[float], moved: tuple[float, ...], iou: float) -> None:
    assert box_iou(np.array([box]) + np.array(moved), np.array([box]))[0, 0] == pytest.approx(iou, abs=5e-4)


def test_boxes_without_area_overlap_nothing() -> None:
    boxes = np.array([A, [13, 12, 10, 14], [10, 12, 10, 14], [13, 14, 10, 12]], float)
    assert box_iou(boxes, np.array([A], float)).tolist() == [[1], [0], [0], [0]]


def test_average_precision_of_the_worked_example() -> None:
    # Right, wrong, right: precision 1 up to recall 1/2, then 2/3.
    result = metrics_of((found((A, 0.9), (FAR, 0.8), (B, 0.7)), truth(A, B))).result()
    expected = (51 * 1 + 50 * 2 / 3) / 101
    assert expected == pytest.approx(0.8350, abs=5e-5)
    assert [result.ap, result.ap50, result.ap75] == [pytest.approx(expected)] * 3
    assert result.iou50.as_dict() == pytest.approx(
        {"tp": 2, "fp": 1, "fn": 0, "precision": 2 / 3, "recall": 1, "f1": 0.8}
    )


def test_ap50_and_ap75_look_at_their_own_iou() -> None:
    result = metrics_of((found(([10, 12, 13.2, 14.9], 0.9)), truth(A))).result()
    assert box_iou(np.array([[10, 12, 13.2, 14.9]]), np.array([A]))[0, 0] == pytest.approx(6 / 9.28)
    assert (result.ap50, result.ap75) == (pytest.approx(1), 0)
    assert result.ap == pytest.approx(0.3)  # IoU 0.50, 0.55 and 0.60 of ten


def brute_force_ap(frames: list[tuple[Detections, BoxTruth]], iou: float, classes: int) -> float:
    values = []
    for number in range(classes):
        scores, hits, targets = [], [], 0
        for detections, true in frames:
            own = detections.take(detections.classes == number)
            match = match_boxes(
                own, BoxTruth(true.boxes[true.classes == number], true.classes[true.classes == number]), iou=iou
            )
            right = {j for _, j in match.pairs}
            scores += own.scores.tolist()
            hits += [j in right for j in range(len(own))]
            targets += len(match.true)
        order = np.argsort(-np.array(scores), kind="stable")
        tp = np.cumsum(np.array(hits)[order])
        precision, recall = tp / np.arange(1, len(tp) + 1), tp / targets
        samples = [max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]
        values.append(np.mean(samples))
    return float(np.mean(values))


@pytest.mark.parametrize("classes", [1, 3])
def test_coco_agrees_with_the_definition_on_crowded_frames(classes: int) -> None:
    frames = random_frames(40, classes)
    result = metrics_of(*frames, classes=tuple("abc"[:classes])).result()
    ious = np.linspace(0.5, 0.95, 10)
    by_iou = [brute_force_ap(frames, iou, classes) for iou in ious]
    assert result.ap50 == pytest.approx(by_iou[0], abs=1e-9) and 0.1 < by_iou[0] < 0.9
    assert result.ap75 == pytest.approx(by_iou[5], abs=1e-9)
    assert result.ap == pytest.approx(np.mean(by_iou), abs=1e-9)


def test_size_buckets_judge_only_their_own_targets() -> None:
    small, large = [10, 10, 15, 15], [30, 30, 41, 41]  # 25 and 121 px2
    stray = [60, 2, 66, 7]  # 30 px2: wrong in the middle bucket, which has no target, and nowhere else
    result = metrics_of((found((stray, 0.9), (small, 0.8)), truth(small, large))).result()
    assert [bucket.name for bucket in SIZE_BUCKETS] == ["up to 25 px2", "26 to 100 px2", "over 100 px2"]
    assert list(result.ap_by_size.values()) == [pytest.approx(1), None, 0]
    assert list(result.targets_by_size.values()) == [1, 0, 1]
    # Half the recalls, at precision 1/2.
    assert result.ap == pytest.approx(51 / 2 / 101)


@pytest.mark.parametrize(("side", "bucket"), [(5, 0), (5.001, 1), (10, 1), (10.001, 2)])
def test_a_size_bucket_includes_its_upper_end(side: float, bucket: int) -> None:
    box = [10, 10, 10 + side, 10 + side]
    result = metrics_of((found((box, 0.9)), truth(box))).result()
    expected: list[float | None] = [None] * 3
    expected[bucket] = pytest.approx(1)
    assert list(result.ap_by_size.values()) == expected
    assert list(result.targets_by_size.values()) == [int(i == bucket) for i in range(3)]


def test_average_precision_counts_a_hundred_detections_of_a_frame() -> None:
    strays = [([20 + i / 10, 40, 23 + i / 10, 42], 0.9) for i in range(100)]
    crowded = metrics_of((found(*strays, (A, 0.1)), truth(A))).result()
    assert crowded.ap == 0 and crowded.iou50.tp == 1
    assert metrics_of((found(*strays[1:], (A, 0.1)), truth(A))).result().ap50 == pytest.approx(0.01)


def test_the_best_score_chooses_first_and_takes_the_best_box_left() -> None:
    left, right = [10, 10, 16, 14], [12, 10, 18, 14]
    match = match_boxes(found(([12, 10, 18, 14], 0.5), ([11.5, 10, 17.5, 14], 0.9)), truth(left, right), iou=0.3)
    # The better score sits nearer to the right box; the exact one must be content with the left.
    assert match.pairs == ((0, 1), (1, 0))
    assert match_boxes(found((left, 0.9), (left, 0.8)), truth(left), iou=0.5).extra == [1]


def test_boxes_match_within_their_class_only() -> None:
    match = match_boxes(found((A, 0.9), (B, 0.8), classes=[1, 0]), truth(A, B, classes=[0, 0]), iou=0.5)
    assert (match.pairs, match.lost, match.extra) == (((1, 1),), [0], [0])
    assert (match.matched_areas, match.lost_areas, match.extra_areas) == ([16], [6], [6])


def test_three_pixels_apart_is_too_far_by_centre() -> None:
    moved = [A[0] + 3, A[1], A[2] + 3, A[3]]
    assert not match_boxes(found((moved, 0.9)), truth(A), distance=3).pairs
    moved[0] -= 0.01
    assert match_boxes(found((moved, 0.9)), truth(A), distance=3).pairs == ((0, 0),)


def test_matching_needs_one_rule() -> None:
    for rule in ({}, {"iou": 0.5, "distance": 3.0}):
        with pytest.raises(ValueError, match="either by iou or by distance"):
            match_boxes(found(), truth(), **rule)


def test_each_rule_has_its_own_rates() -> None:
    near = [11, 12, 14, 14]  # IoU 0.5 with A
    loose = [32, 20, 36, 24]  # IoU 1/3 with B, 2 px away
    off = [62.5, 50, 65.5, 52]  # IoU 0.09 with FAR, 2.5 px away
    frames = [(found((near, 0.9), (loose, 0.8), (off, 0.7), (A, 0.2)), truth(A, B, FAR)), (found((A, 0.6)), truth())]
    result = metrics_of(*frames, threshold=0.5).result()
    assert vars(result.iou50) == {"tp": 1, "fp": 3, "fn": 2}
    assert vars(result.iou30) == {"tp": 2, "fp": 2, "fn": 1}
    assert vars(result.centre) == {"tp": 3, "fp": 1, "fn": 0}
    assert (result.frames, result.target_free_frames, result.targets) == (2, 1, 3)
    assert result.pd == 1 and result.pd_interval == pytest.approx((0.4385, 1), abs=1e-4)
    assert result.false_boxes_per_frame == 0.5
    assert result.false_boxes_per_megapixel == pytest.approx(1e6 / (2 * 64 * 80))
    assert result.centre_error_median == pytest.approx(2)
    assert result.centre_error_p95 == pytest.approx(2.45)  # of 1, 2, 2.5


def test_a_score_at_the_threshold_does_not_count() -> None:
    metrics = metrics_of((found((A, 0.5)), truth(A)))
    assert metrics.at(0.5).result().iou50.tp == 0
    assert metrics.at(0.49).result().iou50.tp == 1
    assert metrics.threshold == 0


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.75])
def test_update_returns_the_match_above_the_threshold(threshold: float) -> None:
    metrics = BoxMetrics(("a", "b"), threshold)
    pairs = 0
    for detections, true in random_frames(20, 2):
        match = metrics.update(detections, true, SIZE)
        kept = detections.take(detections.scores > np.float32(threshold))
        assert match.pairs == match_boxes(kept, true, distance=3).pairs
        assert len(match.found) == len(kept)
        pairs += len(match.pairs)
    assert metrics.result().centre.tp == pairs > 0


def test_merged_parts_give_the_figures_of_the_whole() -> None:
    frames = random_frames(12)
    whole, first, second = metrics_of(*frames), metrics_of(*frames[:5]), metrics_of(*frames[5:])
    # Training gathers them from other processes as pickles.
    first.merge(pickle.loads(pickle.dumps(second)))  # noqa: S301
    assert first.result() == whole.result()
    with pytest.raises(ValueError, match="different settings"):
        first.merge(metrics_of(threshold=0.1))


def test_the_best_threshold_is_the_best_of_all() -> None:
    for seed in range(3):
        metrics = metrics_of(*random_frames(6, seed=seed))
        chosen = best_threshold(metrics)
        scores = sorted({float(s) for frame in metrics._frames for s in frame.found.scores})
        f1 = {t: metrics.at(t).result().iou50.f1 or 0.0 for t in [0.0, *scores]}
        best = metrics.at(chosen).result().iou50.f1
        assert best is not None and best == max(f1.values())
        assert all(value < best for t, value in f1.items() if t > chosen)


def test_the_best_threshold_lies_midway_and_is_the_highest_of_equals() -> None:
    wanted = metrics_of((found((A, 0.75), (FAR, 0.25)), truth(A)))
    assert best_threshold(wanted) == 0.5
    # F1 is 2/3 with one right of one, and again with two right of four.
    equal = metrics_of((found((A, 0.875), (FAR, 0.75), ([40, 40, 43, 42], 0.5), (B, 0.25)), truth(A, B)))
    assert [equal.at(t).result().iou50.f1 for t in (0.8, 0.1)] == [pytest.approx(2 / 3)] * 2
    assert best_threshold(equal) == 0.8125


def test_equal_scores_cannot_be_told_apart() -> None:
    metrics = metrics_of((found((A, 0.5), (FAR, 0.5), (B, 0.25)), truth(A, B)))
    assert best_threshold(metrics) == 0.125


def test_the_best_threshold_separates_neighbouring_floats() -> None:
    upper = np.float32(0.7)
    for _ in range(4):  # the midpoint rounds up for one of two neighbours, down for the other
        lower = np.nextafter(upper, np.float32(0))
        metrics = metrics_of((found((A, float(upper)), (FAR, float(lower))), truth(A)))
        assert vars(metrics.at(best_threshold(metrics)).result().iou50) == {"tp": 1, "fp": 0, "fn": 0}
        upper = lower


def test_figures_without_a_denominator_are_none() -> None:
    for nothing in (metrics_of(), metrics_of((found((A, 0.5)), truth())).at(0.9)):
        result = nothing.result()
        assert (
            result.ap is None and result.ap_by_class == {"target": None} and set(result.ap_by_size.values()) == {None}
        )
        assert result.pd is None and result.pd_interval is None and result.centre_error_median is None
        assert result.iou50.precision is None and result.iou50.f1 is None
    assert metrics_of((found(), truth(A))).result().ap == 0
    assert best_threshold(metrics_of((found(), truth(A)))) == 0.5


def test_a_class_without_targets_does_not_pull_the_mean_down() -> None:
    frame = found((A, 0.9), (FAR, 0.8), classes=[0, 1]), truth(A)
    result = metrics_of(frame, classes=("drone", "bird")).result()
    assert result.ap_by_class == {"drone": pytest.approx(1), "bird": None}
    assert result.ap == pytest.approx(1)


def test_results_are_json() -> None:
    plain = metrics_of(*random_frames(8), threshold=0.4).result().as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["iou30"]["f1"] > 0 and plain["alarms"]["pd"] == 0.9


def test_classes_without_a_name_are_refused() -> None:
    for frame in ((found((A, 0.9), classes=[1]), truth()), (found(), truth(A, classes=[-1]))):
        with pytest.raises(ValueError, match="1 have names"):
            metrics_of(frame)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(fault: float) -> None:
    for frame in (found((A, fault)), found(([10, 12, fault, 14], 0.5))):
        with pytest.raises(ArtifactError, match="finite"):
            metrics_of((frame, truth(A)))


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    metrics = metrics_of((found((A, 0.9)), truth(A)))
    assert best_threshold(metrics) == np.float32(0.45)
    with pytest.raises(EnvironmentFault, match=r"pip install 'irforge\[measure\]'"):
        metrics.result()


def test_a_hundred_detections_take_no_millisecond() -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 500, (100, 2))
    detections = Detections(np.concatenate([corner, corner + 6], axis=1), random.random(100), np.zeros(100))
    true = BoxTruth(detections.boxes[::33] + np.float32(0.5), np.zeros(4, np.int64))
    metrics, took = BoxMetrics(("target",), 0.5), []
    for _ in range(30):
        start = perf_counter()
        metrics.update(detections, true, (512, 640))
        took.append(perf_counter() - start)
    assert min(took) < 0.001
