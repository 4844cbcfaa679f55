"""Promises of the few-shot metrics: groups of classes, VOC's AP, strict frames, intervals over seeds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irforge.datasets import BoxTruth, Dataset, Sample
from irforge.detections import Detections
from irforge.errors import UsageError
from irforge.metrics.fewshot import (
    FewShotResult,
    GroupAP,
    average_precision,
    evaluation_frames,
    few_shot_ap,
    mean_interval,
    over_seeds,
    paired_gain,
    student_t,
    voc_ap,
)
from irforge.metrics.matching import box_iou

Frames = tuple[list[Detections], list[BoxTruth]]
CLASSES = ("airplane", "bird", "helicopter", "drone", "kite")


def scene(classes: int, frames: int = 30, seed: int = 0) -> Frames:
    """Crowded frames of several classes: near misses, wrong classes, equal scores, frames without a target."""
    random = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(frames):
        n = int(random.integers(0, 5))
        corner, side = random.uniform(0, 25, (n, 2)), random.uniform(5, 14, (n, 2))
        true = np.concatenate([corner, corner + side], axis=1)
        kinds = random.integers(0, classes, n)
        near = np.repeat(true, 3, axis=0) + random.normal(0, 0.9, (3 * n, 4))
        said = np.where(random.random(3 * n) < 0.15, random.integers(0, classes, 3 * n), np.repeat(kinds, 3))
        found.append(Detections(near, random.integers(1, 60, 3 * n) / 60, said))
        truth.append(BoxTruth(true.astype(np.float32), kinds.astype(np.int64)))
    return found, truth


def coco_by_hand(found: list[Detections], truth: list[BoxTruth], number: int, iou: float) -> float:
    """One class at one IoU as pycocotools reckons it, written down anew: greedy by score within a frame, the best
    unclaimed box of at least that IoU, precision made monotone and read at 101 recalls."""
    rows: list[tuple[float, bool]] = []
    targets = 0
    for one, true in zip(found, truth, strict=True):
        boxes = true.boxes[true.classes == number]
        targets += len(boxes)
        own = one.classes == number
        free = np.ones(len(boxes), bool)
        for box, score in zip(one.boxes[own], one.scores[own], strict=True):
            overlap = np.where(free, box_iou(box[None], boxes)[0], -1.0)
            best = int(overlap.argmax()) if len(boxes) else -1
            hit = best >= 0 and overlap[best] >= iou
            if hit:
                free[best] = False
            rows.append((float(score), bool(hit)))
    rows.sort(key=lambda row: -row[0])
    hits = np.cumsum([hit for _, hit in rows])
    precision = np.maximum.accumulate((hits / np.arange(1, len(rows) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / targets, np.linspace(0, 1, 101), side="left")
    return float(np.mean([precision[i] if i < len(precision) else 0.0 for i in at]))


def test_groups_agree_with_an_independent_reckoning_class_by_class() -> None:
    found, truth = scene(4)
    result = few_shot_ap(found, truth, CLASSES[:4], ["drone"])
    by_hand = [[coco_by_hand(found, truth, number, iou) for iou in np.linspace(0.5, 0.95, 10)] for number in range(4)]
    for name, values in zip(CLASSES, by_hand, strict=False):
        own = result.by_class[name]
        assert own.ap == pytest.approx(np.mean(values), abs=1e-9)
        assert (own.ap50, own.ap75) == (pytest.approx(values[0], abs=1e-9), pytest.approx(values[5], abs=1e-9))
    base = np.array(by_hand[:3])
    assert result.base.ap == pytest.approx(base.mean()) and result.base.ap75 == pytest.approx(base[:, 5].mean())
    assert result.novel == result.by_class["drone"]
    assert result.all.ap50 == pytest.approx(np.mean(by_hand, axis=0)[0])
    assert 0.1 < result.novel.ap50 < 1 and result.novel.ap != pytest.approx(result.base.ap, abs=1e-3)


def test_a_group_is_what_coco_gives_for_these_categories_alone() -> None:
    found, truth = scene(4, seed=2)
    whole = few_shot_ap(found, truth, CLASSES[:4], CLASSES[2:4])
    kept = [one.classes >= 2 for one in found], [one.classes >= 2 for one in truth]
    part_found = [Detections(f.boxes[k], f.scores[k], f.classes[k] - 2) for f, k in zip(found, kept[0], strict=True)]
    part_truth = [BoxTruth(t.boxes[k], t.classes[k] - 2) for t, k in zip(truth, kept[1], strict=True)]
    assert few_shot_ap(part_found, part_truth, CLASSES[2:4], CLASSES[2:4]).all == whole.novel


def test_figures_go_by_the_names_of_the_field() -> None:
    found, truth = scene(5)
    truth = [BoxTruth(t.boxes[t.classes < 4], t.classes[t.classes < 4]) for t in truth]
    result = few_shot_ap(found, truth, CLASSES, ["drone", "kite"])
    assert set(result.named()) == {f"{m}AP{end}" for m in ("", "b", "n") for end in ("", "50", "75")}
    assert result.by_class["kite"].ap is None and result.novel == result.by_class["drone"]
    assert json.loads(json.dumps(result.as_dict()))["novel"]["ap50"] == result.named()["nAP50"]
    only_base = few_shot_ap(found, truth, CLASSES, [])
    assert only_base.novel == GroupAP(None, None, None) and "nAP" not in only_base.named()
    with pytest.raises(UsageError, match="novel class 'uav' is not a class here"):
        few_shot_ap(found, truth, CLASSES, ["uav"])


# ---------------------------------------------------------------- VOC


def test_ap_of_the_worked_curve() -> None:
    recall, precision = (0.1, 0.2, 0.3), (1, 1, 0.75)
    assert average_precision(recall, precision, "11-point") == pytest.approx(0.272727, abs=1e-6)
    assert average_precision(recall, precision, "area") == pytest.approx(0.275)
    assert average_precision([], [], "area") == average_precision([], [], "11-point") == 0


def boxes(*rows: list[float]) -> np.ndarray[Any, Any]:
    return np.array(rows, np.float32).reshape(-1, 4)


def truth_of(*rows: list[float], difficult: list[bool] | None = None) -> BoxTruth:
    marks = None if difficult is None else np.array(difficult)
    return BoxTruth(boxes(*rows), np.zeros(len(rows), np.int64), marks)


def found_of(*rows: tuple[list[float], float]) -> Detections:
    return Detections(boxes(*(box for box, _ in rows)), [score for _, score in rows], np.zeros(len(rows)))


A, B = [0, 0, 10, 10], [20, 20, 30, 30]


def test_a_second_detection_of_a_voc_target_is_wrong() -> None:
    found = [found_of((A, 0.9), (A, 0.8), (B, 0.7))]
    result = voc_ap(found, [truth_of(A, B)], ["x"], "area")["x"]
    assert result.ap50 == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert voc_ap(found, [truth_of(A, B)], ["x"])["x"].ap50 == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_difficult_voc_targets_are_neither_missed_nor_found() -> None:
    found = [found_of((B, 0.9), (B, 0.8), (A, 0.7))]
    assert voc_ap(found, [truth_of(A, B, difficult=[False, True])], ["x"], "area")["x"].ap50 == 1
    assert voc_ap(found, [truth_of(A, B)], ["x"], "area")["x"].ap50 < 1
    assert voc_ap(found, [truth_of(A, difficult=[True])], ["x"])["x"] == GroupAP(None, None, None)


def test_an_overlap_of_exactly_a_half_is_not_enough_for_voc() -> None:
    half = [0, 0, 10, 5]
    assert voc_ap([found_of((half, 0.9))], [truth_of(A)], ["x"], "area")["x"].ap50 == 0
    more = [0, 0, 10, 5.01]
    assert voc_ap([found_of((more, 0.9))], [truth_of(A)], ["x"], "area")["x"].ap50 == 1


def test_a_voc_detection_does_not_turn_to_its_second_best_target() -> None:
    first, second = [0, 0, 10, 10], [0, 1, 10, 11]
    found = [found_of((first, 0.9), ([0, 0.2, 10, 10.2], 0.8))]
    result = voc_ap(found, [truth_of(first, second)], ["x"], "area")["x"]
    assert result.ap50 == pytest.approx(0.5)
    assert few_shot_ap(found, [truth_of(first, second)], ["x"], []).all.ap50 == pytest.approx(1)


def voc_by_hand(found: list[Detections], truth: list[BoxTruth], number: int, iou: float) -> float:
    """VOC's code, detection by detection over all frames, with its inclusive pixels and their added ones."""
    one = np.array([1.0, 1.0, 0.0, 0.0])
    kept = [f.take(f.classes == number) for f in found]
    rows = [(float(s), i, b + one) for i, f in enumerate(kept) for b, s in zip(f.boxes, f.scores, strict=True)]
    rows.sort(key=lambda row: -row[0])
    true = [t.boxes[t.classes == number] + one for t in truth]
    done = [np.zeros(len(t), bool) for t in true]
    hits = []
    for _, i, own in rows:
        best, at = 0.0, -1
        for j, other in enumerate(true[i]):
            width = min(own[2], other[2]) - max(own[0], other[0]) + 1
            height = min(own[3], other[3]) - max(own[1], other[1]) + 1
            shared = max(width, 0) * max(height, 0)
            union = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (own, other)) - shared
            if shared / union > best:
                best, at = shared / union, j
        hit = best > iou and not done[i][at]
        if best > iou:
            done[i][at] = True
        hits.append(hit)
    tp = np.cumsum(hits)
    return average_precision(tp / sum(map(len, true)), tp / np.arange(1, len(tp) + 1), "11-point")


def test_voc_agrees_with_its_own_code_on_crowded_frames() -> None:
    found, truth = scene(3, seed=5)
    result = voc_ap(found, truth, CLASSES[:3])
    for number, name in enumerate(CLASSES[:3]):
        values = [voc_by_hand(found, truth, number, iou) for iou in np.arange(0.5, 0.951, 0.05)]
        assert result[name].ap50 == pytest.approx(values[0], abs=1e-9) and 0.2 < values[0] < 1
        assert result[name].ap == pytest.approx(np.mean(values), abs=1e-9)


# ---------------------------------------------------------------- protocols and intervals


def frames(names: str) -> Dataset:
    return Dataset("sky", "test", Path(), "", tuple(Sample(name, Path(f"{name}.png")) for name in names))


def test_strict_leaves_out_every_frame_that_a_shot_was_drawn_from() -> None:
    every, supports = frames("abcdef"), [frames("a"), frames("bax")]
    assert evaluation_frames(every, supports, "paper") is every
    strict = evaluation_frames(every, supports, "strict")
    assert [sample.id for sample in strict] == list("cdef") and strict.split == "test-strict"
    with pytest.raises(UsageError, match="only frames that shots were drawn from"):
        evaluation_frames(frames("ab"), supports, "strict")


def test_frames_are_known_by_where_they_lie_not_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    every = replace(frames("a"), samples=(Sample("a", tmp_path / "a.png"), Sample("b", tmp_path / "b.png")))
    support = replace(every, samples=(Sample("other", tmp_path / "link" / "a.png"),))
    assert [sample.id for sample in evaluation_frames(every, [support], "strict")] == ["b"]


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706205), (2, 4.302653), (4, 2.776445), (9, 2.262157), (29, 2.045230)]
)
def test_students_t_is_that_of_the_tables(freedom: int, t: float) -> None:
    assert student_t(freedom) == pytest.approx(t, abs=1e-6)


def test_students_t_agrees_with_scipy() -> None:
    special = pytest.importorskip("scipy.special")
    for freedom in range(1, 120):
        for confidence in (0.9, 0.95, 0.99):
            expected = special.stdtrit(freedom, (1 + confidence) / 2)
            assert student_t(freedom, confidence) == pytest.approx(expected, rel=1e-9)


def test_a_mean_over_seeds_has_students_interval() -> None:
    values = [0.20, 0.26, 0.23, 0.31, 0.25]
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(0.25) and interval.seeds == 5
    assert interval.half == pytest.approx(2.776445 * math.sqrt(0.0066 / 4) / math.sqrt(5), rel=1e-6)
    assert str(interval) == "0.2500 ± 0.0504"
    assert interval.is_above(0.19) and not interval.is_above(0.21)
    one = mean_interval([0.4])
    assert one.half is None and str(one) == "0.4000" and not one.is_above(0.0)
    with pytest.raises(ValueError, match="needs values"):
        mean_interval([])


def test_a_gain_is_judged_seed_by_seed() -> None:
    theirs = [0.1, 0.3, 0.5, 0.2]
    gain = paired_gain([value + 0.02 for value in theirs], theirs)
    assert gain.mean == pytest.approx(0.02) and gain.is_above(0)
    assert not paired_gain([0.2, 0.2, 0.6, 0.1], theirs).is_above(0)
    with pytest.raises(ValueError, match="zip"):
        paired_gain([0.1], theirs)


def test_figures_over_seeds_are_those_that_all_seeds_have() -> None:
    some, nothing = GroupAP(0.2, 0.4, 0.1), GroupAP(None, None, None)
    results = [FewShotResult(5, some, some, novel, {}) for novel in (some, nothing)]
    seeds = over_seeds(results)
    assert seeds["bAP50"].mean == pytest.approx(0.4) and seeds["bAP50"].half == 0 and "nAP" not in seeds
    assert over_seeds(results[:1])["nAP75"].half is None and over_seeds([]) == {}
