"""Resizing, the same to the last bit in training, calibration and at run time.

`antialias` is Pillow's BILINEAR (a triangle filter that widens with the reduction), which the published protocols were
measured with. Halved so, a lone pixel of 240 on black becomes 34; by OpenCV's linear rule 60.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from irforge.frames.geometry import centre_samples

Rule = Literal["antialias", "linear", "nearest"]

# Pillow keeps 8-bit filter weights as integers of this precision.
_BITS = 22
_HALF = 1 << (_BITS - 1)


def resize(plane: npt.NDArray[Any], height: int, width: int, rule: Rule = "antialias") -> npt.NDArray[Any]:
    """A plane, H x W, at another size.

    `antialias`: triangle filter as wide as the reduction, horizontally and then vertically. On uint8 each pass rounds
    to whole levels and equals Pillow's BILINEAR bit for bit (which of the passes comes first varies in Pillow 13).
    `linear`: two taps around each pixel's centre (OpenCV's INTER_LINEAR), which skips source pixels when it reduces
    more than twofold. `nearest`: the source pixel under the centre.

    Returns:
        uint8 for uint8, float32 for every other dtype (no rounding), and the plane itself where the size fits.
    """
    if rule == "nearest":
        plane = plane if plane.dtype == np.uint8 else plane.astype(np.float32, copy=False)
        if plane.shape == (height, width):
            return plane
        rows, columns = centre_samples(plane.shape[0], height), centre_samples(plane.shape[1], width)
        return plane[rows].take(columns, axis=1)
    exact = plane.dtype == np.uint8
    result: npt.NDArray[Any] = plane if exact else plane.astype(np.float32, copy=False)
    if width != plane.shape[1]:
        result = cv2.transpose(_filter(cv2.transpose(result), width, rule, exact))
    if height != plane.shape[0]:
        result = _filter(result, height, rule, exact)
    return result


def _filter(lines: npt.NDArray[Any], target: int, rule: Rule, exact: bool) -> npt.NDArray[Any]:
    """Filter along the first axis: whole lines are added up, which is what NumPy does fastest."""
    sources, weights = _taps(len(lines), target, rule == "antialias", exact)
    values = lines.astype(np.int32 if exact else np.float32, copy=False)
    total: npt.NDArray[Any] = np.take(values, sources[0], axis=0)
    total *= weights[0]
    term = np.empty_like(total)
    for source, weight in zip(sources[1:], weights[1:], strict=True):
        np.take(values, source, axis=0, out=term, mode="clip")
        term *= weight
        total += term
    if not exact:
        return total
    total += _HALF
    total >>= _BITS
    return total.astype(np.uint8)


@lru_cache(maxsize=64)
def _taps(
    source: int, target: int, widen: bool, exact: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32] | npt.NDArray[np.float32]]:
    """For each output line the lines that it is made of [taps, target] and their weights [taps, target, 1]."""
    step = source / target
    reach = max(step, 1.0) if widen else 1.0
    taps = math.ceil(reach) * 2 + 1
    lines = np.zeros((taps, target), np.intp)
    weights = np.zeros((taps, target))
    for i in range(target):
        centre = (i + 0.5) * step
        first = max(int(centre - reach + 0.5), 0)
        last = min(int(centre + reach + 0.5), source)
        near = [max(0.0, 1.0 - abs((line - centre + 0.5) * (1.0 / reach))) for line in range(first, last)]
        total = 0.0
        for weight in near:
            total += weight
        for tap, weight in enumerate(near):
            lines[tap, i] = first + tap
            weights[tap, i] = weight / total
    used = weights.any(axis=1)
    lines, weights = lines[used], weights[used, :, None]
    if exact:
        return lines, (weights * (1 << _BITS) + 0.5).astype(np.int32)
    return lines, weights.astype(np.float32)
