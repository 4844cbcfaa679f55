"""Frames from image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from irforge.frames import frame_size, read_frame, read_pages
from irforge.runtime.sources.base import Source, SourceFrame


class ImageFiles(Source):
    """Image files in the order given; a frame's id is its file name."""

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        self.frames = len(paths)
        self.size = frame_size(paths[0])
        self.paths = list(paths)

    def records(self) -> Iterator[SourceFrame]:
        for index, path in enumerate(self.paths):
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
