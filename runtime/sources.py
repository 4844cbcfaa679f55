"""Where frames come from: image folders, globs, single images and video files behind one small interface."""

from __future__ import annotations

import glob
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from irforge.datasets import open_dataset
from irforge.datasets.layout import natural_key
from irforge.errors import InputError
from irforge.frames import FRAME_SUFFIXES, frame_size, read_frame, read_pages

Frame = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ts", ".mpg", ".mpeg", ".m2v", ".wmv"))
_TIFF_SUFFIXES = (".tif", ".tiff")
_HIGHEST_FPS = 1000

# FFmpeg inside OpenCV writes to stderr what we report in one line; it reads this when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A raw frame and where it comes from: its number in the source, the image's or video's name, the media time."""

    index: int
    id: str
    seconds: float | None
    frame: Frame


class Source(ABC):
    """A run of raw frames, H x W or H x W x 3 (RGB), uint8 or uint16; use it once, in a `with`.

    `frames` is how many there should be, `fps` their rate and `size` their (height, width); each is None where the
    source does not know. Images may differ in size.
    """

    name: str
    frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None

    @abstractmethod
    def records(self) -> Iterator[SourceFrame]:
        """The frames, each with its number, name and time."""

    def __iter__(self) -> Iterator[Frame]:
        return (record.frame for record in self.records())

    def close(self) -> None:
        """Give back what the source holds open."""
        return

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(path: str | os.PathLike[str]) -> Source:
    """Open frames by path.

    Args:
        path: a video file, an image, a TIFF with pages, a pattern such as `frames/*.png`, or a folder of images or
            dataset (`PATH[:SPLIT]` or `NAME[:SPLIT]`, see `irforge.datasets.open_dataset`).

    Raises:
        InputError: nothing there, no frames in it, or a video that OpenCV cannot decode, or not without loss.
        UsageError: no dataset or split of that name.
    """
    text = os.fspath(path)
    suffix = Path(text).suffix.lower()
    if any(mark in text for mark in "*?[") and not Path(text).exists():
        return ImageFiles(_matching(text), text)
    if suffix in VIDEO_SUFFIXES and not Path(text).is_dir():
        return VideoFile(text)
    if suffix in _TIFF_SUFFIXES:
        return TiffPages(text)
    if suffix in FRAME_SUFFIXES:
        return ImageFiles([Path(text)], Path(text).name)
    if Path(text).is_file():
        known = ", ".join(sorted(FRAME_SUFFIXES | VIDEO_SUFFIXES))
        raise InputError(f"'{text}' is neither an image nor a video by its name", f"Known are {known}")
    dataset = open_dataset(text)
    return ImageFiles([sample.frame_path for sample in dataset], dataset.root.name)


class ImageFiles(Source):
    """Image files in the order given; a frame's id is its file name."""

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        self.frames = len(paths)
        self.size = frame_size(paths[0])
        self._paths = list(paths)

    def records(self) -> Iterator[SourceFrame]:
        for index, path in enumerate(self._paths):
            yield SourceFrame(index, path.name, None, read_frame(path))


class TiffPages(Source):
    """The pages of one TIFF file, held in memory."""

    def __init__(self, path: str) -> None:
        self._pages = read_pages(path)
        self.name = Path(path).name
        self.frames = len(self._pages)
        height, width = self._pages[0].shape[:2]
        self.size = height, width

    def records(self) -> Iterator[SourceFrame]:
        for index, page in enumerate(self._pages):
            yield SourceFrame(index, self.name, None, page)


class VideoFile(Source):
    """A video file read by OpenCV, as RGB frames of 8 bits.

    Every frame has the size of the first: where a stream changes its size, OpenCV scales the rest. A file that ends
    early is an error, after the frames it does hold.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise InputError(f"video '{path}' does not exist", "Check the path")
        self._path = path
        self._capture = cv2.VideoCapture(path)
        if not self._capture.isOpened():
            raise InputError(f"OpenCV cannot open the video '{path}'", "It may be cut short; copy or convert it again")
        depth = _stored_bits(int(self._capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)))
        if depth > 8:
            self.close()
            raise InputError(
                f"video '{path}' stores {depth} bits a level, of which OpenCV would keep 8",
                "Extract its frames as 16-bit PNG or TIFF files and give their folder",
            )
        count, fps = (self._capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        self.name = Path(path).name
        # Raw streams have no index and report nonsense: a negative count, no rate or that of the clock.
        self.frames = int(count) if count > 0 else None
        self.fps = float(fps) if 0 < fps <= _HIGHEST_FPS else None
        height, width = (self._capture.get(key) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        self.size = int(height), int(width)

    def records(self) -> Iterator[SourceFrame]:
        index = 0
        while True:
            found, frame = self._capture.read()
            if not found:
                break
            seconds = index / self.fps if self.fps else None
            yield SourceFrame(index, self.name, seconds, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=frame))
            index += 1
        # Containers count a frame or two that decoders do not show.
        if index == 0 or (self.frames is not None and index < self.frames - max(2, self.frames // 50)):
            raise InputError(
                f"video '{self._path}' ends after {index} of {self.frames or 'its'} frames",
                "It is cut short or damaged: copy or convert it again",
            )

    def close(self) -> None:
        self._capture.release()


def _matching(pattern: str) -> list[Path]:
    # Path.glob takes no absolute patterns.
    found = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = sorted((path for path in found if path.suffix.lower() in FRAME_SUFFIXES), key=natural_key)
    if not paths:
        raise InputError(f"no frames match '{pattern}'", f"Frames end in {', '.join(sorted(FRAME_SUFFIXES))}")
    return paths


def _stored_bits(fourcc: int) -> int:
    """Bits a level of FFmpeg's raw-format tag 'Y1' 0 16, or reversed where big endian; 8 for every other tag."""
    tag = (fourcc & 0xFFFFFFFF).to_bytes(4, "little")
    for letter, components, _, bits in (tag, tag[::-1]):
        if letter == ord("Y") and components in b"1234" and 8 < bits <= 16:
            return bits
    return 8
