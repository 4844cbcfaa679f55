"""Random crops and changes of a gray frame with its mask; every function draws from the generator it is given."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from irforge.train.recipe import Augment

Plane = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


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


def random_crop(
    levels: Plane, mask: Mask, size: int, centres: npt.NDArray[np.float32], augment: Augment, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], Mask]:
    """A size x size crop as float32 levels, zoomed by a random factor where `augment` says so.

    A crop larger than the frame is filled up with the frame's mean level, without target.
    """
    height, width = levels.shape
    zoom = 1.0
    if rng.random() < augment.scale_share:
        low, high = augment.scale
        zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    window = max(1, min(round(size / zoom), max(height, width)))
    top, left = crop_origin(height, width, window, centres, augment.target_share, rng)
    cut = levels[top : top + window, left : left + window].astype(np.float32)
    cut_mask = mask[top : top + window, left : left + window]
    if cut.shape != (size, size) and (zoom != 1.0 or window < size):
        side = (min(size, round(cut.shape[1] * zoom)), min(size, round(cut.shape[0] * zoom)))
        method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        cut = cv2.resize(cut, side, interpolation=method)
        cut_mask = cv2.resize(cut_mask.astype(np.float32), side, interpolation=method) > 0.5
    if cut.shape != (size, size):
        full = np.full((size, size), cut.mean(), np.float32)
        full_mask = np.zeros((size, size), bool)
        full[: cut.shape[0], : cut.shape[1]] = cut
        full_mask[: cut.shape[0], : cut.shape[1]] = cut_mask
        cut, cut_mask = full, full_mask
    return cut, cut_mask


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


def turn(levels: Plane, mask: Mask, augment: Augment, rng: np.random.Generator) -> tuple[Plane, Mask]:
    """Flips and transposition, the same for frame and mask."""
    if augment.flip and rng.random() < 0.5:
        levels, mask = levels[:, ::-1], mask[:, ::-1]
    if augment.flip and rng.random() < 0.5:
        levels, mask = levels[::-1], mask[::-1]
    if augment.transpose and rng.random() < 0.5:
        levels, mask = levels.T, mask.T
    return np.ascontiguousarray(levels), np.ascontiguousarray(mask)
