"""Cameras at this machine: USB cameras as they are, thermal cores with their raw counts."""

from __future__ import annotations

from functools import partial
from typing import Any

import cv2
import numpy as np

from irforge.errors import InputError, UsageError
from irforge.runtime.sources.base import Frame, Layout
from irforge.runtime.sources.live import Capture, CaptureSource

PATIENCE = 10.0
_Y16 = cv2.VideoWriter.fourcc(*"Y16 ")


class UsbCamera(CaptureSource):
    """`camera:0`: a camera by its number, as RGB frames of 8 bits; unplugged for 10 s, it is an error."""

    def __init__(self, number: str, layout: Layout) -> None:
        if not number.isdecimal():
            raise UsageError(f"'{number}' is no camera's number", "Write camera:0, or v4l2:/dev/video0 for raw counts")
        super().__init__(f"camera:{number}", partial(_open_camera, int(number), layout), PATIENCE)


class Y16Camera(CaptureSource):
    """`v4l2:/dev/video0`: the raw 16-bit counts of a thermal core that offers Y16 through Video4Linux (FLIR's Boson and
    Lepton, Seek, InfiRay), uint16, H x W, telemetry rows included."""

    def __init__(self, device: str, layout: Layout) -> None:
        super().__init__(f"v4l2:{device}", partial(_open_y16, device, layout), PATIENCE)

    def levels(self, picture: Any) -> Frame | None:
        """OpenCV gives Y16 as uint16 in some versions, and as bare bytes in others."""
        height, width = (int(self._capture.get(k)) for k in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        levels = np.ascontiguousarray(picture).reshape(-1).view("<u2")
        return levels.reshape(height, width).astype(np.uint16, copy=False) if levels.size == height * width else None


def _open_camera(number: int, layout: Layout) -> Capture:
    capture = cv2.VideoCapture(number)
    _ask_for(capture, layout)
    # What waits in the driver is old by the time it is read.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def _open_y16(device: str, layout: Layout) -> Capture:
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    if not capture.isOpened():
        return capture
    capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    capture.set(cv2.CAP_PROP_FOURCC, _Y16)
    if int(capture.get(cv2.CAP_PROP_FOURCC)) != _Y16:
        capture.release()
        raise InputError(
            f"v4l2:{device} does not give raw counts (Y16)",
            "'v4l2-ctl --list-formats-ext' says what it gives; camera:N reads 8-bit pictures",
        )
    _ask_for(capture, layout)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def _ask_for(capture: cv2.VideoCapture, layout: Layout) -> None:
    if layout.size is not None:
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, layout.size[0])
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, layout.size[1])
