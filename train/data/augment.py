"""Random crops and changes of a gray frame with its truth; every function draws from the generator it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from irforge.train.recipe import Augment

Plane = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Boxes = npt.NDArray[np.float32]


def crop_origin(
    height: int,
    width: int,
    window: int,
    centres: npt.NDArray[np.float32],
    target_share: float,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Top-left corner (row, column) of a window of side `window` inside a frame.

    With probability `target_share`, and if there is a target, the window holds the centre of a random one of `centres`
    (rows of row, column), anywhere within its middle three quarters; otherwise it lies anywhere.
    """
    if len(centres) and rng.random() < target_share:
        row, column = centres[rng.integers(len(centres))]
        margin = window / 8
        top = row - rng.uniform(margin, window - margin)
        left = column - rng.uniform(margin, window - margin)
    else:
        top = rng.uniform(0, max(height - window, 0) + 1)
        left = rng.uniform(0, max(width - window, 0) + 1)
    return (
        int(np.clip(np.floor(top), 0, max(height - window, 0))),
        int(np.clip(np.floor(left), 0, max(width - window, 0))),
    )


@dataclass(frozen=True)
class Window:
    """A square part of a frame, `side` pixels wide, its corner at (`top`, `left`), and how it fills a crop.

    Inside the crop the part is `height` x `width` pixels, from the top left corner; the rest is filling.
    """

    top: int
    left: int
    side: int
    height: int
    width: int
    zoom: float

    def cut(self, levels: Plane, crop: int) -> npt.NDArray[np.float32]:
        """The crop's levels, float32 crop x crop; what lies beyond the frame is the part's mean level."""
        part = self._resized(self._part(levels).astype(np.float32))
        return _filled(part, crop, part.mean())

    def cut_mask(self, mask: Mask, crop: int) -> Mask:
        part = self._part(mask)
        if part.shape != (self.height, self.width):
            part = self._resized(part.astype(np.float32)) > 0.5
        return _filled(part, crop, False)

    def cut_boxes(self, boxes: Boxes, frame: tuple[int, int]) -> tuple[Boxes, npt.NDArray[np.intp]]:
        """Boxes [n, 4] of a frame (height, width) -> those whose centre lies in the crop, clipped to it and in its
        pixels, and their rows."""
        rows, columns = min(self.side, frame[0] - self.top), min(self.side, frame[1] - self.left)
        factors = np.array([self.width / columns, self.height / rows] * 2)
        moved = (boxes - (self.left, self.top, self.left, self.top)) * factors
        limits = np.array([self.width, self.height])
        centres = (moved[:, :2] + moved[:, 2:]) / 2
        kept = np.flatnonzero(((centres >= 0) & (centres < limits)).all(axis=1))
        clipped = np.clip(moved[kept], 0, np.tile(limits, 2))
        return clipped.astype(np.float32), kept

    def _part(self, plane: Plane) -> Plane:
        return plane[self.top : self.top + self.side, self.left : self.left + self.side]

    def _resized(self, part: Plane) -> Plane:
        if part.shape == (self.height, self.width):
            return part
        method = cv2.INTER_AREA if self.zoom < 1 else cv2.INTER_LINEAR
        return cv2.resize(part, (self.width, self.height), interpolation=method)


def _filled(part: Plane, crop: int, filling: Any) -> Plane:
    if part.shape == (crop, crop):
        return part
    full = np.full((crop, crop), filling, part.dtype)
    full[: part.shape[0], : part.shape[1]] = part
    return full


def random_window(
    frame: tuple[int, int],
    crop: int,
    centres: npt.NDArray[np.float32],
    augment: Augment,
    rng: np.random.Generator,
) -> Window:
    """Where to cut a crop of `crop` x `crop` pixels out of a frame (height, width), zoomed where `augment` says so."""
    height, width = frame
    zoom = 1.0
    if rng.random() < augment.scale_share:
        low, high = augment.scale
        zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    side = max(1, min(round(crop / zoom), max(height, width)))
    top, left = crop_origin(height, width, side, centres, augment.target_share, rng)
    rows, columns = min(side, height - top), min(side, width - left)
    if (rows, columns) != (crop, crop) and (zoom != 1.0 or side < crop):
        return Window(top, left, side, min(crop, round(rows * zoom)), min(crop, round(columns * zoom)), zoom)
    return Window(top, left, side, rows, columns, zoom)


def random_crop(
    levels: Plane, mask: Mask, size: int, centres: npt.NDArray[np.float32], augment: Augment, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], Mask]:
    """A size x size crop as float32 levels, zoomed by a random factor where `augment` says so.

    A crop larger than the frame is filled up with the frame's mean level, without target.
    """
    window = random_window((levels.shape[0], levels.shape[1]), size, centres, augment, rng)
    return window.cut(levels, size), window.cut_mask(mask, size)


def change_levels(levels: npt.NDArray[np.float32], augment: Augment, rng: np.random.Generator) -> Plane:
    """Gain about the mean, offset, blur and noise; clipped to 0..255."""
    changed = levels
    if rng.random() < augment.contrast_share:
        mean = changed.mean()
        gain = rng.uniform(1 - augment.gain, 1 + augment.gain)
        changed = (changed - mean) * np.float32(gain) + np.float32(mean + rng.uniform(-1, 1) * augment.offset)
    if rng.random() < augment.blur_share:
        changed = cv2.GaussianBlur(changed, (0, 0), max(rng.random(), 0.05))
    if rng.random() < augment.noise_share:
        deviation = np.float32(rng.random() * augment.noise)
        changed = changed + deviation * rng.standard_normal(changed.shape, dtype=np.float32)
    return changed if changed is levels else np.clip(changed, 0, 255)


@dataclass(frozen=True)
class Turn:
    """Flips, then a transposition, of a square sample."""

    across: bool
    down: bool
    transpose: bool

    def plane(self, plane: Plane) -> Plane:
        turned = plane[:: -1 if self.down else 1, :: -1 if self.across else 1]
        return np.ascontiguousarray(turned.T if self.transpose else turned)

    def boxes(self, boxes: Boxes, side: int) -> Boxes:
        """Boxes [n, 4] of a sample of `side` x `side` pixels."""
        x1, y1, x2, y2 = boxes.T
        if self.across:
            x1, x2 = side - x2, side - x1
        if self.down:
            y1, y2 = side - y2, side - y1
        order = (y1, x1, y2, x2) if self.transpose else (x1, y1, x2, y2)
        return np.stack(order, axis=1).astype(np.float32)


def random_turn(augment: Augment, rng: np.random.Generator) -> Turn:
    across = bool(augment.flip and rng.random() < 0.5)
    down = bool(augment.flip is True and rng.random() < 0.5)
    return Turn(across, down, bool(augment.transpose and rng.random() < 0.5))


def turn(levels: Plane, mask: Mask, augment: Augment, rng: np.random.Generator) -> tuple[Plane, Mask]:
    """Flips and transposition, the same for frame and mask."""
    chosen = random_turn(augment, rng)
    return chosen.plane(levels), chosen.plane(mask)
