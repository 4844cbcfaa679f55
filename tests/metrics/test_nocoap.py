"""mNoCoAP and LocAP: worked examples, the published algorithm written out, and a default that favours no side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.datasets import BoxTruth, open_dataset
from irforge.detections import Detections
from irforge.metrics import LocMetrics, NocoMetrics, points_from_map
from irforge.metrics.nocoap import bilinear, centerness
from irforge.noco import noco_map

BOX = [6, 8, 9, 11]
NONE = np.empty((0, 4), np.float32)
Point = tuple[float, float, float]


def image_a() -> np.ndarray:
    image = np.full((20, 20), 10, np.uint8)
    image[8:11, 6:9] = [[50, 60, 50], [60, 100, 60], [50, 60, 50]]
    return image


def points(*rows: Point) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 3)
    corners = np.concatenate([table[:, :2] - 1.5, table[:, :2] + 1.5], axis=1)
    return Detections(corners, table[:, 2], np.zeros(len(table)), table[:, :2])


def truth(*boxes: Any) -> BoxTruth:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return BoxTruth(array, np.zeros(len(array), np.int64))


def noco_ap(*frames: tuple[list[Point], bool], variant: Any = "legacy") -> Any:
    metrics = NocoMetrics(variant)
    for rows, has_target in frames:
        metrics.update(points(*rows), truth(BOX) if has_target else truth(), image_a())
    return metrics.result()


def test_the_exact_centre_of_a_box_loses_by_the_published_rounding() -> None:
    # 7.5 and 9.5 become pixel (8, 10), where NoCo is .3858.
    assert noco_ap(([(7.5, 9.5, 0.9)], True)).at == (1, 1, 1, 0, 0, 0, 0, 0, 0)
    assert noco_ap(([(7.5, 9.5, 0.9)], True)).mean == pytest.approx(1 / 3)


@pytest.mark.parametrize("variant", ["unbiased", "shifted", "peak"])
def test_the_exact_centre_of_a_box_wins_everywhere_else(variant: str) -> None:
    assert noco_ap(([(7.5, 9.5, 0.9)], True), variant=variant).mean == 1


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([([(7, 9, 0.9)], True)], 1),
        ([([(7, 9, 0.9), (7.2, 9.1, 0.8)], True)], 1),  # the second point on a box is wrong, but ranks lower
        ([([(7, 9, 0.9)], True), ([(3, 3, 0.95)], False)], 0.5),
        ([([(7, 9, 0.9)], True), ([(3, 3, 0.5)], False)], 1),
        ([([(9, 11, 0.9)], True)], 0),  # on the corner of the box, where NoCo is 0
        ([([(9.01, 9, 0.9)], True)], 0),
        ([([(7, 9, 0.9), (2, 2, 0.8)], True), ([(7, 9, 0.7)], True)], 0.5 + 0.5 * 2 / 3),
        ([([], True)], 0),
    ],
)
def test_worked_examples(frames: list[tuple[list[Point], bool]], expected: float) -> None:
    result = noco_ap(*frames)
    assert result.at[4] == pytest.approx(expected)
    assert result.mean == pytest.approx(expected)


@pytest.mark.parametrize(("edge", "pixel"), [(7.5, 8), (8.5, 8), (9.5, 10), (10.5, 10), (20, 19), (-1, 0)])
def test_legacy_rounds_half_to_even_and_stays_in_the_frame(edge: float, pixel: int) -> None:
    # A target of one pixel in a box of the whole frame is hit from edge coordinates that round to its pixel.
    for bright in (pixel, pixel - 1, pixel + 1):
        if not 0 <= bright < 20:
            continue
        image = np.full((20, 20), 10, np.uint8)
        image[9, bright] = 200
        metrics = NocoMetrics("legacy")
        metrics.update(points((edge, 9, 0.9)), truth([min(edge, 0), 0, 20, 20]), image)
        assert metrics.result().at[0] == (1 if bright == pixel else 0)


def test_equal_scores_keep_the_order_of_the_frames() -> None:
    assert noco_ap(([(7, 9, 1)], True), ([(3, 3, 1)], False)).mean == 1
    assert noco_ap(([(3, 3, 1)], False), ([(7, 9, 1)], True)).mean == 0.5


def test_without_targets_there_is_no_figure() -> None:
    result = noco_ap(([(3, 3, 0.9)], False))
    assert (result.mean, set(result.at), result.frames, result.targets) == (None, {None}, 1, 0)
    assert NocoMetrics().result().mean is None and LocMetrics().result().mean is None


def random_scenes(count: int, seed: int = 0) -> list[tuple[np.ndarray, BoxTruth, Detections]]:
    """Targets that may overlap, as brightest pixels off the middle, and points that miss by some pixels."""
    random = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        image = random.integers(0, 60, (48, 56)).astype(np.uint8)
        n = int(random.integers(0, 5))
        x, y = random.integers(0, 44, n), random.integers(0, 38, n)
        boxes = np.stack([x, y, x + random.integers(1, 12, n), y + random.integers(1, 10, n)], axis=1)
        for x0, y0, x1, y1 in boxes:
            image[y0:y1, x0:x1] = random.integers(80, 250, (y1 - y0, x1 - x0))
        near = np.repeat((boxes[:, :2] + boxes[:, 2:]) / 2, 3, axis=0) + random.normal(0, 1, (3 * n, 2)).round(1)
        rows = np.concatenate([near, random.uniform(-1, 57, (3, 2)).round(1)])
        rows = np.column_stack([rows, random.integers(1, 20, len(rows)) / 20])
        scenes.append((image, truth(*boxes), points(*map(tuple, rows))))
    return scenes


def published(scenes: list[tuple[np.ndarray, BoxTruth, Detections]], threshold: float) -> float:
    """The algorithm of the published evaluation, point by point."""
    pool: list[tuple[float, bool]] = []
    for image, true, found in scenes:
        noco, taken = noco_map(image, true.boxes), set()
        height, width = noco.shape
        assert found.centres is not None
        for (x, y), score in zip(found.centres.tolist(), found.scores.tolist(), strict=True):
            row, column = min(max(round(y), 0), height - 1), min(max(round(x), 0), width - 1)
            right = False
            if noco[row, column] > threshold:
                inside = [i for i, b in enumerate(true.boxes) if b[0] <= x <= b[2] and b[1] <= y <= b[3]]
                right = bool(inside) and inside[0] not in taken
                taken.update(inside[:1])
            pool.append((score, right))
    pool.sort(key=lambda entry: -entry[0])
    targets = sum(len(true) for _, true, _ in scenes)
    tp = np.cumsum([right for _, right in pool])
    recall = np.concatenate([[0], tp / targets, [1]])
    precision = np.concatenate([[0], tp / np.arange(1, len(tp) + 1), [0]])
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * precision[steps + 1]).sum())


def test_legacy_is_the_published_algorithm() -> None:
    scenes = random_scenes(60)
    metrics, part = NocoMetrics("legacy"), NocoMetrics("legacy")
    for number, (image, true, found) in enumerate(scenes):
        (metrics if number < 20 else part).update(found, true, image)
    metrics.merge(part)
    result = metrics.result()
    expected = [published(scenes, threshold) for threshold in result.thresholds]
    assert result.at == pytest.approx(expected, abs=1e-12)
    assert 0.02 < expected[-1] < expected[0] < 0.95
    assert result.mean == pytest.approx(np.mean(expected))


def mirrored(image: np.ndarray, true: BoxTruth, found: Detections) -> tuple[np.ndarray, BoxTruth, Detections]:
    width = image.shape[1]

    def flip(boxes: np.ndarray) -> np.ndarray:
        return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)

    assert found.centres is not None
    centres = np.stack([width - found.centres[:, 0], found.centres[:, 1]], axis=1)
    flipped = Detections(flip(found.boxes), found.scores, found.classes, centres)
    return image[:, ::-1].copy(), BoxTruth(flip(true.boxes), true.classes), flipped


def test_only_the_default_is_blind_to_mirroring() -> None:
    def means(variant: Any) -> list[float]:
        both = [NocoMetrics(variant), NocoMetrics(variant)]
        for scene in random_scenes(60):
            for metrics, (image, true, found) in zip(both, (scene, mirrored(*scene)), strict=True):
                metrics.update(found, true, image)
        return [metrics.result().mean or 0 for metrics in both]

    before, after = means("unbiased")
    assert before == pytest.approx(after, abs=1e-12) and before > 0.1
    before, after = means("legacy")
    assert abs(before - after) > 0.01


def test_the_map_is_read_between_pixel_centres() -> None:
    plane = np.array([[0.0, 4, 8], [2, 6, 10]])
    at = np.array([[1.5, 0.5], [1, 0.5], [1.5, 1], [2.25, 1.25], [0, 0], [3, 2], [-5, 9]])
    assert bilinear(plane, at).tolist() == [4, 2, 5, 8.5, 0, 10, 2]


def test_the_peak_of_a_box_stands_for_it() -> None:
    image = image_a()
    image[9, 7], image[10, 8] = 60, 200
    box = Detections(np.array([BOX]), np.array([0.9]), np.zeros(1))
    at = {}
    for variant in ("peak", "unbiased"):
        metrics = NocoMetrics(variant)  # type: ignore[arg-type]
        metrics.update(box, truth(BOX), image)
        at[variant] = metrics.result().mean
    assert at["peak"] == 1 and at["unbiased"] < 0.6


def test_unknown_or_different_variants_are_refused() -> None:
    with pytest.raises(ValueError, match="no variant 'best'"):
        NocoMetrics("best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="different settings"):
        NocoMetrics().merge(NocoMetrics("legacy"))
    with pytest.raises(ValueError, match="different settings"):
        LocMetrics().merge(LocMetrics(("a", "b")))


@pytest.mark.parametrize(
    ("point", "expected"),
    [((7.5, 9.5), 1), ((7, 9.5), 0.7071), ((7, 9), 0.5), ((6.5, 8.5), 0.2), ((8.9, 9.5), 0.1857), ((6, 9.5), 0)],
)
def test_centerness_of_worked_examples(point: tuple[float, float], expected: float) -> None:
    assert centerness(np.array([point]), np.array([BOX]))[0, 0] == pytest.approx(expected, abs=5e-5)


def test_loc_ap_of_the_worked_example() -> None:
    metrics = LocMetrics()
    metrics.update(points((7, 9, 0.9)), truth(BOX))
    result = metrics.result()
    assert result.at == (1, 1, 1, 0, 0) and result.mean == pytest.approx(0.6)
    assert json.loads(json.dumps(result.as_dict()))["at"] == [1, 1, 1, 0, 0]


def test_loc_ap_has_no_second_choice_and_averages_classes_with_targets() -> None:
    metrics = LocMetrics(("a", "b", "c"))
    # Both points sit best in the first box; the second box, which holds them too, stays unfound.
    found = Detections(np.zeros((3, 4)), np.array([0.9, 0.8, 0.7]), np.array([0, 0, 2]), np.full((3, 2), 5.0))
    both = BoxTruth(np.array([[0, 0, 10, 10], [0, 0, 12, 12]], np.float32), np.zeros(2, np.int64))
    metrics.update(found, both)
    assert metrics.result().at == (0.5,) * 5
    other = LocMetrics(("a", "b", "c"))
    other.update(found, BoxTruth(both.boxes, np.array([1, 1])))
    metrics.merge(other)
    result = metrics.result()
    # Class b is never found, c has no target.
    assert result.at == (0.25,) * 5 and (result.targets, result.frames) == (4, 2)


def test_points_from_a_map_by_the_published_rule_take_the_peak_of_the_bounding_box() -> None:
    plane = np.zeros((12, 12), np.float32)
    plane[2:8, 2] = plane[7, 2:8] = 0.6
    plane[4, 2] = 0.7
    plane[3, 6] = 0.8  # its own component, inside the bounding box of the other
    plane[10, 10] = 0.5
    found = points_from_map(plane, rule="first")
    assert found.boxes.tolist() == [[2, 2, 8, 8], [6, 3, 7, 4]]
    assert found.centres is not None and found.centres.tolist() == [[6.5, 3.5], [6.5, 3.5]]
    assert found.scores == pytest.approx([0.8, 0.8])
    own = points_from_map(plane)
    assert own.centres is not None and own.centres.tolist() == [[6.5, 3.5], [2.5, 4.5]]
    assert own.scores == pytest.approx([0.8, 0.7])
    assert len(points_from_map(plane, 0.65)) == 2 and not len(points_from_map(plane, 0.8))


def test_the_point_of_a_saturated_target_is_its_middle() -> None:
    plane = np.zeros((12, 12), np.float32)
    plane[2:7, 3:8] = 0.9
    plane[3:6, 4:8] = 1.0
    middle, first = points_from_map(plane), points_from_map(plane, rule="first")
    assert middle.centres is not None and middle.centres.tolist() == [[6, 4.5]]
    assert first.centres is not None and first.centres.tolist() == [[4.5, 3.5]]
    flipped = points_from_map(plane[::-1, ::-1])
    assert flipped.centres is not None and flipped.centres.tolist() == [[12 - 6, 12 - 4.5]]


def test_map_points_are_pixels_to_the_shifted_variant() -> None:
    plane = np.zeros((20, 20), np.float32)
    plane[9, 7] = 0.9
    for variant, mean in (("shifted", 1), ("unbiased", 1), ("legacy", 1 / 3)):
        metrics = NocoMetrics(variant)  # type: ignore[arg-type]
        metrics.update(points_from_map(plane, rule="first"), truth(BOX), image_a())
        assert metrics.result().mean == pytest.approx(mean)


@pytest.mark.skipif("IRFORGE_DATA" not in os.environ, reason="IRFORGE_DATA is not set")
def test_what_a_perfect_detector_scores_on_sirst_v2() -> None:
    """True boxes as detections of equal score: the ceilings of the variants.

    Measured on the 202 frames of the test list that this data has, with 115 targets. On all 256 frames with 150 targets
    legacy gives .7312, shifted .8605, and the highest pixels of the true map .9899.
    """
    if not (Path(os.environ["IRFORGE_DATA"]) / "sirst_v2").is_dir():
        pytest.skip("SIRST-V2 is not under IRFORGE_DATA")
    dataset = open_dataset("sirst_v2:test_full")
    variants: tuple[Any, ...] = ("legacy", "shifted", "unbiased", "peak")
    ceilings, highest = {variant: NocoMetrics(variant) for variant in variants}, NocoMetrics("shifted")
    for sample in dataset:
        true = sample.boxes()
        if true is None or not len(true):
            continue  # without detections a frame without targets changes nothing
        image = cv2.imread(str(sample.frame_path), cv2.IMREAD_GRAYSCALE)
        perfect = Detections(true.boxes, np.ones(len(true)), true.classes)
        for metrics in ceilings.values():
            metrics.update(perfect, true, image)
        noco = noco_map(image, true.boxes)
        highest.update(Detections(true.boxes, perfect.scores, true.classes, _highest(noco, true)), true, image)
    means = {variant: metrics.result().mean or 0 for variant, metrics in ceilings.items()}
    best = highest.result()
    assert means["legacy"] < min(means["unbiased"], means["shifted"]) < means["peak"] <= (best.mean or 0)
    if (len(dataset), best.targets) == (256, 150):
        assert (means["legacy"], means["shifted"], best.mean) == pytest.approx((0.7312, 0.8605, 0.9899), abs=5e-5)
    if (len(dataset), best.targets) == (202, 115):
        expected = {"legacy": 0.7340, "shifted": 0.8651, "unbiased": 0.8600, "peak": 0.9686}
        assert means == pytest.approx(expected, abs=5e-5)


def _highest(noco: np.ndarray, true: BoxTruth) -> np.ndarray:
    centres = []
    for x0, y0, x1, y1 in true.boxes.astype(int):
        row, column = np.unravel_index(noco[y0:y1, x0:x1].argmax(), (y1 - y0, x1 - x0))
        centres.append((x0 + column + 0.5, y0 + row + 0.5))
    return np.array(centres)
