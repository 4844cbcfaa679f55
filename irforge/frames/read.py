"""Frames and masks from files, with their levels and channels as stored."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
import numpy.typing as npt

from irforge.errors import InputError
from irforge.frames.geometry import centre_samples

Frame = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

FRAME_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"))

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_REMEDY = "Copy or make the file again; frames are PNG, JPEG, TIFF or BMP of 8 or 16 bits"


def read_frame(path: str | os.PathLike[str]) -> Frame:
    """A frame as stored: uint8 or uint16, H x W, or H x W x 3 as RGB; of a TIFF with several pages the first.

    Palettes become colours and an alpha channel is dropped; nothing else is changed: no scaling, no rotation by EXIF.

    Raises:
        InputError: missing, truncated, damaged, no image, or levels that are not 8- or 16-bit unsigned.
    """
    data = _bytes(path)
    with _quiet_decoder(data):
        try:
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        except cv2.error:
            image = None
    return _unshifted(_checked(image, path), data)


def read_pages(path: str | os.PathLike[str]) -> list[Frame]:
    """All pages of a TIFF, each as `read_frame` gives it; of another file its one frame.

    Raises:
        InputError: as `read_frame`.
    """
    data = _bytes(path)
    if not data[:4].tobytes().startswith(_TIFF):
        return [read_frame(path)]
    with _quiet_decoder(data):
        try:
            complete, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED)
        except cv2.error:
            complete, pages = False, ()
    return [_unshifted(_checked(page if complete else None, path), data) for page in pages or (None,)]


def frame_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of a frame; a PNG or JPEG is not decoded for it.

    Raises:
        InputError: as `read_frame`.
    """
    try:
        with open(path, "rb") as handle:
            head = handle.read(24)
            size = _jpeg_size(handle) if head.startswith(b"\xff\xd8") else None
    except OSError as error:
        raise InputError(f"cannot read '{os.fspath(path)}': {error.strerror}", "Check the path") from None
    if head.startswith(_PNG) and len(head) == 24:
        return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")
    height, width = size or read_frame(path).shape[:2]
    return height, width


def read_mask(path: str | os.PathLike[str]) -> npt.NDArray[np.bool_]:
    """A target mask, bool H x W, from gray, palette or RGB files.

    A pixel is target where its brightest channel is above half of full scale (127 of 255), or above 0 where the
    file's highest level is 1. So grey edge pixels of smoothed masks are decided at the half.

    Raises:
        InputError: as `read_frame`, or the levels are neither 0/1 nor reach the upper half (label numbers, say).
    """
    levels = read_frame(path)
    if levels.ndim == 3:
        levels = levels.max(axis=2)
    highest = int(levels.max())
    if highest <= 1:
        return levels > 0
    half = 127 if highest <= 255 else 32767
    if highest <= half:
        raise InputError(
            f"mask '{os.fspath(path)}' has levels up to {highest}, neither 0/1 nor 0/255",
            "Store masks as 0 and 255",
        )
    return levels > half


def resize_mask(mask: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.bool_]:
    """A mask at another size by Pillow's NEAREST: each pixel takes the source pixel under its centre.

    The published protocols score on masks resized so: halving keeps the odd rows and columns, where
    OpenCV's INTER_NEAREST keeps the even ones.
    """
    rows = centre_samples(mask.shape[0], height)
    columns = centre_samples(mask.shape[1], width)
    return mask[rows[:, None], columns]


def _bytes(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    try:
        # Not cv2.imread: it cannot open every path, and it fills what a truncated file lacks without a word.
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read '{os.fspath(path)}': {error.strerror}", "Check the path") from None
    if not content:
        raise InputError(f"'{os.fspath(path)}' is empty", _REMEDY)
    if content.startswith(_PNG):
        fault = _png_fault(content)
    elif content.startswith(_JPEG):
        fault = _jpeg_fault(content)
    else:
        fault = ""
    if fault:
        raise InputError(f"'{os.fspath(path)}' is {fault}", _REMEDY)
    return np.frombuffer(content, np.uint8)


def _png_fault(content: bytes) -> str:
    """What is wrong with a PNG's chunks, or nothing: decoders differ in what they do about it."""
    at = len(_PNG)
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        end = at + 12 + length
        if end > len(content):
            return "a truncated PNG"
        kind = content[at + 4 : at + 8]
        if zlib.crc32(content[at + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return f"a damaged PNG (checksum of its {kind.decode('latin-1')} chunk)"
        if kind == b"IEND":
            return ""
        at = end
    return "a truncated PNG"


def _jpeg_fault(content: bytes) -> str:
    """Nothing if an end marker follows the scan; a thumbnail's own end marker lies before it."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            return "" if content.find(b"\xff\xd9", at) >= 0 else "a truncated JPEG"
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return "a truncated JPEG"


def _jpeg_size(handle: BinaryIO) -> tuple[int, int] | None:
    """(height, width) from the frame header, the first of the SOF segments; None where there is none in sight."""
    at = 2
    while True:
        handle.seek(at)
        head = handle.read(9)
        if len(head) < 9 or head[0] != 0xFF:
            return None
        if head[1] in range(0xC0, 0xD0) and head[1] not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[5:7], "big"), int.from_bytes(head[7:9], "big")
        at += 1 if head[1] == 0xFF else 2 + int.from_bytes(head[2:4], "big")


def _checked(image: Any, path: str | os.PathLike[str]) -> Frame:
    name = os.fspath(path)
    if image is None:
        raise InputError(f"'{name}' is no image that can be read", _REMEDY)
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"'{name}' holds {image.dtype} levels", "Store frames as unsigned 8- or 16-bit levels (raw counts)"
        )
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4):
        raise InputError(f"'{name}' has {image.shape[2]} channels", "Store frames as gray or RGB")
    frame: Frame = image
    if image.ndim == 3:
        channels = image.shape[2]
        swap = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGB
        frame = image[:, :, 0] if channels == 1 else cv2.cvtColor(image, swap)
    return frame


def _unshifted(frame: Frame, data: npt.NDArray[np.uint8]) -> Frame:
    """OpenCV moves the levels of TIFFs packed in 10, 12 or 14 bits to the top of 16 bits: back to raw counts."""
    bits = _tiff_bits(data.tobytes()) if data[:4].tobytes() in _TIFF and frame.dtype == np.uint16 else 16
    return np.right_shift(frame, 16 - bits).astype(np.uint16) if 8 < bits < 16 else frame


def _tiff_bits(content: bytes) -> int:
    """BitsPerSample of a TIFF's first page; 16 where it is not stated."""
    order: Literal["little", "big"] = "little" if content.startswith(b"II") else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(content[at : at + size], order)

    wide = number(2, 2) == 43
    directory = number(8, 8) if wide else number(4, 4)
    head, entry, inline = (8, 20, 8) if wide else (2, 12, 4)
    for k in range(number(directory, head)):
        at = directory + head + k * entry
        if number(at, 2) == 258:
            value = at + entry - inline
            held_elsewhere = 2 * number(at + 4, entry - 4 - inline) > inline
            return number(number(value, inline) if held_elsewhere else value, 2)
    return 16


_LOG_LOCK = threading.Lock()


@contextmanager
def _quiet_decoder(data: npt.NDArray[np.uint8]) -> Iterator[None]:
    """OpenCV's decoders log to stderr what we report in one line. PNG and JPEG are checked before, and need no lock."""
    if data[:8].tobytes().startswith((_PNG, _JPEG)):
        yield
        return
    logging = cv2.utils.logging
    with _LOG_LOCK:
        level = logging.getLogLevel()
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            logging.setLogLevel(level)
