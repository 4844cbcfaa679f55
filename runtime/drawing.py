"""Detections drawn onto frames for people to look at; nothing here touches what the detector sees."""

from __future__ import annotations

from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from irforge.detections import Detections

Picture = npt.NDArray[np.uint8]
Palette = Literal["white-hot", "black-hot", "ironbow"]
PALETTES: tuple[Palette, ...] = get_args(Palette)

# Of ironbow: a level and its RGB colour; between two of them it is linear, and brightness grows all the way.
_IRONBOW = (
    (0, (2, 2, 18)),
    (32, (28, 8, 92)),
    (72, (98, 10, 150)),
    (112, (176, 28, 134)),
    (152, (228, 78, 58)),
    (192, (250, 150, 24)),
    (224, (255, 212, 74)),
    (255, (255, 254, 240)),
)
_COLOUR = (80, 255, 80)
_SHOWN_WIDTH = 640
_GAP = 4
_ARM = 5
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PERCENTILES = (0.5, 99.9)


def palette_table(palette: Palette) -> Picture:
    """The colour of each level: uint8 [256, 3], RGB."""
    levels = np.arange(256, dtype=np.uint8)
    if palette == "ironbow":
        at, colours = zip(*_IRONBOW, strict=True)
        channels = [np.interp(levels, at, channel) for channel in zip(*colours, strict=True)]
        table: Picture = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
        return table
    return np.repeat((levels if palette == "white-hot" else levels[::-1])[:, None], 3, axis=1)


def displayable(frame: npt.NDArray[Any]) -> Picture:
    """A raw frame, H x W or H x W x 3 (RGB), as an 8-bit BGR picture.

    8-bit levels stay. Deeper ones are stretched between the frame's 0.5th and 99.9th percentile: a gain for the eye,
    which has nothing to do with the contract's gain control.
    """
    if frame.dtype != np.uint8:
        low, high = np.percentile(frame, _PERCENTILES)
        stretched = (frame.astype(np.float32) - low) * (255 / max(high - low, 1))
        frame = np.clip(stretched, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR if frame.ndim == 3 else cv2.COLOR_GRAY2BGR), np.uint8)


def draw(frame: npt.NDArray[Any], detections: Detections) -> Picture:
    """A picture (BGR, uint8, even sides) of a raw frame with a box, a cross outside of it and a score at each target.

    Frames narrower than 640 px are enlarged by a whole factor, and marks keep 4 px of distance, so that they stand
    around a target of three pixels and never upon it.
    """
    picture = displayable(frame)
    zoom = max(1, _SHOWN_WIDTH // picture.shape[1])
    canvas = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST)
    for box, score in zip(detections.boxes, detections.scores, strict=True):
        left, top = (int(v) for v in np.floor(box[:2] * zoom) - _GAP)
        right, bottom = (int(v) for v in np.ceil(box[2:] * zoom) + _GAP)
        cv2.rectangle(canvas, (left, top), (right, bottom), _COLOUR, 1)
        x, y = (left + right) // 2, (top + bottom) // 2
        for start, end in (
            ((left, y), (left - _ARM, y)),
            ((right, y), (right + _ARM, y)),
            ((x, top), (x, top - _ARM)),
            ((x, bottom), (x, bottom + _ARM)),
        ):
            cv2.line(canvas, start, end, _COLOUR, 1)
        _write_score(canvas, f"{score:.2f}", right + _ARM + 2, top)
    # Video encoders drop the last row or column of odd sizes.
    odd_rows, odd_columns = canvas.shape[0] % 2, canvas.shape[1] % 2
    return np.asarray(cv2.copyMakeBorder(canvas, 0, odd_rows, 0, odd_columns, cv2.BORDER_REPLICATE), np.uint8)


def _write_score(canvas: Picture, text: str, x: int, y: int) -> None:
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.4, 1)
    x = min(max(x, 0), max(canvas.shape[1] - width - 1, 0))
    y = min(max(y, height + 1), canvas.shape[0] - 1)
    # A dark rim keeps the figures legible on bright ground.
    cv2.putText(canvas, text, (x, y), _FONT, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(canvas, text, (x, y), _FONT, 0.4, _COLOUR, 1, cv2.LINE_AA)
