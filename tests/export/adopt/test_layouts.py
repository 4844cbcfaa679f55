"""Every layout is told from its outputs alone, and its decode in the graph finds what a plain loop finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irforge.errors import UsageError
from irforge.export.adopt.decode import Limits
from irforge.export.adopt.deployable import Adopted, adopt_model
from irforge.export.adopt.door import Frames
from irforge.export.adopt.observation import Choices
from irforge.runtime.backends.ort import OrtSession

SIDE, CELLS = 64, 84
FRAMES = Frames(normalize="unit", fit="squash")
Found = list[tuple[float, int, tuple[float, ...]]]


def adopted(path: Path, limits: Limits | None = None, **choices: Any) -> Adopted:
    return adopt_model(path, FRAMES, Choices(**choices), limits)


def outputs(made: Adopted, folder: Path) -> dict[str, np.ndarray]:
    made.save(folder / "adopted.onnx")
    with OrtSession(folder / "adopted.onnx", threads=1) as session:
        return session.run({"frames": np.zeros((1, 1, SIDE, SIDE), np.uint8)})


def assert_finds(made: Adopted, folder: Path, expected: Found) -> None:
    """The graph gives exactly the expected (score, class, box), best first, and empty slots after them."""
    found = outputs(made, folder)
    boxes, scores, classes = (found[name][0] for name in ("boxes", "scores", "classes"))
    count = len(expected)
    assert boxes.dtype == scores.dtype == np.float32 and classes.dtype == np.int64
    np.testing.assert_allclose(scores[:count], [score for score, _, _ in expected], atol=1e-6)
    assert classes[:count].tolist() == [label for _, label, _ in expected]
    np.testing.assert_allclose(boxes[:count], [box for _, _, box in expected], atol=1e-3)
    assert not scores[count:].any() and not boxes[count:].any()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def centred(random: np.random.Generator, count: int) -> np.ndarray:
    """[count, 4]: centres over the whole input, sides of 4 to 24 pixels."""
    return np.concatenate([random.uniform(0, SIDE, (count, 2)), random.uniform(4, 24, (count, 2))], 1)


def corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = max(sides[0], 0) * max(sides[1], 0)
    return both / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both)


def best_first(scores: np.ndarray, classes: np.ndarray, boxes: np.ndarray) -> Found:
    order = np.argsort(-scores, kind="stable")
    return [(float(scores[i]), int(classes[i]), tuple(boxes[i])) for i in order]


def suppressed(found: Found, threshold: float) -> Found:
    """Greedy suppression within classes, one box after the other."""
    kept: Found = []
    for score, label, box in found:
        rivals = [np.array(other) for _, other_label, other in kept if other_label == label]
        if all(iou(np.array(box), rival) <= threshold for rival in rivals):
            kept.append((score, label, box))
    return kept


@pytest.mark.parametrize("rows_first", [False, True])
def test_yolo_is_suppressed_in_the_graph(stranger: Callable[..., Path], tmp_path: Path, rows_first: bool) -> None:
    random = np.random.default_rng(1)
    boxes, scores = centred(random, CELLS), random.uniform(0.01, 0.99, (CELLS, 3))
    table = np.concatenate([boxes, scores], 1)[None].astype(np.float32)
    made = adopted(
        stranger({"output0": table if rows_first else table.transpose(0, 2, 1)}),
        Limits(iou=0.3),
        classes=("a", "b", "c"),
    )
    assert made.reading.layout == "yolo"
    everything = best_first(scores.max(1), scores.argmax(1), corners(boxes))
    expected = suppressed(everything, 0.3)
    assert 20 < len(expected) < len(everything)
    assert_finds(made, tmp_path, expected)
    assert made.contract.output.nms is not None and made.contract.output.nms.iou_threshold == pytest.approx(0.3)


def test_yolo_with_objectness_is_told_by_its_three_anchors_a_cell(
    stranger: Callable[..., Path], tmp_path: Path
) -> None:
    random = np.random.default_rng(2)
    count = 3 * CELLS
    boxes, objectness, scores = centred(random, count), random.random((count, 1)), random.random((count, 2))
    made = adopted(stranger({"output": np.concatenate([boxes, objectness, scores], 1)[None].astype(np.float32)}))
    final = objectness * scores
    everything = best_first(final.max(1), final.argmax(1), corners(boxes))
    assert_finds(made, tmp_path, suppressed(everything, 0.7)[:100])
    assert made.contract.output.classes == ["class 0", "class 1"]


def test_objectness_that_nothing_proves_is_said_to_be_assumed(stranger: Callable[..., Path]) -> None:
    random = np.random.default_rng(13)
    table = np.concatenate([centred(random, CELLS), random.uniform(0.01, 0.99, (CELLS, 3))], 1)[None]
    path = stranger({"output0": table.astype(np.float32)})
    made = adopted(path)
    assert made.reading.class_count == 2
    (reason,) = (reason for reason in made.reading.reasons if "objectness" in reason)
    assert "assumed" in reason and "--classes" in reason
    assert not any("assumed" in reason for reason in adopted(path, classes=("a", "b")).reading.reasons)


def test_chains_of_overlapping_boxes_are_decided_as_one_after_the_other(
    stranger: Callable[..., Path], tmp_path: Path
) -> None:
    """Each box overlaps only its neighbours: the best stays, the next goes, the third stays."""
    count = CELLS
    x = np.arange(count) % 12
    boxes = np.stack([4 + x * 4.0, 4 + 5.0 * (np.arange(count) // 12), np.full(count, 8.0), np.full(count, 4.0)], 1)
    scores = np.linspace(0.95, 0.05, count)[:, None]
    table = np.concatenate([boxes, scores], 1).T[None].astype(np.float32)
    made = adopted(stranger({"output0": table}), Limits(iou=0.25))
    expected = suppressed(best_first(scores[:, 0], np.zeros(count), corners(boxes)), 0.25)
    assert len(expected) == count / 2
    assert_finds(made, tmp_path, expected)


def test_finished_yolo_detections_are_taken_as_they_are(stranger: Callable[..., Path], tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    boxes, scores = corners(centred(random, 30)), np.sort(random.random(30))[::-1]
    classes = random.integers(0, 4, 30)
    table = np.concatenate([boxes, scores[:, None], classes[:, None]], 1)[None].astype(np.float32)
    path = stranger({"output0": table})
    with pytest.raises(UsageError, match="--classes"):
        adopted(path)
    made = adopted(path, classes=tuple("abcd"))
    assert made.reading.layout == "yolo-e2e" and made.contract.output.nms is None
    assert_finds(made, tmp_path, best_first(scores, classes, boxes))


@pytest.mark.parametrize("together", [False, True])
def test_finished_detections_in_several_outputs(stranger: Callable[..., Path], tmp_path: Path, together: bool) -> None:
    random = np.random.default_rng(4)
    boxes, scores = corners(centred(random, 20)).astype(np.float32), random.random((20, 1)).astype(np.float32)
    classes = random.integers(0, 2, 20)
    tables: dict[str, np.ndarray] = {"labels": classes[None]}
    if together:
        tables["dets"] = np.concatenate([boxes, scores], 1)[None]
    else:
        tables |= {"dets": boxes[None], "confidences": scores.T}
    made = adopted(stranger(tables), classes=("a", "b"))
    assert made.reading.layout == "dets"
    assert_finds(made, tmp_path, best_first(scores[:, 0], classes, boxes))


def test_queries_may_find_several_classes_each(stranger: Callable[..., Path], tmp_path: Path) -> None:
    """RT-DETR and its kin take the best pairs of query and class; scores are sigmoids, boxes fractions."""
    random = np.random.default_rng(5)
    boxes, logits = centred(random, 40) / SIDE, random.normal(-2, 2, (40, 3))
    made = adopted(stranger({"logits": logits[None].astype(np.float32), "pred_boxes": boxes[None].astype(np.float32)}))
    assert made.reading.layout == "detr"
    pairs = best_first(sigmoid(logits).ravel(), np.tile(np.arange(3), 40), corners(boxes * SIDE).repeat(3, 0))
    assert_finds(made, tmp_path, pairs[:100])


def test_queries_with_a_class_for_nothing_are_softmaxed(stranger: Callable[..., Path], tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    boxes, logits = centred(random, 40) / SIDE, random.normal(0, 2, (40, 4))
    logits[:35, 3] += 6
    made = adopted(stranger({"logits": logits[None].astype(np.float32), "pred_boxes": boxes[None].astype(np.float32)}))
    assert made.contract.output.classes == ["class 0", "class 1", "class 2"]
    scores = softmax(logits)[:, :3]
    assert_finds(made, tmp_path, best_first(scores.max(1), scores.argmax(1), corners(boxes * SIDE)))


def test_queries_in_one_output(stranger: Callable[..., Path], tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    boxes, scores = centred(random, 50) / SIDE, random.random((50, 2))
    made = adopted(stranger({"output0": np.concatenate([boxes, scores], 1)[None].astype(np.float32)}))
    assert made.reading.layout == "detr"
    assert_finds(made, tmp_path, best_first(scores.max(1), scores.argmax(1), corners(boxes * SIDE)))


@pytest.mark.parametrize("done", [False, True])
def test_anchors_with_a_background_class(stranger: Callable[..., Path], tmp_path: Path, done: bool) -> None:
    random = np.random.default_rng(8)
    count = 1100
    boxes, logits = corners(centred(random, count)) / SIDE, random.normal(0, 2, (count, 3))
    scores = softmax(logits)
    tables = {"boxes": boxes[None].astype(np.float32), "scores": (scores if done else logits)[None].astype(np.float32)}
    limits = Limits(candidates=200, iou=0.45, detections=50)
    made = adopted(stranger(tables), limits)
    assert made.reading.layout == "ssd" and made.contract.output.classes == ["class 0", "class 1"]
    pairs = best_first(scores[:, 1:].ravel(), np.tile(np.arange(2), count), (boxes * SIDE).repeat(2, 0))
    assert_finds(made, tmp_path, suppressed(pairs[:200], 0.45)[:50])


@pytest.mark.parametrize("with_offsets", [True, False])
def test_peaks_of_a_heat_map(stranger: Callable[..., Path], tmp_path: Path, with_offsets: bool) -> None:
    random = np.random.default_rng(9)
    heat, size = random.normal(-3, 2, (2, 16, 16)), random.uniform(1, 4, (2, 16, 16))
    offset = random.random((2, 16, 16)) * with_offsets
    tables = {"hm": heat, "wh": size} | ({"reg": offset} if with_offsets else {})
    made = adopted(stranger({name: table[None].astype(np.float32) for name, table in tables.items()}))
    assert made.reading.layout == "centernet"
    expected = []
    for label, row, column in np.ndindex(2, 16, 16):
        window = heat[label, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if heat[label, row, column] == window.max():
            centre = np.array([column, row]) + offset[:, row, column]
            half = size[:, row, column] / 2
            expected.append((sigmoid(heat[label, row, column]), label, (*(centre - half) * 4, *(centre + half) * 4)))
    expected.sort(key=lambda row: -row[0])
    assert_finds(made, tmp_path, expected[:100])


@pytest.mark.parametrize(
    ("channels", "choices", "probability"),
    [
        (1, {}, lambda maps: sigmoid(maps[0])),
        (2, {}, lambda maps: softmax(np.moveaxis(maps, 0, -1))[..., 1]),
        (4, {"target": (1, 3)}, lambda maps: softmax(np.moveaxis(maps, 0, -1))[..., [1, 3]].sum(-1)),
        (3, {"target": (2,), "scores": "sigmoid"}, lambda maps: sigmoid(maps[2])),
    ],
)
def test_logits_become_a_mask(
    stranger: Callable[..., Path],
    tmp_path: Path,
    channels: int,
    choices: dict[str, Any],
    probability: Callable[[np.ndarray], np.ndarray],
) -> None:
    maps = np.random.default_rng(channels).normal(0, 3, (channels, SIDE, SIDE)).astype(np.float32)
    made = adopted(stranger({"out": maps[None], "aux": maps[None, :1] * 0}), **choices)
    mask = outputs(made, tmp_path)["mask"]
    assert mask.shape == (1, 1, SIDE, SIDE) and made.contract.output.kind == "mask"
    np.testing.assert_allclose(mask[0, 0], probability(maps), atol=1e-5)


@pytest.mark.parametrize("scores", ["", "probability"])
def test_channels_that_are_sigmoids_already_stay_as_they_are(
    stranger: Callable[..., Path], tmp_path: Path, scores: str
) -> None:
    """Neither a softmax nor a second sigmoid over them; and they do not exclude each other, so the best one counts."""
    maps = sigmoid(np.random.default_rng(11).normal(0, 3, (3, SIDE, SIDE))).astype(np.float32)
    path = stranger({"out": maps[None]})
    made = adopted(path, target=(2,), scores=scores)
    np.testing.assert_allclose(outputs(made, tmp_path)["mask"][0, 0], maps[2], atol=1e-6)
    assert any("each stands for itself" in reason for reason in made.reading.reasons)
    made = adopted(path, target=(0, 2), scores=scores)
    np.testing.assert_allclose(outputs(made, tmp_path)["mask"][0, 0], maps[[0, 2]].max(0), atol=1e-6)


def test_channels_of_a_softmax_in_the_graph_are_added(stranger: Callable[..., Path], tmp_path: Path) -> None:
    maps = softmax(np.random.default_rng(12).normal(0, 3, (SIDE, SIDE, 4))).astype(np.float32)
    path = stranger({"out": np.moveaxis(maps, 2, 0)[None]})
    added = outputs(adopted(path, target=(1, 3)), tmp_path)["mask"][0, 0]
    np.testing.assert_allclose(added, maps[..., [1, 3]].sum(-1), atol=1e-6)
    best = outputs(adopted(path, target=(1, 3), scores="sigmoid"), tmp_path)["mask"][0, 0]
    np.testing.assert_allclose(best, sigmoid(maps[..., [1, 3]].max(-1)), atol=1e-6)


def test_a_mask_of_fewer_cells_is_enlarged(stranger: Callable[..., Path], tmp_path: Path) -> None:
    """At half pixels: a cell's value stands at its centre, and between two centres it goes over evenly."""
    maps = np.zeros((1, 1, 16, 16), np.float32)
    maps[0, 0, :, 8:] = 1
    mask = outputs(adopted(stranger({"mask": maps - 0.0}), scores="probability"), tmp_path)["mask"][0, 0]
    ramp = np.clip((np.arange(SIDE) + 0.5) / 4 - 0.5 - 7, 0, 1)
    np.testing.assert_allclose(mask, np.tile(ramp, (SIDE, 1)), atol=1e-6)


def test_several_classes_a_pixel_need_a_target(stranger: Callable[..., Path]) -> None:
    path = stranger({"out": np.random.default_rng(0).normal(0, 3, (1, 5, SIDE, SIDE)).astype(np.float32)})
    with pytest.raises(UsageError, match="--target"):
        adopted(path)
    with pytest.raises(UsageError, match="no channel 5"):
        adopted(path, target=(5,))
    with pytest.raises(UsageError, match=r"--target names channel 3 twice"):
        adopted(path, target=(3, 1, 3))


def test_names_that_a_deployable_uses_are_freed(stranger: Callable[..., Path], tmp_path: Path) -> None:
    """An original whose own tensors are called boxes and scores, as many are."""
    random = np.random.default_rng(10)
    boxes, logits = centred(random, 20) / SIDE, random.normal(-2, 2, (20, 2))
    tables = {"scores": logits[None].astype(np.float32), "boxes": boxes[None].astype(np.float32)}
    made = adopted(stranger(tables), Limits(detections=20))
    pairs = best_first(sigmoid(logits).ravel(), np.tile(np.arange(2), 20), corners(boxes * SIDE).repeat(2, 0))
    assert_finds(made, tmp_path, pairs[:20])
