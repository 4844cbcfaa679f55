"""What every backend checks before it runs: names, dtypes and shapes of feeds and of output arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irforge.errors import InputError
from irforge.session import Array, TensorInfo


def check_feeds(inputs: Mapping[str, TensorInfo], feeds: Mapping[str, Array]) -> dict[str, int]:
    """Check the feeds of one run and return the size that each free dimension takes in it.

    Raises:
        InputError: a feed is missing, unknown, no array, or of the wrong dtype or shape.
    """
    if inputs.keys() != feeds.keys():
        raise InputError(f"the graph takes {_names(inputs)}, but was fed {_names(feeds)}")
    sizes: dict[str, int] = {}
    for name, info in inputs.items():
        _check(f"feed '{name}'", "the graph takes", info, feeds[name], sizes)
    return sizes


def check_out(outputs: Mapping[str, TensorInfo], out: Mapping[str, Array], sizes: Mapping[str, int]) -> None:
    """Check the arrays that results are to be written into; a subset of the outputs will do.

    Raises:
        InputError: an array is unknown, not writable, not C-contiguous, or of the wrong dtype or shape.
    """
    known = dict(sizes)
    for name, array in out.items():
        if name not in outputs:
            raise InputError(f"the graph has no output '{name}', it returns {_names(outputs)}")
        _check(f"the array for output '{name}'", "the graph returns", outputs[name], array, known)
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise InputError(f"the array for output '{name}' must be C-contiguous and writable")


def describe(info: TensorInfo) -> str:
    """For example 'uint8 N x 1 x 256 x 256'."""
    return f"{info.dtype} {_shape(info.shape)}"


def _check(what: str, expects: str, info: TensorInfo, array: Array, sizes: dict[str, int]) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{what} is a {type(array).__name__}, {expects} an array, {describe(info)}")
    fits = array.dtype.name == info.dtype and array.ndim == len(info.shape)
    if fits:
        for expected, size in zip(info.shape, array.shape, strict=True):
            wanted = sizes.setdefault(expected, size) if isinstance(expected, str) else expected
            fits = fits and size == wanted and size > 0
    if not fits:
        raise InputError(f"{what} is {array.dtype.name} {_shape(array.shape)}, {expects} {_resolved(info, sizes)}")


def _resolved(info: TensorInfo, sizes: Mapping[str, int]) -> str:
    free = sorted({d for d in info.shape if isinstance(d, str) and d in sizes})
    note = f" with {', '.join(f'{d} = {sizes[d]}' for d in free)} in this run" if len(free) > 1 else ""
    return describe(info) + note


def _shape(shape: tuple[int | str, ...]) -> str:
    return " x ".join(str(d) for d in shape) or "scalar"


def _names(tensors: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" for name in tensors) or "nothing"
