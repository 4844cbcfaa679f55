"""ITD's maps to boxes, inside the graph: peaks of the heat, the best k of them, their boxes."""

from __future__ import annotations

from torch import Tensor

from irforge.train.detectors.itd.network import REDUCTION, Maps
from irforge.train.ops.peaks import peak_boxes


def decode(maps: Maps, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best peaks as boxes: see `peak_boxes`. All classes are 0."""
    logits, ltrb, offset = (each.float() for each in maps)
    return peak_boxes(logits, ltrb, offset, k, REDUCTION)
