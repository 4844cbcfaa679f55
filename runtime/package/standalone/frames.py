"""From a frame as stored to the tensor at the graph's door: what `irforge.frames` does, as the contract says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from irforge.frames.geometry import Geometry
from irforge.frames.resize import resize

Array = npt.NDArray[Any]
_SMALLEST_SIDE = 16


def read(paths: list[str]) -> Iterator[tuple[str, float | None, Array]]:
    """Name, time in a video, and levels as stored: uint8 or uint16, H x W, or H x W x 3 as RGB.

    Raises:
        ValueError: neither an image nor a video that OpenCV reads.
    """
    for path in map(Path, paths):
        content = np.frombuffer(path.read_bytes(), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if len(content) else None
        if image is not None:
            colours = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
            yield path.name, None, image if image.ndim == 2 else cv2.cvtColor(image, colours[image.shape[2]])
            continue
        video = cv2.VideoCapture(str(path))
        number, rate = 0, video.get(cv2.CAP_PROP_FPS)
        while (frame := video.read()[1]) is not None:
            yield path.name, number / rate if rate > 0 else None, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
        if not number:
            raise ValueError(f"'{path}' is neither an image nor a video that OpenCV reads")


def prepare(frame: Array, spec: dict[str, Any]) -> tuple[Array, Geometry]:
    """Levels as stored, H x W or H x W x 3 (RGB) -> the tensor [1, C, H, W], and where the frame lies in it.

    Args:
        spec: the contract's `input`.

    Raises:
        ValueError: a frame that the contract does not cover.
    """
    check(frame, spec)
    geometry = place(frame.shape[0], frame.shape[1], spec)
    plane = gray(frame, spec["colour"])
    on_host = spec["door"] == "uint8"
    plane = gained(plane, spec["gain"], spec["bit_depth"]) if on_host else plane.astype(np.float32)
    plane = resize(plane, geometry.content_height, geometry.content_width, spec["resize"])
    pad = min(max(math.floor(spec["pad_level"] + 0.5), 0), 255) if on_host else spec["pad_level"]
    tensor = np.full((1, 1, geometry.model_height, geometry.model_width), pad, plane.dtype)
    geometry.crop(tensor)[...] = plane
    return np.repeat(tensor, spec["channels"], axis=1), geometry


def check(frame: Array, spec: dict[str, Any]) -> None:
    """Refuse levels of another depth than the contract's: the network would run on, and be wrong."""
    bits = spec["bit_depth"]
    if frame.dtype != (np.uint8 if bits == 8 else np.uint16):
        raise ValueError(f"holds {frame.dtype} levels, the contract asks for {bits}-bit frames")
    if 8 < bits < 16 and int(frame.max()) >> bits:
        raise ValueError(f"has level {int(frame.max())}, above the {bits} bits of the contract")


def gray(frame: Array, colour: str) -> Array:
    """One plane of the same levels: mean and luma (ITU-R 601) round, strict takes no colour."""
    if frame.ndim == 2:
        return frame
    red, green, blue = np.moveaxis(frame.astype(np.int64), 2, 0)
    if (red == green).all() and (red == blue).all():
        return np.ascontiguousarray(frame[..., 0])
    if colour == "strict":
        raise ValueError("is coloured, and the contract says colour 'strict'")
    level = (red + green + blue + 1) // 3
    if colour == "luma":
        level = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return np.asarray(level, frame.dtype)


def gained(plane: Array, gain: dict[str, Any], bits: int) -> Array:
    """Gain control to 8 bits."""
    if gain["kind"] == "none":
        return plane
    if gain["kind"] == "percentile":
        below = np.cumsum(np.bincount(plane.reshape(-1), minlength=1 << bits))
        ranks = np.maximum(np.ceil(np.array((gain["low"], gain["high"])) / 100 * plane.size), 1)
        low, high = np.searchsorted(below, ranks).tolist()
        return stretched(plane, low, high, bits)
    if gain["kind"] == "clahe":
        levels = plane if bits == 8 else stretched(plane, int(plane.min()), int(plane.max()), bits)
        equalizer: Any = cv2.createCLAHE(gain["clip_limit"], (gain["tiles"], gain["tiles"]))
        return np.asarray(equalizer.apply(levels))
    return stretched(plane, int(plane.min()), int(plane.max()), bits)


def stretched(plane: Array, low: int, high: int, bits: int) -> Array:
    """Levels from `low` to `high` become 0 to 255, rounded; what lies outside is clipped."""
    span = max(high - low, 1)
    levels = np.clip(np.arange(1 << bits, dtype=np.int64) - low, 0, high - low)
    return ((levels * 510 + span) // (2 * span)).astype(np.uint8)[plane]


def eight_bit(frame: Array, spec: dict[str, Any]) -> Array:
    """A frame as an image encoder sees it: 8-bit frames as they are, deeper ones in gray, by the contract's `input`."""
    if frame.dtype == np.uint8:
        return frame
    gain = spec["gain"] if spec["gain"]["kind"] != "none" else {"kind": "min-max"}
    return gained(gray(frame, spec["colour"]), gain, spec["bit_depth"])


def place(height: int, width: int, spec: dict[str, Any]) -> Geometry:
    """Where a frame of this size lies in the tensor."""
    if min(height, width) < _SMALLEST_SIDE:
        raise ValueError(f"is {width}x{height}; the smallest side must be at least {_SMALLEST_SIDE} pixels")
    sides, fit = (spec["height"], spec["width"]), spec["fit"]
    if fit["kind"] == "pad-to-multiple":
        padded = [_padded(side, wanted, fit["multiple"]) for side, wanted in zip((height, width), sides, strict=True)]
        return Geometry(height, width, padded[0], padded[1], height, width)
    if fit["kind"] == "squash":
        return Geometry(height, width, *sides, *sides)
    factor = min(sides[0] / height, sides[1] / width)
    rows, columns = (
        min(side, max(1, math.floor(own * factor + 0.5))) for side, own in zip(sides, (height, width), strict=True)
    )
    return Geometry(height, width, *sides, rows, columns, (sides[0] - rows) // 2, (sides[1] - columns) // 2)


def _padded(side: int, wanted: Any, multiple: int) -> int:
    if isinstance(wanted, dict):
        step = math.lcm(multiple, wanted["multiple"])
        padded, limit = max(-(-side // step), -(-wanted["min"] // step)) * step, wanted["max"]
    else:
        padded, limit = max(side, wanted), wanted
    if padded > limit:
        raise ValueError(f"has a side of {side} pixels, the contract takes at most {limit} and does not resize")
    return int(padded)
