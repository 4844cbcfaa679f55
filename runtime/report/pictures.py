"""Small pictures for the report."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

RADIUS = 16


def neighbourhood_png(
    plane: npt.NDArray[Any], row: float, column: float, *, radius: int = RADIUS, stretch: bool = False
) -> str:
    """A square of 2 `radius` + 1 pixels around a point, as a gray PNG in base64; black beyond the plane's edge.

    Args:
        plane: H x W, 0..1, or of any range with `stretch`.
        row, column: pixel index of the centre, rounded.
        stretch: show the darkest pixel of the square as black and its brightest as white.
    """
    top, left = round(row) - radius, round(column) - radius
    bottom, right = top + 2 * radius + 1, left + 2 * radius + 1
    height, width = plane.shape
    part = plane[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].astype(np.float32)
    if stretch:
        low, high = float(part.min()), float(part.max())
        part = (part - low) / ((high - low) or 1.0)
    levels = np.rint(255 * part.clip(0, 1)).astype(np.uint8)
    border = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    done, data = cv2.imencode(".png", cv2.copyMakeBorder(levels, *border, cv2.BORDER_CONSTANT, value=0))
    if not done:
        raise ValueError(f"OpenCV cannot encode a picture of {levels.shape}")
    return base64.b64encode(data.tobytes()).decode()
