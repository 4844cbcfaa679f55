"""Overlays: detections drawn onto frames, as a video or as pictures."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from irforge.detections import Detections
from irforge.errors import EnvironmentFault, InputError, UsageError
from irforge.files import PARTIAL, replacing
from irforge.runtime.drawing import Picture, draw
from irforge.runtime.sinks.base import Sink
from irforge.runtime.sources import SourceFrame
from irforge.runtime.tracking.tracked import NO_TRACK, Tracked

_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_FPS = 25.0
_KEPT_CLEAR = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def overlay_sink(path: str | os.PathLike[str], fps: float | None) -> Sink:
    """An overlay by the look of its path: a video where it ends like one, a folder of PNG files without a suffix.

    Raises:
        UsageError: a suffix that no encoder here writes.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _CODECS:
        return OverlayVideo(path, fps)
    if suffix:
        raise UsageError(
            f"cannot write an overlay called '{path}'",
            f"Name a video ({', '.join(_CODECS)}), or a folder for pictures, without a suffix",
        )
    return OverlayImages(path)


class OverlayVideo:
    """A video of the frames with marks on them, at the source's rate or 25 frames a second where it has none.

    The first frame decides the size; later ones of another size are scaled to it.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float | None) -> None:
        self._path = Path(path)
        self._fps = fps or _FPS
        self._stack = ExitStack()
        self._writer: Any = None
        self._written = 0

    def __enter__(self) -> OverlayVideo:
        self._temporary = self._stack.enter_context(replacing(self._path))
        self._stack.push(self._finish)
        return self

    def write(self, record: SourceFrame, detections: Detections) -> None:
        picture = draw_tracks(record, detections)
        if self._writer is None:
            self._size = picture.shape[1], picture.shape[0]
            codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._temporary), codec, self._fps, self._size)
            if not self._writer.isOpened():
                raise EnvironmentFault(
                    f"OpenCV cannot write the video '{self._path}'",
                    "Check the folder and its permissions; 'irforge doctor' says which codecs are here",
                )
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(picture)
        self._written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _finish(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._writer is not None:
            self._writer.release()
        if error is not None:
            return
        if not self._written:
            raise InputError(f"there is no video '{self._path}': no frame came", "Check the source, and --limit")
        # OpenCV's writer never reports a failed write: a full disk shows in what can be read back.
        capture = cv2.VideoCapture(str(self._temporary))
        found = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
        capture.release()
        if found < self._written:
            raise EnvironmentFault(
                f"the video '{self._path}' could not be written whole",
                "Free some space on that file system, or write elsewhere with --overlay",
            )


class OverlayImages:
    """A folder of PNG files, one a frame, named by number and frame; files of other names stay where they are."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def __enter__(self) -> OverlayImages:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self._folder.with_name(f".{self._folder.name}.{secrets.token_hex(4)}{PARTIAL}")
        self._temporary.mkdir()
        return self

    def write(self, record: SourceFrame, detections: Detections) -> None:
        encoded, content = cv2.imencode(".png", draw_tracks(record, detections))
        assert encoded
        # The folder as a whole gets its name in the end; to sync each file would cost more than to draw it.
        (self._temporary / f"{record.index:06d}_{Path(record.id).stem}.png").write_bytes(content.tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._folder.mkdir(exist_ok=True)
                for path in sorted(self._temporary.iterdir()):
                    path.replace(self._folder / path.name)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


def draw_tracks(record: SourceFrame, detections: Detections) -> Picture:
    """As `irforge.runtime.drawing.draw`, with the number of each track and the way it came, 4 px away from any box."""
    picture = draw(record.frame, detections)
    if not isinstance(detections, Tracked):
        return picture
    zoom = picture.shape[1] // record.frame.shape[1]
    lows, highs = detections.boxes[:, :2] * zoom - _KEPT_CLEAR, detections.boxes[:, 2:] * zoom + _KEPT_CLEAR
    for low, high, track in zip(lows, highs, detections.tracks.tolist(), strict=True):
        if track == NO_TRACK:
            continue
        colour = track_colour(track)
        trail = detections.trails.get(track, np.empty((0, 2), np.float32)) * zoom
        on_target = ((trail[:, None] > lows) & (trail[:, None] < highs)).all(axis=2).any(axis=1)
        for k, (one, following) in enumerate(pairwise(trail.astype(int).tolist())):
            if not on_target[k : k + 2].any():
                cv2.line(picture, one, following, colour, 1, cv2.LINE_AA)
        place = int(low[0]), min(int(np.ceil(high[1])) + 14, picture.shape[0] - 1)
        cv2.putText(picture, f"#{track}", place, _FONT, 0.4, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(picture, f"#{track}", place, _FONT, 0.4, colour, 1, cv2.LINE_AA)
    return picture


def track_colour(track: int) -> tuple[int, int, int]:
    """BGR, bright, and far apart for tracks of neighbouring numbers: hues at the golden angle."""
    hue = round(track * 137.508 % 360 / 2)
    blue, green, red = cv2.cvtColor(np.array([[[hue, 160, 255]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return int(blue), int(green), int(red)
