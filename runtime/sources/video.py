"""Video files: by OpenCV where it gives every level, by PyAV where it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from irforge.errors import EnvironmentFault, InputError
from irforge.runtime.sources.base import Frame, Source, SourceFrame

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ts", ".mpg", ".mpeg", ".m2v", ".wmv"))
_HIGHEST_FPS = 1000

# FFmpeg inside OpenCV writes to stderr what we report in one line; it reads this when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def open_video(path: str) -> Source:
    """A video file with its levels as stored.

    OpenCV reads those of 8 bits. PyAV (`irforge[video]`) reads deeper ones, of which OpenCV would keep 8 bits, and
    those whose codec this OpenCV does not have.

    Raises:
        InputError: no such file, or neither reads it.
        EnvironmentFault: it needs PyAV, which is not installed.
    """
    if not Path(path).is_file():
        raise InputError(f"video '{path}' does not exist", "Check the path")
    capture = cv2.VideoCapture(path)
    depth = stored_bits(int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT))) if capture.isOpened() else 0
    if depth == 8:
        return VideoFile(path, capture)
    capture.release()
    av = _find_av()
    if av is not None:
        return DeepVideoFile(path, av)
    if depth:
        raise EnvironmentFault(
            f"video '{path}' stores {depth} bits a level, of which OpenCV would keep 8, and PyAV is not installed",
            "pip install 'irforge[video]'",
        )
    raise InputError(
        f"OpenCV cannot open the video '{path}'",
        "It may be cut short: copy or convert it again. PyAV (pip install 'irforge[video]') knows more codecs",
    )


class VideoFile(Source):
    """A video file read by OpenCV, as RGB frames of 8 bits.

    Every frame has the size of the first: where a stream changes its size, OpenCV scales the rest. A frame that cannot
    be decoded, or a file that ends early, is an error after the frames before it; damage that the decoder conceals, as
    those of H.264 do, is not told.
    """

    def __init__(self, path: str, capture: cv2.VideoCapture) -> None:
        self._path = path
        self._capture = capture
        self.name = Path(path).name
        # Raw streams have no index and report nonsense: a negative count, no rate or that of the clock.
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(count) if count > 0 else None
        self.fps = plausible_fps(capture.get(cv2.CAP_PROP_FPS))
        height, width = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        self.size = int(height), int(width)

    def records(self) -> Iterator[SourceFrame]:
        index = 0
        while True:
            found, frame = self._capture.read()
            if not found:
                # OpenCV gives up at a damaged frame as at the end, but goes on behind it.
                if self._capture.grab():
                    raise _damaged(self._path, index, "it cannot be decoded")
                break
            seconds = index / self.fps if self.fps else None
            yield SourceFrame(index, self.name, seconds, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame))
            index += 1
        _refuse_short(self._path, index, self.frames)

    def close(self) -> None:
        self._capture.release()


class DeepVideoFile(Source):
    """A video file read by PyAV: FFV1 of 8 to 16 bits, H.264, H.265 and whatever else its FFmpeg decodes.

    More than 8 bits a level come as uint16 raw counts, H x W: the gray or luma plane as stored, neither scaled to 16
    bits nor stretched from video range. 8-bit gray comes as H x W, colour as RGB. Frames keep their own size where a
    stream changes it. A damaged frame, or a file that ends early, is an error after the frames before it.
    """

    def __init__(self, path: str, av: Any) -> None:
        self._path = path
        self._av = av
        self.name = Path(path).name
        try:
            self._container = av.open(path)
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"PyAV cannot open the video '{path}': {_reason(error)}",
                "It may be cut short: copy or convert it again",
            ) from None
        if not self._container.streams.video:
            self.close()
            raise InputError(f"'{path}' holds no video", "Name a file with a video stream")
        stream = self._container.streams.video[0]
        # Slices add no delay, unlike whole frames decoded side by side.
        stream.thread_type = "SLICE"
        rate = stream.average_rate or 0
        self.fps = plausible_fps(float(rate))
        length = self._container.duration
        self.frames = stream.frames or (round(length / av.time_base * rate) if length and self.fps else 0) or None
        self.size = stream.codec_context.height, stream.codec_context.width

    def records(self) -> Iterator[SourceFrame]:
        index, start = 0, None
        decoded = self._container.decode(video=0)
        while True:
            try:
                picture = next(decoded, None)
            except self._av.FFmpegError as error:
                raise _damaged(self._path, index, _reason(error)) from None
            if picture is None:
                break
            if picture.is_corrupt:
                raise _damaged(self._path, index, "its data does not match its checksum or ends early")
            start = picture.time if start is None else start
            seconds = None if picture.time is None or start is None else float(picture.time - start)
            yield SourceFrame(index, self.name, seconds, _levels(picture, self._path))
            index += 1
        _refuse_short(self._path, index, self.frames)

    def close(self) -> None:
        self._container.close()


def plausible_fps(rate: float) -> float | None:
    """A rate that a video or a camera reports, or None where it is none."""
    return float(rate) if 0 < rate <= _HIGHEST_FPS else None


def _levels(picture: Any, path: str) -> Frame:
    form = picture.format
    bits = form.components[0].bits
    if bits <= 8:
        frame: Frame = picture.to_ndarray(format="gray" if form.name == "gray" else "rgb24")
        return frame
    if form.is_rgb or bits > 16:
        raise InputError(
            f"video '{path}' stores colour of {bits} bits ({form.name})", "Store deep frames as gray: gray16le in FFV1"
        )
    plane = picture.planes[0]
    order = ">u2" if form.name.endswith("be") else "<u2"
    rows = np.frombuffer(plane, order).reshape(plane.height, plane.line_size // 2)
    return rows[:, : plane.width].astype(np.uint16)


def _damaged(path: str, index: int, reason: str) -> InputError:
    return InputError(f"frame {index} of video '{path}' is damaged: {reason}", "Copy or record it again")


def _refuse_short(path: str, index: int, expected: int | None) -> None:
    # Containers count a frame or two that decoders do not show.
    if index == 0 or (expected is not None and index < expected - max(2, expected // 50)):
        raise InputError(
            f"video '{path}' ends after {index} of {expected or 'its'} frames",
            "It is cut short or damaged: copy or convert it again",
        )


def stored_bits(fourcc: int) -> int:
    """Bits a level of FFmpeg's raw-format tag 'Y1' 0 16, or reversed where big endian; 8 for every other tag."""
    tag = (fourcc & 0xFFFFFFFF).to_bytes(4, "little")
    for letter, components, _, bits in (tag, tag[::-1]):
        if letter == ord("Y") and components in b"1234" and 8 < bits <= 16:
            return bits
    return 8


def _find_av() -> Any:
    try:
        import av
    except ModuleNotFoundError:
        return None
    av.logging.set_level(None)
    return av


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error)
