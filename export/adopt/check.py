"""Does the adopted graph find what the stranger's outputs say? Its outputs are decoded once more, plainly, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract
from irforge.detections import Detections
from irforge.errors import CheckFailed
from irforge.export.adopt.decode import Limits
from irforge.export.adopt.reading import Part, Peaks, Plane, Rows
from irforge.frames.resize import resize
from irforge.metrics.matching import box_iou
from irforge.runtime.pairing import FLOOR, pair_detections

Array = npt.NDArray[Any]

SCORE_TOLERANCE, BOX_TOLERANCE = 1e-4, 0.05
_IOU_ROUNDING = 1e-4


def decoded(
    outputs: Mapping[str, Array], reading: Rows | Peaks, index: int, limits: Limits, height: int, width: int
) -> Detections:
    """What the stranger's outputs for one frame mean: boxes in pixels of the network's input, suppressed one by one."""
    if isinstance(reading, Peaks):
        return _peaks(outputs, reading, index, limits)
    rows = reading
    scores = _activated(_part(outputs, rows.scores, index), rows.activation)
    if rows.objectness:
        scores = scores * _activated(_part(outputs, rows.objectness, index), rows.activation)
    if rows.background is not None:
        scores = np.delete(scores, rows.background, axis=1)
    boxes = _part(outputs, rows.boxes, index).astype(np.float32)
    if rows.labels:
        classes = _part(outputs, rows.labels, index)[:, 0].astype(np.int64)
        best = scores[:, 0]
    elif rows.pick == "best":
        classes, best = scores.argmax(axis=1), scores.max(axis=1)
    else:
        boxes = boxes.repeat(scores.shape[1], axis=0)
        classes, best = np.tile(np.arange(scores.shape[1]), len(scores)), scores.ravel()
    if rows.coordinates == "centre":
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    if rows.unit == "fraction":
        boxes = boxes * np.array([width, height, width, height], np.float32)
    order = np.argsort(-best, kind="stable")[: limits.candidates if rows.suppress else limits.detections]
    found = Detections(boxes[order], best[order], classes[order])
    return found.take(_kept(found, limits.iou)[: limits.detections]) if rows.suppress else found


def _peaks(outputs: Mapping[str, Array], peaks: Peaks, index: int, limits: Limits) -> Detections:
    heat = outputs[peaks.heat][index]
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    label, row, column = np.nonzero(heat == windows.max(axis=(3, 4)))
    scores = _activated(heat[label, row, column], peaks.activation)
    centre = np.stack([column, row], axis=1).astype(np.float32)
    if peaks.offset:
        centre = centre + outputs[peaks.offset][index][:, row, column].T
    half = outputs[peaks.size][index][:, row, column].T / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1) * peaks.stride
    found = Detections(boxes, scores, label)
    return found.take(np.arange(min(limits.detections, len(found))))


def _kept(found: Detections, threshold: float) -> npt.NDArray[np.intp]:
    """Greedy suppression within classes; `found` is sorted."""
    overlaps = (box_iou(found.boxes, found.boxes) > threshold) & (found.classes[:, None] == found.classes[None])
    dropped = np.zeros(len(found), np.bool_)
    for i in range(len(found)):
        if not dropped[i]:
            dropped[i + 1 :] |= overlaps[i, i + 1 :]
    return np.flatnonzero(~dropped)


def plane_of(outputs: Mapping[str, Array], plane: Plane, index: int, height: int, width: int) -> Array:
    """Target probability of each pixel, float32 [height, width]."""
    maps = np.stack([resize(channel, height, width, "linear") for channel in outputs[plane.tensor][index]])
    return _activated(maps, plane.activation, axis=0)[list(plane.foreground)]


def compare(
    raw: Mapping[str, Array],
    found: Mapping[str, Array],
    reading: Rows | Peaks | Plane,
    contract: Contract,
    limits: Limits,
) -> dict[str, float]:
    """Largest differences between the stranger's outputs, decoded plainly, and the adopted graph's, over some frames.

    Boxes are compared with their partners. One without a partner counts in the scores by how far it stands above the
    lowest of the other answer.

    Raises:
        CheckFailed: one exceeds its tolerance.
    """
    height, width = contract.input.size
    worst: dict[str, float] = {}
    if isinstance(reading, Plane):
        for index, mask in enumerate(found["mask"]):
            maps = plane_of(raw, reading, index, height, width)
            expected = maps.sum(axis=0) if reading.exclusive else maps.max(axis=0)
            worst["mask"] = max(worst.get("mask", 0.0), float(np.abs(mask[0] - expected).max()))
    else:
        for index in range(len(found["scores"])):
            near = [replace(limits, iou=limits.iou + step) for step in (0.0, -_IOU_ROUNDING, _IOU_ROUNDING)]
            expected = [decoded(raw, reading, index, each, height, width) for each in near]
            got = Detections(found["boxes"][index], found["scores"][index], found["classes"][index])
            for name, value in _differences(expected, got, FLOOR * contract.output.score_threshold).items():
                worst[name] = max(worst.get(name, 0.0), value)
    for name, value in worst.items():
        limit = BOX_TOLERANCE if name == "boxes" else SCORE_TOLERANCE
        if not value <= limit:
            raise CheckFailed(
                f"output '{name}' of the adopted graph differs by {value:.3g} from what the original's outputs mean"
                f" (limit {limit:g})",
                "Nothing was written. Try --plain, and report it",
            )
    return worst


def _differences(answers: Sequence[Detections], got: Detections, least: float) -> dict[str, float]:
    """Largest differences to the first answer. The others stand for it where rounding decides which box is kept."""
    expected, *others = answers
    pairing = pair_detections(expected, got)
    seen = expected.scores[pairing.one] >= least
    moved = np.abs(expected.boxes[pairing.one] - got.boxes[pairing.other])[seen]
    changes = [np.abs(expected.scores[pairing.one] - got.scores[pairing.other])]
    missing, unknown = set(pairing.only_one.tolist()), set(pairing.only_other.tolist())
    for other in others:
        missing -= set(pair_detections(expected, other).only_one.tolist())
        unknown &= set(pair_detections(got, other).only_one.tolist())
    for lone, answer in ((expected.scores[sorted(missing)], got), (got.scores[sorted(unknown)], expected)):
        # Where an answer is full, rounding decides which of equal scores came in last.
        changes.append(np.maximum(lone[lone >= least] - answer.scores.min(initial=1.0), 0))
    return {"boxes": float(moved.max(initial=0)), "scores": max(float(change.max(initial=0)) for change in changes)}


def _part(outputs: Mapping[str, Array], part: Part, index: int) -> Array:
    """[rows, features]."""
    table: Array = outputs[part.tensor][index]
    if part.flat:
        return table[:, None]
    return (table.T if part.first else table)[:, part.start : part.stop]


def _activated(values: Array, activation: str, axis: int = -1) -> Array:
    values = values.astype(np.float32)
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-values.astype(np.float64))), np.float32)
    if activation == "softmax":
        powers = np.exp((values - values.max(axis=axis, keepdims=True)).astype(np.float64))
        return np.asarray(powers / powers.sum(axis=axis, keepdims=True), np.float32)
    return values
