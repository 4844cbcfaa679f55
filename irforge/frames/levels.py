"""Levels of a frame: colour to gray, depth checks, gain control to 8 bits."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from irforge.contract import ClaheGain, Gain, InputSpec, MinMaxGain, PercentileGain
from irforge.errors import InputError
from irforge.frames.read import Frame

Colour = Literal["mean", "luma", "strict"]
OTHER_DEPTH = (
    "take a model of their depth: trained by a recipe with that 'bit_depth' under 'input', or written by"
    " 'irforge adopt --bit-depth'"
)
"""The remedy where frames have another depth than a contract."""


def to_gray(frame: Frame, colour: Colour = "mean", where: str = "frame") -> Frame:
    """H x W x 3 (RGB) or H x W x 1 -> H x W of the same dtype; a gray frame is returned as it is.

    Equal channels collapse exactly under every rule. `mean` rounds (R + G + B) / 3; `luma` is ITU-R 601 in Pillow's
    integers; `strict` refuses unequal channels.

    Raises:
        InputError: unequal channels under `strict`, or a shape that is no frame.
    """
    if frame.ndim == 2:
        return frame
    if frame.ndim != 3 or frame.shape[2] not in (1, 3):
        raise InputError(f"{where} has shape {frame.shape}", "A frame is H x W, or H x W x 3 as RGB")
    if frame.shape[2] == 1:
        return frame[:, :, 0]
    red, green, blue = cv2.split(frame)
    if np.array_equal(red, green) and np.array_equal(red, blue):
        gray: Frame = red
        return gray
    if colour == "strict":
        spread = int(np.abs(np.diff(frame.astype(np.int32), axis=2)).max())
        raise InputError(
            f"{where} is coloured: its channels differ by up to {spread} levels, and the contract says colour 'strict'",
            "Give frames whose channels are equal, or export with colour 'mean' or 'luma'",
        )
    wide = np.uint16 if colour == "mean" and frame.dtype == np.uint8 else np.uint32
    red, green, blue = (channel.astype(wide) for channel in (red, green, blue))
    if colour == "mean":
        level = (red + green + blue + 1) // 3
    else:
        level = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    mixed: Frame = level.astype(frame.dtype)
    return mixed


def check_depth(frame: Frame, spec: InputSpec, where: str = "frame") -> None:
    """Refuse levels that the contract's bit depth does not cover: a gain or a network tuned to others would run on.

    Raises:
        InputError: another dtype than the depth asks for, or levels above it.
    """
    wanted = np.uint8 if spec.bit_depth == 8 else np.uint16
    if frame.dtype != wanted:
        raise InputError(
            f"{where} holds {frame.dtype} levels, the contract asks for {spec.bit_depth}-bit frames"
            f" ({np.dtype(wanted)})",
            f"Give frames of that depth, or {OTHER_DEPTH}",
        )
    if 8 < spec.bit_depth < 16:
        highest = int(frame.max())
        if highest >> spec.bit_depth:
            raise InputError(
                f"{where} has level {highest}, above the {spec.bit_depth} bits of the contract",
                f"Give raw counts of that depth (not scaled to 16 bits), or {OTHER_DEPTH}",
            )


def apply_gain(gray: Frame, gain: Gain, bit_depth: int) -> npt.NDArray[np.uint8]:
    """Raw levels, H x W -> uint8 by the recorded gain control.

    `min-max` and `percentile` are linear between two levels of the frame, rounded, clipped; a flat frame becomes 0.
    The level at percentile p is the lowest one that at least p % of the pixels do not exceed. `clahe` first brings
    deeper frames to 8 bits as `min-max` does: where that costs levels, use a float32 door instead.
    """
    if isinstance(gain, MinMaxGain):
        return stretch(gray, int(gray.min()), int(gray.max()), bit_depth)
    if isinstance(gain, PercentileGain):
        low, high = percentile_levels(gray, gain.low, gain.high, bit_depth)
        return stretch(gray, low, high, bit_depth)
    if isinstance(gain, ClaheGain):
        plane = gray if gray.dtype == np.uint8 else stretch(gray, int(gray.min()), int(gray.max()), bit_depth)
        equalizer: Any = cv2.createCLAHE(gain.clip_limit, (gain.tiles, gain.tiles))
        equalized: npt.NDArray[np.uint8] = equalizer.apply(plane)
        return equalized
    return gray.astype(np.uint8, copy=False)


def percentile_levels(gray: Frame, low: float, high: float, bit_depth: int) -> tuple[int, int]:
    """The levels at two percentiles (0..100), as `apply_gain` takes them."""
    below = np.cumsum(np.bincount(gray.reshape(-1), minlength=1 << bit_depth))
    ranks = np.maximum(np.ceil(np.array((low, high)) / 100 * gray.size), 1)
    first, last = np.searchsorted(below, ranks)
    return int(first), int(last)


def stretch(gray: Frame, low: int, high: int, bit_depth: int) -> npt.NDArray[np.uint8]:
    """Levels from `low` to `high` become 0 to 255, rounded; what lies outside is clipped."""
    # A table over all levels is exact in integers and cheaper than arithmetic on each pixel.
    span = max(high - low, 1)
    levels = np.clip(np.arange(1 << bit_depth, dtype=np.int64) - low, 0, high - low)
    table = ((levels * 510 + span) // (2 * span)).astype(np.uint8)
    return table[gray]
