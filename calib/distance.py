"""How far apart two answers of a detector to the same frames lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.calib.costs import Cost
from irforge.contract import Contract
from irforge.detections import Detections, decode
from irforge.frames import Geometry
from irforge.metrics.matching import box_iou
from irforge.runtime.pairing import crossings, pair_detections

Answer = npt.NDArray[np.float32] | Detections
"""The probabilities of one frame without padding, or all its detections in frame pixels."""


def read_answer(outputs: Mapping[str, npt.NDArray[Any]], contract: Contract, geometry: Geometry) -> Answer:
    """The part of a graph's outputs that says what it found in the frame, without the padding around it."""
    if contract.output.kind == "mask":
        return np.asarray(geometry.crop(outputs["mask"]), np.float32)
    return decode(outputs, contract, geometry, threshold=0.0)


def distance(reference: Sequence[Answer], found: Sequence[Answer], threshold: float) -> Cost:
    """How far `found` lies from `reference`, one answer for each frame; see `Cost`."""
    moved, crossed = 0.0, 0
    for a, b in zip(reference, found, strict=True):
        if isinstance(a, Detections):
            assert isinstance(b, Detections)
            more = _of_boxes(a, b, threshold)
        else:
            assert not isinstance(b, Detections)
            more = _of_masks(a, b, threshold)
        moved, crossed = moved + more[0], crossed + more[1]
    return Cost(difference=moved / len(reference), crossed=100 * crossed / len(reference))


def _of_masks(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], threshold: float) -> tuple[float, int]:
    level = np.float32(threshold)
    return float(np.abs(a - b).sum(dtype=np.float64)), int(np.count_nonzero((a > level) != (b > level)))


def _of_boxes(a: Detections, b: Detections, threshold: float) -> tuple[float, int]:
    # The same target may stand in another slot, and a score alone does not tell that a box has moved.
    pairing = pair_detections(a, b)
    scores, others = a.scores[pairing.one].astype(np.float64), b.scores[pairing.other].astype(np.float64)
    overlap = box_iou(a.boxes[pairing.one], b.boxes[pairing.other]).diagonal()
    moved = np.abs(scores - others) + (1 - overlap) * np.minimum(scores, others)
    alone = (a.scores[pairing.only_one], b.scores[pairing.only_other])
    total = float(moved.sum()) + sum(float(part.sum(dtype=np.float64)) for part in alone)
    return total, crossings(a, b, pairing, threshold)
