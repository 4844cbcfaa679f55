"""Promises of irforge.detections: from a graph's outputs to detections in frame pixels."""

from __future__ import annotations

import json
from collections import deque
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from irforge.contract import (
    Contract,
    InputSpec,
    Letterbox,
    Normalization,
    OutputSpec,
    PadToMultiple,
    Provenance,
    Squash,
    TensorSpec,
)
from irforge.detections import Detections, decode, mask_targets
from irforge.errors import ArtifactError
from irforge.frames import Geometry, fit_geometry, prepare


def contract(kind: Any = "mask", size: int = 64, fit: Any = None, threshold: float = 0.5, **output: Any) -> Contract:
    names = {"mask": ["mask"], "boxes": ["boxes", "scores", "classes"]}[kind]
    return Contract(
        input=InputSpec(height=size, width=size, fit=fit or Squash(), normalization=Normalization(mean=0, std=1)),
        output=OutputSpec(
            kind=kind,
            classes=["target", "bird"],
            score_threshold=threshold,
            tensors=[TensorSpec(name=n, dtype="float32", shape=["N"], meaning=n) for n in names],
            **output,
        ),
        provenance=Provenance(detector="test"),
    )


def found_by_flooding(p: Any, threshold: float, connectivity: int) -> list[tuple[Any, ...]]:
    """Components by a flood fill that shares nothing with the tested code."""
    waiting = {(int(r), int(c)) for r, c in np.argwhere(p > threshold)}
    steps = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r or c) and (connectivity == 8 or not (r and c))]
    targets = []
    for r, c in np.argwhere(p > threshold).tolist():
        if (r, c) not in waiting:
            continue
        waiting.discard((r, c))
        queue, pixels = deque([(r, c)]), []
        while queue:
            here = queue.popleft()
            pixels.append(here)
            for step in steps:
                there = (here[0] + step[0], here[1] + step[1])
                if there in waiting:
                    waiting.discard(there)
                    queue.append(there)
        rows, columns = zip(*pixels, strict=True)
        targets.append(
            (
                max(float(p[pixel]) for pixel in pixels),
                (min(columns), min(rows), max(columns) + 1, max(rows) + 1),
                (sum(columns) / len(pixels) + 0.5, sum(rows) / len(pixels) + 0.5),
                len(pixels),
            )
        )
    return sorted(targets, key=lambda target: -target[0])


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("density", [0.02, 0.2, 0.45, 1.0])
@pytest.mark.parametrize("shape", [(40, 50), (33, 64)])
def test_mask_targets_are_the_connected_components(shape: Any, density: float, connectivity: int) -> None:
    rng = np.random.default_rng(int(density * 100))
    # Few distinct levels, so that equal scores occur and their order is put to the test.
    p = ((rng.random(shape) < density) * rng.integers(1, 10, shape) / 10).astype(np.float32)
    threshold = 0.05
    found = mask_targets(p, threshold, connectivity)
    expected = found_by_flooding(p, np.float32(threshold), connectivity)
    assert len(found) == len(expected) > 0
    assert found.scores.tolist() == [score for score, *_ in expected]
    assert found.boxes.tolist() == [list(box) for _, box, *_ in expected]
    assert found.centres is not None and found.areas is not None
    assert np.abs(found.centres - [centre for *_, centre, _ in expected]).max() < 1e-5
    assert found.areas.tolist() == [area for *_, area in expected]


def test_the_threshold_is_strict_in_single_precision() -> None:
    p = np.zeros((20, 20), np.float32)
    p[4, 5] = 0.3
    assert len(mask_targets(p, 0.3)) == 0
    p[4, 5] = np.nextafter(np.float32(0.3), np.float32(1))
    assert len(mask_targets(p, 0.3)) == 1


def test_a_lone_pixel_has_its_centre_at_a_half() -> None:
    p = np.zeros((32, 32), np.float32)
    p[7, 9] = 0.9
    found = mask_targets(p, 0.5)
    assert found.boxes.tolist() == [[9, 7, 10, 8]] and found.centres is not None
    assert found.centres.tolist() == [[9.5, 7.5]]


def test_equal_scores_keep_their_order() -> None:
    boxes = np.arange(20, dtype=np.float32).reshape(5, 4)
    found = Detections(boxes, np.array([0.5, 0.9, 0.5, 0.9, 0.5]), np.arange(5))
    assert found.classes.tolist() == [1, 3, 0, 2, 4]
    assert found.boxes[:, 0].tolist() == [4, 12, 0, 8, 16]


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 boxes with 1 scores"):
        Detections(np.zeros((2, 4)), np.zeros(1), np.zeros(2))


def test_rows_are_json_with_the_classes_names() -> None:
    p = np.zeros((32, 32), np.float32)
    p[7, 9:11] = 0.25, 0.75
    rows = mask_targets(p, 0.2).rows(["target"])
    assert json.loads(json.dumps(rows)) == [
        {"box": [9, 7, 11, 8], "score": 0.75, "class": 0, "label": "target", "centre": [10, 7.5], "area": 2}
    ]
    assert Detections.empty().rows(["target"]) == []


def test_take_keeps_every_column() -> None:
    p = np.zeros((32, 32), np.float32)
    p[2, 2], p[8, 8], p[20, 20:22] = 0.6, 0.7, 0.8
    found = mask_targets(p, 0.5)
    for part in (found.take([2]), found.take(np.array([False, False, True]))):
        assert part.rows() == found.rows()[2:]
    assert len(found.take([])) == 0


# ---------------------------------------------------------------- decode


def test_mask_targets_come_back_in_frame_pixels() -> None:
    frame_side = {"x": 640, "y": 512}
    geometry = fit_geometry(frame_side["y"], frame_side["x"], contract(size=256).input)
    mask = np.zeros((1, 1, 256, 256), np.float32)
    mask[0, 0, 100:102, 40:44] = 0.8
    found = decode({"mask": mask}, contract(size=256), geometry)
    assert found.boxes.tolist() == [[100, 200, 110, 204]]
    assert found.centres is not None and found.areas is not None
    assert found.centres.tolist() == [[105, 202]] and found.areas.tolist() == [40]
    assert found.scores.tolist() == [np.float32(0.8)] and found.mask is None


def test_a_frame_of_the_models_size_keeps_the_masks_pixels() -> None:
    mask = np.random.default_rng(5).random((1, 1, 64, 64)).astype(np.float32)
    native = mask_targets(mask[0, 0], 0.9)
    found = decode({"mask": mask}, contract(threshold=0.9), Geometry(64, 64, 64, 64, 64, 64))
    assert found.rows() == native.rows()


@pytest.mark.parametrize("fit", [Letterbox(), PadToMultiple(multiple=16)])
def test_what_lies_in_the_padding_is_no_detection(fit: Any) -> None:
    wanted = contract(fit=fit)
    tensor, geometry = prepare(np.zeros((40, 64), np.uint8), wanted.input)
    mask = np.full(tensor.shape, 0.9, np.float32)
    geometry.crop(mask)[...] = 0
    assert len(decode({"mask": mask}, wanted, geometry)) == 0
    mask[...] = 0.9
    found = decode({"mask": mask}, wanted, geometry)
    assert found.boxes.tolist() == [[0, 0, 64, 40]] and found.areas is not None and found.areas.tolist() == [2560]


def test_the_mask_is_resized_to_the_frame_on_request() -> None:
    wanted = contract()
    geometry = fit_geometry(128, 192, wanted.input)
    mask = np.zeros((1, 1, 64, 64), np.float32)
    mask[0, 0, 10:12, 20:23] = 0.9
    found = decode({"mask": mask}, wanted, geometry, with_mask=True)
    assert found.mask is not None and found.mask.shape == (128, 192) and found.mask.dtype == np.bool_
    x1, y1, x2, y2 = found.boxes[0].astype(int)
    assert found.mask[y1:y2, x1:x2].all() and found.mask.sum() == (x2 - x1) * (y2 - y1)


def test_a_frame_is_chosen_from_the_batch() -> None:
    mask = np.zeros((3, 1, 64, 64), np.float32)
    mask[2, 0, 5, 6] = 0.9
    geometry = Geometry(64, 64, 64, 64, 64, 64)
    assert [len(decode({"mask": mask}, contract(), geometry, index=i)) for i in range(3)] == [0, 0, 1]


def test_another_threshold_may_be_asked_for() -> None:
    mask = np.full((1, 1, 64, 64), 0.4, np.float32)
    geometry = Geometry(64, 64, 64, 64, 64, 64)
    assert len(decode({"mask": mask}, contract(), geometry)) == 0
    assert len(decode({"mask": mask}, contract(), geometry, threshold=0.3)) == 1


def test_half_precision_outputs_are_decoded() -> None:
    mask = np.zeros((1, 1, 64, 64), np.float16)
    mask[0, 0, 5, 6] = 0.9
    found = decode({"mask": mask}, contract(), Geometry(64, 64, 64, 64, 64, 64))
    assert found.scores.dtype == np.float32 and found.scores[0] == np.float32(np.float16(0.9))


def boxes_outputs(rows: list[tuple[list[float], float, int]]) -> dict[str, Any]:
    return {
        "boxes": np.array([[box for box, _, _ in rows]], np.float32),
        "scores": np.array([[score for _, score, _ in rows]], np.float32),
        "classes": np.array([[number for _, _, number in rows]], np.int64),
    }


def test_boxes_are_filtered_mapped_clipped_and_sorted() -> None:
    wanted = contract("boxes")
    geometry = fit_geometry(128, 192, wanted.input)
    outputs = boxes_outputs(
        [
            ([1, 1, 3, 4], 0.6, 0),
            ([-5, 60, 10, 90], 0.9, 1),
            ([5, 5, 9, 9], 0.5, 0),  # not above the threshold
            ([70, 5, 90, 9], 0.8, 0),  # outside of the frame
            ([0, 0, 0, 0], 0.0, -1),  # padding rows of a fixed-size output
        ]
    )
    found = decode(outputs, wanted, geometry)
    assert found.boxes.tolist() == [[0, 120, 30, 128], [3, 2, 9, 8]]
    assert found.classes.tolist() == [1, 0] and found.centres is None
    assert found.areas is not None and found.areas.tolist() == [240, 36]


def test_no_boxes_are_no_detections() -> None:
    outputs = {"boxes": np.zeros((1, 0, 4)), "scores": np.zeros((1, 0)), "classes": np.zeros((1, 0), np.int64)}
    assert len(decode(outputs, contract("boxes"), Geometry(64, 64, 64, 64, 64, 64))) == 0


@pytest.mark.parametrize(
    ("kind", "outputs", "message"),
    [
        ("mask", {"mask": np.full((1, 1, 64, 64), np.nan, np.float32)}, "'mask' holds NaN.*irforge half"),
        ("mask", {"logits": np.zeros((1, 1, 64, 64), np.float32)}, r"no 'mask' \(it returned logits\)"),
        ("mask", {"mask": np.zeros((1, 1, 32, 64), np.float32)}, r"expected \(N, 1, 64, 64\)"),
        ("mask", {"mask": np.zeros((64, 64), np.float32)}, "expected 4 dimensions"),
        ("boxes", boxes_outputs([([1, 1, 2, 2], float("nan"), 0)]), "'scores' holds NaN"),
        ("boxes", boxes_outputs([([1, 1, float("nan"), 2], 0.9, 0)]), "'boxes' holds NaN"),
        ("boxes", boxes_outputs([([1, 1, 2, 2], 0.9, 7)]), "names class 7, the contract knows 2"),
        ("boxes", boxes_outputs([([1, 1, 2, 2], 0.9, 0)]) | {"scores": np.zeros((1, 4))}, "do not fit together"),
    ],
)
def test_outputs_that_cannot_be_trusted_are_refused(kind: Any, outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        decode(outputs, contract(kind), Geometry(64, 64, 64, 64, 64, 64))


def test_one_nan_pixel_is_enough_to_refuse_a_mask() -> None:
    mask = np.zeros((1, 1, 64, 64), np.float32)
    mask[0, 0, 63, 0] = np.nan
    with pytest.raises(ArtifactError, match="NaN"):
        decode({"mask": mask}, contract(), Geometry(64, 64, 64, 64, 64, 64))


def test_a_frame_is_decoded_within_a_tenth_of_a_fast_sessions_time() -> None:
    # MSHNet at 256x256 takes about 80 ms on one CPU thread at best; 8 ms leaves room for a busy machine.
    mask = np.zeros((1, 1, 256, 256), np.float32)
    for row in range(10, 250, 30):
        mask[0, 0, row : row + 3, row : row + 4] = 0.9
    geometry = fit_geometry(512, 640, contract(size=256).input)
    took = []
    for _ in range(20):
        start = perf_counter()
        assert len(decode({"mask": mask}, contract(size=256), geometry)) == 8
        took.append(perf_counter() - start)
    assert min(took) < 0.008
