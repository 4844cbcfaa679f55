"""Sinks that write lines of text, which survive the process: whatever kills it, all lines so far can be read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from irforge.detections import Detections
from irforge.errors import UsageError
from irforge.files import PARTIAL
from irforge.runtime.sources import SourceFrame
from irforge.runtime.tracking.tracked import NO_TRACK, Tracked


class _Lines:
    """A file that grows by whole lines as `NAME.partial` and gets its name in the end; see `growing`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._stack = ExitStack()

    def _append(self, line: str) -> None:
        # One call to the system for a line, unbuffered: a process that is killed has written it, or none of it.
        rest = memoryview(f"{line}\n".encode())
        whole = self._file.tell()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            # A full disk may take part of a line.
            with suppress(OSError):
                self._file.truncate(whole)
                self._file.seek(whole)
            raise

    def _open(self) -> None:
        self._file: BinaryIO = self._stack.enter_context(growing(self._path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class JsonLines(_Lines):
    """One JSON object a line and frame: index, id, time in seconds (null for images) and detections.

    A detection has `box` [left, top, right, bottom] in frame pixels, `score`, `class`, `label`, and where the detector
    gives them `centre` [x, y] and `area`; see `Detections.rows`. Where tracks are followed, `track` is the number of
    the one that a detection belongs to, once it is confirmed. Frames of live sources have an `age` too: seconds from
    their capture to this line. `shutter` is there, and true, where the camera's shutter was closed.

    Until the `with` ends the lines are in `NAME.partial`, each there as soon as it is written: a process that is killed
    leaves them behind. Nothing overwrites such a file; the next run takes `NAME.2.partial`.
    """

    def __init__(self, path: str | os.PathLike[str], classes: Sequence[str] = ()) -> None:
        super().__init__(path)
        self._classes = tuple(classes)

    def __enter__(self) -> JsonLines:
        self._open()
        return self

    def write(self, record: SourceFrame, detections: Detections) -> None:
        line: dict[str, Any] = {"index": record.index, "id": record.id, "time": record.seconds}
        if record.captured is not None:
            line["age"] = round(time.monotonic() - record.captured, 6)
        if record.shutter:
            line["shutter"] = True
        line["detections"] = detections.rows(self._classes)
        self._append(json.dumps(line, allow_nan=False))


class MotLines(_Lines):
    """CSV of the MOT challenge (Milan et al., MOT16): frame, id, left, top, width, height, confidence, -1, -1, -1.

    Frames and pixels count from 1 there: the first pixel of a row, at edge 0, has left = 1. The id is -1, as in the
    challenge's files of detections; where tracks are followed it is the track's number, and what belongs to no
    confirmed track has no line. Frames without detections have none. `NAME.partial` is as in `JsonLines`.
    """

    def __enter__(self) -> MotLines:
        self._open()
        return self

    def write(self, record: SourceFrame, detections: Detections) -> None:
        followed = isinstance(detections, Tracked)
        tracks = detections.tracks.tolist() if isinstance(detections, Tracked) else [NO_TRACK] * len(detections)
        rows = zip(detections.boxes, detections.scores, tracks, strict=True)
        for (left, top, right, bottom), score, track in rows:
            if followed and track == NO_TRACK:
                continue
            self._append(
                f"{record.index + 1},{track},{left + 1:.2f},{top + 1:.2f},{right - left:.2f},{bottom - top:.2f},"
                f"{score:.6f},-1,-1,-1"
            )


@contextmanager
def growing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """An unbuffered file beside `path`, called `NAME.partial`, renamed onto `path` in the end, removed on an error.

    A file of that name is what a killed run left, or another run is at work: then it is `NAME.2.partial`, and so on.

    Raises:
        UsageError: `path` is a folder; an empty one is the folder that the process is in.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"'{path}' is a folder, lines need a file", "Give the file's name, such as OUT.jsonl")
    target.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        temporary = target.with_name(f"{target.name}{f'.{number}' if number > 1 else ''}{PARTIAL}")
        with suppress(FileExistsError):
            handle = open(temporary, "xb", buffering=0)  # noqa: SIM115
            break
    try:
        with handle:
            yield handle
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
