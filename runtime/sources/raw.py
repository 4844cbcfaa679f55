"""Raw files: frame after frame of bare levels, as recorders of thermal cameras write them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from irforge.errors import InputError, UsageError
from irforge.frames.levels import OTHER_DEPTH
from irforge.runtime.sources.base import Frame, Layout, Source, SourceFrame

_COUNTS = ".y16"
RAW_SUFFIXES = frozenset((_COUNTS, ".raw"))


class RawFile(Source):
    """A file of frames without any header; `layout` says how they lie. Read frame by frame.

    A `.y16` file has two bytes a level, whatever the depth.

    Raises:
        UsageError: no size given.
        InputError: a `.y16` file for frames of 8 bits; the file's length is not a whole number of such frames; or,
            while reading, a level above the bit depth, which is what another byte order looks like.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        if layout.size is None:
            raise UsageError(f"'{path}' does not say how large its frames are", "Give --size WIDTHxHEIGHT, as stored")
        if layout.bit_depth == 8 and Path(path).suffix.lower() == _COUNTS:
            raise InputError(
                f"'{path}' holds uint16 levels, 8-bit frames (uint8) are asked for",
                f"Give frames of that depth, or {OTHER_DEPTH}",
            )
        height, width = layout.size
        self._path = path
        self._layout = layout
        self._dtype = np.dtype("u1" if layout.bit_depth == 8 else ">u2" if layout.big_endian else "<u2")
        self._bytes = height * width * self._dtype.itemsize
        length = _length(path)
        if length == 0 or length % self._bytes:
            raise InputError(
                f"'{path}' holds {length} bytes, which is no whole number of frames of {width}x{height} at"
                f" {self._dtype.itemsize} bytes a level",
                "Check --size (telemetry rows count) and --bit-depth, or whether the recording was cut short",
            )
        self.name = Path(path).name
        self.frames = length // self._bytes
        self.size = layout.size

    def records(self) -> Iterator[SourceFrame]:
        assert self.frames is not None
        with open(self._path, "rb") as handle:
            for index in range(self.frames):
                content = handle.read(self._bytes)
                if len(content) < self._bytes:
                    raise InputError(f"'{self._path}' became shorter while it was read", "Let the recording end first")
                yield SourceFrame(index, self.name, None, self._frame(content, index))

    def _frame(self, content: bytes, index: int) -> Frame:
        assert self.size is not None
        levels = np.frombuffer(content, self._dtype).reshape(self.size)
        frame: Frame = levels if self._dtype.itemsize == 1 else levels.astype(np.uint16)
        highest = int(frame.max())
        if highest >> self._layout.bit_depth:
            raise InputError(
                f"frame {index} of '{self._path}' has level {highest}, above {self._layout.bit_depth} bits",
                "Check --bit-depth, --size and the byte order (--big-endian)",
            )
        return frame


def _length(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}", "Check the path") from None
