"""The normalised contrast (NoCo) map of Dai et al. (OSCAR, TGRS 2023): how far a pixel stands for its target.

It is what OSCAR's third head learns and what its metric, mNoCoAP, judges points by.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_REACH = 1.5


class NocoPatch(NamedTuple):
    """The NoCo of one box over its context: values float64 [h, w], whose first pixel is (row `top`, column `left`)."""

    values: npt.NDArray[np.float64]
    top: int
    left: int


def noco_map(image: npt.NDArray[Any], boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The NoCo of all boxes of a frame; where contexts overlap, the later box overwrites the earlier one.

    Args:
        image: H x W gray levels on the scale of 8 bits (the formula holds a constant of 0.01 levels).
        boxes: [n, 4], xyxy, half-open, in pixels; coordinates are truncated to whole pixels.

    Returns:
        float64 H x W, 0..1: just below 1 at each target's most conspicuous pixel, 0 away from targets.
    """
    noco = np.zeros(image.shape, np.float64)
    for box in boxes:
        patch = noco_patch(image, box)
        if patch is not None:
            height, width = patch.values.shape
            noco[patch.top : patch.top + height, patch.left : patch.left + width] = patch.values
    return noco


def noco_patch(image: npt.NDArray[Any], box: npt.NDArray[Any]) -> NocoPatch | None:
    """The NoCo of one box over its context, which is the box grown by its own size on each side, inside the frame.

    Contrast to the darkest pixel of the context, relative to the brightest of the box, under a Gaussian as wide as the
    box, stretched to 0..1. A box narrower than a pixel counts as one pixel; None where none of it is in the frame.
    """
    if image.ndim != 2:
        raise ValueError(f"an image of shape {image.shape} is not H x W")
    x0, y0, x1, y1 = _whole(box)
    height, width = image.shape
    inside = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    if not inside.size:
        return None
    rows, weights_y = _context(y0, y1, height)
    columns, weights_x = _context(x0, x1, width)
    context = image[rows, columns].astype(np.float64)
    floor = context.min()
    contrast = (context - floor) / (float(inside.max()) - floor + 0.01)
    weighted = weights_y[:, None] * weights_x * contrast
    low, high = weighted.min(), weighted.max()
    return NocoPatch((weighted - low) / (high - low + 0.001), rows.start, columns.start)


def noco_peak(image: npt.NDArray[Any], box: npt.NDArray[Any]) -> tuple[float, float] | None:
    """(x, y), as edge coordinates, of the centre of the pixel with the highest NoCo of a box inside that box.

    A better point to report than the centre of a predicted box: it hardly depends on errors of the box. The first pixel
    in raster order where several are equal; None where none of the box is in the frame.
    """
    patch = noco_patch(image, box)
    if patch is None:
        return None
    x0, y0, x1, y1 = _whole(box)
    top, left = max(y0, 0), max(x0, 0)
    part = patch.values[top - patch.top : y1 - patch.top, left - patch.left : x1 - patch.left]
    row, column = divmod(int(part.argmax()), part.shape[1])
    return left + column + 0.5, top + row + 0.5


def _whole(box: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(v) for v in box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _context(start: int, stop: int, limit: int) -> tuple[slice, npt.NDArray[np.float64]]:
    side = stop - start
    first, last = start - side, stop + side
    kept = slice(max(first, 0), min(last, limit))
    distance = np.linspace(-_REACH, _REACH, 3 * side)[kept.start - first : kept.stop - first]
    return kept, np.exp(-(distance**2) / 2)
