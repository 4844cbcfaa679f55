"""Annotated boxes become truth here, whatever file they come from: one rule for what is refused and what is mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from irforge.datasets.base import BoxTruth, Finding
from irforge.errors import InputError

_ROUNDING = 0.01
"""Pixels by which decimals of six digits put an edge beyond its frame: cut without a word."""
_SLIP = 1.0
"""Pixels by which a box may stick out for counting from 1, or an inclusive end: cut, and no fault."""


class BoxRow(NamedTuple):
    """One annotated box, xyxy in frame pixels, with its class and where it stands, for messages."""

    box: tuple[float, float, float, float]
    number: int
    where: str


def frame_boxes(rows: Sequence[BoxRow], size: tuple[int, int], name: str) -> tuple[BoxTruth, list[Finding]]:
    """The truth of a frame of `size` (height, width), and a finding for each box that was cut at its border.

    Raises:
        InputError: a box without area, not finite, or wholly outside its frame.
    """
    if not rows:
        return BoxTruth(np.empty((0, 4), np.float32), np.empty(0, np.int64)), []
    height, width = size
    boxes = np.array([row.box for row in rows], np.float64)
    cut = boxes.clip(0, (width, height, width, height))
    kept = cut.astype(np.float32)
    findings = []
    for row, box, inside, beyond in zip(rows, boxes, kept, np.abs(boxes - cut).max(axis=1), strict=True):
        shown = ", ".join(f"{value:g}" for value in box)
        if not np.isfinite(box).all():
            raise InputError(f"box [{shown}] of '{name}', {row.where}, is not finite", "Mend it, or take it out")
        if not (inside[2] > inside[0] and inside[3] > inside[1]):
            has_area = box[2] > box[0] and box[3] > box[1]
            fault = f"lies outside its frame of {width}x{height}" if has_area else "has no area"
            remedy = "Were the boxes made for frames of another size?" if has_area else "Mend it, or take it out"
            raise InputError(f"box [{shown}] of '{name}', {row.where}, {fault}", remedy)
        if beyond > _ROUNDING:
            text = f"box [{shown}] sticks out of the {width}x{height} frame by {beyond:.2g} px and is cut"
            findings.append(Finding("box beyond its frame", name, text, fault=bool(beyond > _SLIP)))
    return BoxTruth(kept, np.array([row.number for row in rows], np.int64)), findings
