"""Detections judged again by an image encoder: the arithmetic of `irforge.rescoring`, in NumPy alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.frames.crops import box_averages, crop_boxes

Array = npt.NDArray[Any]
_DEFAULTS: dict[str, Any] = {
    "lower": 0.05,
    "upper": 1.0,
    "limit": 20,
    "crop_size": None,
    "stride": None,
    "pad_level": 0,
}


def constants_of(companion: dict[str, Any]) -> dict[str, Any]:
    """What a companion of the contract does: `irforge.rescoring.RescoringSpec`."""
    return {**_DEFAULTS, **companion["constants"]}


def rescored(found: dict[str, Array], image: Array, spec: dict[str, Any], encode: Callable[..., Array]) -> Array:
    """The new scores of detections, in the order of the old ones.

    Args:
        found: boxes in the image's pixels, scores, classes.
        image: uint8, H x W or H x W x 3 (RGB).
        spec: of `constants_of`.
        encode: the companion, which takes its inputs by name and returns a score for each box.
    """
    scores = np.array(found["scores"], np.float32)
    classes = np.asarray(found["classes"], np.int64)
    changing = (np.array(spec["columns"]) >= 0) & (np.array(spec["alpha"]) < 1)
    window = (scores > np.float32(spec["lower"])) & (scores <= np.float32(spec["upper"]))
    rows = np.flatnonzero(window & changing[classes])
    rows = rows[np.argsort(-scores[rows], kind="stable")][: spec["limit"]]
    if len(rows):
        pixels = _pixels(image, found["boxes"][rows], spec)
        scores[rows] = encode(**pixels, scores=scores[rows], classes=classes[rows])
    return scores


def _pixels(image: Array, boxes: Array, spec: dict[str, Any]) -> dict[str, Array]:
    if spec["crop_size"] is not None:
        return {"crops": crop_boxes(image, boxes, spec["crop_size"])}
    stride, (height, width) = spec["stride"], image.shape[:2]
    cells = -(-height // stride), -(-width // stride)
    frame = np.full((1, 3, cells[0] * stride, cells[1] * stride), spec["pad_level"], np.uint8)
    frame[0, :, :height, :width] = np.moveaxis(np.atleast_3d(image), 2, 0)
    rows, columns = box_averages(boxes, *cells, stride)
    return {"frame": frame, "row_weights": rows, "column_weights": columns}
