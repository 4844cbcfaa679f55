"""Which detection of one answer is which of another: two runs of a detector on the same frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irforge.detections import Detections
from irforge.metrics.matching import box_iou, centre_distances
from irforge.metrics.pixel import MATCH_DISTANCE

Rows = npt.NDArray[np.int64]

LEAST_IOU = 0.5
FLOOR = 0.1
"""Detections whose score is below this share of the threshold are not compared: rounding may decide where they lie."""


@dataclass(frozen=True, eq=False)
class Pairing:
    """Row numbers of pairs, int64 [p] each, and of the detections that have no partner."""

    one: Rows
    other: Rows
    only_one: Rows
    only_other: Rows


def pair_detections(one: Detections, other: Detections) -> Pairing:
    """Pair two answers one to one.

    Detections of one class may be partners if their centres are less than 3 pixels apart or their IoU is at least 0.5:
    a target of 3 pixels keeps its partner although it moves by a pixel, and so does a large one that changes its size.
    Of all such pairs, those whose edges moved least are taken first, and of these those whose scores moved least.
    """
    near = centre_distances(one.boxes, other.boxes) < MATCH_DISTANCE
    near |= box_iou(one.boxes, other.boxes) >= LEAST_IOU
    rows, columns = np.nonzero(near & (one.classes[:, None] == other.classes[None]))
    moved = np.abs(one.boxes[rows] - other.boxes[columns]).max(axis=1, initial=0)
    order = np.lexsort((np.abs(one.scores[rows] - other.scores[columns]), moved))
    partner = np.full(len(one), -1, np.int64)
    taken = np.zeros(len(other), np.bool_)
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if partner[i] < 0 and not taken[j]:
            partner[i], taken[j] = j, True
    paired = np.flatnonzero(partner >= 0)
    return Pairing(paired, partner[paired], np.flatnonzero(partner < 0), np.flatnonzero(~taken))


def crossings(one: Detections, other: Detections, pairing: Pairing, threshold: float) -> int:
    """How many pairs have one score above the threshold and the other not, and detections above it have no partner."""
    above, other_above = (detections.scores > np.float32(threshold) for detections in (one, other))
    crossed = (
        above[pairing.one] != other_above[pairing.other],
        above[pairing.only_one],
        other_above[pairing.only_other],
    )
    return sum(int(np.count_nonzero(rows)) for rows in crossed)
