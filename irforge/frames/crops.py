"""Boxes of a frame as crops of one size, and as averages over a feature map: RoIAlign as matrix products.

RoIAlign (He et al., Mask R-CNN) averages bilinear samples on a grid. The grid is a product of two axes, so that each
box is one matrix for its rows and one for its columns, whatever the number of samples.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def align_matrix(low: float, high: float, bins: int, length: int) -> Floats:
    """What each bin takes from each pixel along one axis: float32 [bins, length], rows that sum to 1 inside the frame.

    RoIAlign with pixel centres at half coordinates and ceil((high - low) / bins) samples a bin: torchvision's
    `roi_align` with aligned=True and sampling_ratio 0. Samples up to a pixel outside take the border's value, those
    beyond take 0.

    Args:
        low, high: the box along this axis, in pixels of the map, as edge coordinates.
        bins: of the result.
        length: of the map.
    """
    # In float32 as everywhere else: the number of samples jumps where a side is a whole number of bins.
    start = np.float32(low) - np.float32(0.5)
    step = (np.float32(high) - np.float32(0.5) - start) / np.float32(bins)
    samples = max(math.ceil(step), 1)
    at = float(start) + (np.arange(bins * samples) + 0.5) * (float(step) / samples)
    weight = ((at >= -1) & (at <= length)) / samples
    at = np.clip(at, 0, length - 1)
    first = np.minimum(at.astype(np.intp), max(length - 2, 0))
    part = at - first
    rows = np.repeat(np.arange(bins), samples)
    matrix = np.zeros((bins, length))
    np.add.at(matrix, (rows, first), (1 - part) * weight)
    np.add.at(matrix, (rows, np.minimum(first + 1, length - 1)), part * weight)
    return matrix.astype(np.float32)


def crop_boxes(frame: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32], size: int) -> Floats:
    """Each box of a frame warped to a square: float32 [n, 3, size, size] in 0..1; gray fills all three channels.

    The aspect ratio is not kept and there is no margin; a box larger than the square is averaged.

    Args:
        frame: H x W, or H x W x 3.
        boxes: [n, 4], xyxy in frame pixels.
        size: side of the square.
    """
    planes = np.moveaxis(np.atleast_3d(frame), 2, 0)
    height, width = planes.shape[1:]
    crops = np.empty((len(boxes), 3, size, size), np.float32)
    for crop, (x0, y0, x1, y1) in zip(crops, boxes, strict=True):
        down, across = align_matrix(y0, y1, size, height), align_matrix(x0, x1, size, width)
        rows, columns = _used(down), _used(across)
        crop[:] = down[:, rows] @ planes[:, rows, columns].astype(np.float32) @ across[:, columns].T
    return np.divide(crops, np.float32(255), out=crops)


def box_averages(boxes: npt.NDArray[np.float32], height: int, width: int, stride: int) -> tuple[Floats, Floats]:
    """How each box averages a feature map: rows float32 [n, height] and columns float32 [n, width].

    The sum over y and x of rows[y] columns[x] map[y, x] is RoIAlign with one bin.

    Args:
        boxes: [n, 4], xyxy in frame pixels.
        height, width: of the map.
        stride: frame pixels to one pixel of the map.
    """
    scaled = np.asarray(boxes, np.float32) / np.float32(stride)
    rows = [align_matrix(y0, y1, 1, height) for _, y0, _, y1 in scaled]
    columns = [align_matrix(x0, x1, 1, width) for x0, _, x1, _ in scaled]
    return (
        np.concatenate(rows) if rows else np.zeros((0, height), np.float32),
        np.concatenate(columns) if columns else np.zeros((0, width), np.float32),
    )


def _used(matrix: Floats) -> slice:
    """The pixels that an axis takes anything from: they lie together."""
    found = np.flatnonzero(matrix.any(axis=0))
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 1)
