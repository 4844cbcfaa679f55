"""ITD's targets: where a target's centre of light lies, and the elliptic heat that its box spreads around it."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from irforge.train.detectors.base import Plane
from irforge.train.detectors.itd.network import REDUCTION

SMALLEST_AREA = 50
MARGIN = 2
OTSU_SHARE = 0.6
BINS = 256

SMALL, MEDIUM = 6.0, 12.0
SIGMAS = (0.9345892910734801, 1.4395314709384563, 2.5758293035489004)
"""Standard deviations that half a side is, for boxes of at most `SMALL` and `MEDIUM` square cells and for larger ones:
sqrt(2) erfinv(P) of the mass P = 0.65, 0.85, 0.99 that they leave within the box."""
SIGMA_FLOOR = 1e-4

CHANNELS = {"heat": 1, "ltrb": 4, "offset": 2, "weight": 1}


def encode(levels: Plane, boxes: Plane, *, light: bool = True, legacy_half_pixel: bool = False) -> dict[str, Plane]:
    """Dense targets of one image: `dense_targets` with its boxes' centres.

    Args:
        levels: H x W; sides even.
        boxes: [n, 4], xyxy in pixels.
        light: put centres where `centre_of_light` finds them, instead of in the middle of the boxes.
        legacy_half_pixel: see `centre_of_light`.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    centres: Plane = np.float32(0.5) * (boxes[:, :2] + boxes[:, 2:])
    if light and len(boxes):
        centres = np.array([centre_of_light(levels, box, legacy_half_pixel) for box in boxes], np.float32)
    return dense_targets((levels.shape[0], levels.shape[1]), boxes, centres)


def dense_targets(size: tuple[int, int], boxes: Plane, centres: Plane) -> dict[str, Plane]:
    """Dense targets of boxes around given centres.

    The cell that a centre lies in has heat 1. From there heat falls along x and y like a normal distribution of which a
    share lies within the box (0.65, 0.85 or 0.99, by the box's area), and where boxes meet the larger heat counts. Of
    two boxes with one cell the later wins. A box whose centre lies outside, or without a positive side, is left out.

    Args:
        size: (height, width) of the image, in pixels; even.
        boxes: float32 [n, 4], xyxy in pixels.
        centres: float32 [n, 2], (x, y) in pixels.

    Returns:
        float32 maps over cells of 2 x 2 pixels: heat [1, h, w]; weight [1, h, w], 1 in the centres' cells; and there
        alone ltrb [4, h, w], distances from the centre to the box's left, top, right and bottom edge, and offset
        [2, h, w], the centre's place within its cell, x first, both in cells.
    """
    height, width = (side // REDUCTION for side in size)
    maps = {name: np.zeros((channels, height, width), np.float32) for name, channels in CHANNELS.items()}
    boxes, centres = boxes / np.float32(REDUCTION), centres / np.float32(REDUCTION)
    sides = boxes[:, 2:] - boxes[:, :2]
    cells = np.trunc(centres)
    kept = ((cells >= 0) & (cells < (width, height)) & (sides > 0)).all(axis=1)
    boxes, centres, sides, cells = boxes[kept], centres[kept], sides[kept], cells[kept]
    sigmas = spread(sides)
    heat = maps["heat"][0]
    along_x, along_y = _bells(width, cells[:, 0], sigmas[:, 0]), _bells(height, cells[:, 1], sigmas[:, 1])
    for row, column in zip(along_x, along_y, strict=True):
        np.maximum(heat, column[:, None] * row, out=heat)
    x, y = cells.astype(np.intp).T
    maps["ltrb"][:, y, x] = np.concatenate([centres - boxes[:, :2], boxes[:, 2:] - centres], axis=1).T
    maps["offset"][:, y, x] = (centres - cells).T
    maps["weight"][0, y, x] = 1
    return maps


def spread(sides: Plane) -> Plane:
    """Standard deviations [n, 2] of the heat of boxes with sides [n, 2] (width, height), both in cells."""
    area = sides[:, 0] * sides[:, 1]
    k = np.select([area <= SMALL, area <= MEDIUM], SIGMAS[:2], SIGMAS[2]).astype(np.float32)
    result: Plane = sides / (2 * k[:, None]) + np.float32(SIGMA_FLOOR)
    return result


def _bells(length: int, cells: Plane, sigmas: Plane) -> Plane:
    away = np.arange(length, dtype=np.float32) - cells[:, None]
    result: Plane = np.exp(-(away**2) / (2 * sigmas[:, None] ** 2))
    return result


def centre_of_light(levels: Plane, box: npt.NDArray[Any], legacy_half_pixel: bool = False) -> tuple[float, float]:
    """(x, y), as edge coordinates, of the intensity centroid of what shines in a box of more than 50 square pixels.

    What shines is the largest 4-connected part of the box and a margin of two pixels above a threshold made of Otsu's
    (1979) and of the levels' mean and variance. Small boxes, boxes without it and impossible ones have their middle.

    Args:
        levels: H x W.
        box: xyxy in pixels.
        legacy_half_pixel: leave the centroid in pixel indices, half a pixel up and left of where it is, as the authors'
            code does.
    """
    x1, y1, x2, y2 = (float(side) for side in box)
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x1 >= x2 or y1 >= y2 or (x2 - x1) * (y2 - y1) <= SMALLEST_AREA:
        return middle
    height, width = levels.shape
    left, top = int(max(0, x1 - MARGIN)), int(max(0, y1 - MARGIN))
    part = levels[top : int(min(height, y2 + MARGIN)), left : int(min(width, x2 + MARGIN))].astype(np.float64)
    if not part.size or part.min() == part.max():
        return middle
    scaled = (part - part.min()) / (part.max() - part.min())
    threshold = max(OTSU_SHARE * otsu(scaled), float(scaled.mean() + scaled.var()))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats((scaled > threshold).astype(np.uint8), connectivity=4)
    if len(statistics) < 2:
        return middle
    shining = labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    rows, columns = np.nonzero(shining)
    mass = part[shining] + 1e-7
    half = 0.0 if legacy_half_pixel else 0.5
    total = mass.sum()
    return float(columns @ mass / total) + left + half, float(rows @ mass / total) + top + half


def otsu(scaled: npt.NDArray[np.float64]) -> float:
    """Otsu's threshold of values in 0..1: the middle of the first of 256 bins that parts them best."""
    counts = np.bincount(np.minimum((scaled.ravel() * BINS).astype(np.intp), BINS - 1), minlength=BINS)
    middles = (np.arange(BINS) + 0.5) / BINS
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * middles)
    above = scaled.size - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(middles[np.argmax(np.nan_to_num(between))])
