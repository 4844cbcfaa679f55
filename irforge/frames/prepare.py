"""The one way from a raw frame to the tensor at a graph's door."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.contract import InputSpec, Letterbox, PadToMultiple, Range, Squash
from irforge.errors import InputError, UsageError
from irforge.frames.geometry import Geometry
from irforge.frames.levels import apply_gain, check_depth, to_gray
from irforge.frames.read import Frame
from irforge.frames.resize import resize

Tensor = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

SMALLEST_SIDE = 16


def prepare(frame: Frame, spec: InputSpec, where: str = "frame") -> tuple[Tensor, Geometry]:
    """A raw frame -> the tensor [1, C, H, W] that a contract's input asks for, and where the frame lies in it.

    In this order: bit depth check, colour to gray, gain control (uint8 door only; behind a float32 door it is part of
    the graph), resize by the fit, padding with `pad_level`, the gray plane repeated for three channels.

    Args:
        frame: uint8 or uint16, H x W or H x W x 3 (RGB), as `read_frame` gives it.
        spec: `contract.input`.
        where: what to call the frame in errors: its path, say.

    Returns:
        A C-contiguous tensor of the door's dtype; it shares the frame's memory where nothing had to be changed.

    Raises:
        InputError: wrong bit depth, unequal channels under `strict`, a side below 16 pixels, or larger than the input.
        UsageError: fit `tile`: a tile is not a frame.
    """
    geometry = fit_geometry(frame.shape[0], frame.shape[1], spec, where)
    check_depth(frame, spec, where)
    gray = to_gray(frame, spec.colour, where)
    on_host = spec.door == "uint8"
    plane: npt.NDArray[Any] = apply_gain(gray, spec.gain, spec.bit_depth) if on_host else gray.astype(np.float32)
    plane = resize(plane, geometry.content_height, geometry.content_width, spec.resize)
    if plane.shape != (geometry.model_height, geometry.model_width):
        canvas = np.full((geometry.model_height, geometry.model_width), _pad_value(spec), plane.dtype)
        geometry.crop(canvas)[...] = plane
        plane = canvas
    tensor = np.ascontiguousarray(plane)[None, None]
    return (tensor if spec.channels == 1 else np.repeat(tensor, spec.channels, axis=1)), geometry


def prepare_batch(frames: Sequence[Frame], spec: InputSpec, where: Sequence[str] = ()) -> tuple[Tensor, list[Geometry]]:
    """Several frames -> one tensor [N, C, H, W] and a geometry for each.

    Raises:
        InputError: as `prepare`, or a dynamic input gives the frames different sizes.
    """
    names = where or [f"frame {i} of the batch" for i in range(len(frames))]
    prepared = [prepare(frame, spec, name) for frame, name in zip(frames, names, strict=True)]
    if not prepared:
        raise UsageError("a batch needs at least one frame")
    for (tensor, _), name in zip(prepared, names, strict=True):
        if tensor.shape != prepared[0][0].shape:
            raise InputError(
                f"{name} becomes {tensor.shape[3]}x{tensor.shape[2]}, the first of its batch"
                f" {prepared[0][0].shape[3]}x{prepared[0][0].shape[2]}",
                "Batch frames of one size, or use a batch of one",
            )
    return np.concatenate([tensor for tensor, _ in prepared]), [geometry for _, geometry in prepared]


def fit_geometry(height: int, width: int, spec: InputSpec, where: str = "frame") -> Geometry:
    """Where a frame of `height` x `width` lies in the tensor that `spec` asks for; no pixel is touched.

    Raises:
        InputError, UsageError: as `prepare`.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{where} is {width}x{height}; the smallest side must be at least {SMALLEST_SIDE} pixels",
            "Give whole frames",
        )
    fit = spec.fit
    if isinstance(fit, Squash):
        model_height, model_width = spec.size
        return Geometry(height, width, model_height, model_width, model_height, model_width)
    if isinstance(fit, Letterbox):
        model_height, model_width = spec.size
        factor = min(model_height / height, model_width / width)
        content_height = min(model_height, max(1, math.floor(height * factor + 0.5)))
        content_width = min(model_width, max(1, math.floor(width * factor + 0.5)))
        top, left = (model_height - content_height) // 2, (model_width - content_width) // 2
        return Geometry(height, width, model_height, model_width, content_height, content_width, top, left)
    if isinstance(fit, PadToMultiple):
        model_height = _padded(height, spec.height, fit.multiple, "high", where)
        model_width = _padded(width, spec.width, fit.multiple, "wide", where)
        return Geometry(height, width, model_height, model_width, height, width)
    raise UsageError(
        "fit 'tile' cuts a frame into several tensors, and this irforge prepares one tensor a frame",
        "Export with fit 'squash', 'letterbox' or 'pad-to-multiple'",
    )


def _padded(side: int, wanted: int | Range, multiple: int, word: str, where: str) -> int:
    if isinstance(wanted, Range):
        step = math.lcm(multiple, wanted.multiple)
        padded = max(math.ceil(side / step) * step, math.ceil(wanted.min / step) * step)
        limit = wanted.max
    else:
        padded, limit = max(side, wanted), wanted
    if padded > limit:
        raise InputError(
            f"{where} is {side} pixels {word}, the contract takes at most {limit} and does not resize",
            "Give smaller frames, or export with a larger --size",
        )
    return padded


def _pad_value(spec: InputSpec) -> float:
    if spec.door == "float32":
        return spec.pad_level
    return min(max(math.floor(spec.pad_level + 0.5), 0), 255)
