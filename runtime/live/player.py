"""A source in the hands of whoever watches it: at its own pace, held, one frame further, the same frame again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from time import monotonic

from irforge.runtime.sources import Source, SourceFrame

_FPS = 10.0


class _Turn(Enum):
    NEXT = 1
    AGAIN = 2
    STOP = 3


class Player(Source):
    """A recording as if it were a camera, or a camera as it is; both can be paused.

    Recordings run at `fps`, or else at their own rate, or else at 10 frames a second, and wait while paused. Cameras
    cannot wait: their frames go by unseen. A frame that is shown `again` has no time of capture. Besides what the
    source tells it, `notify` is told an empty line when a camera's frames are there again.

    Args:
        source: used up, and closed, with the player.
        fps: of a recording; a camera has its own.
    """

    live = True

    def __init__(self, source: Source, fps: float | None = None) -> None:
        self.name, self.frames, self.size = source.name, source.frames, source.size
        self.fps = source.fps if source.live else fps or source.fps or _FPS
        self._source = source
        self._changed = threading.Condition()
        self._paused = self._again = self._stopped = False
        self._steps = 0
        # Until it gives a frame.
        self._is_lost = True
        source.notify = self._hear

    def records(self) -> Iterator[SourceFrame]:
        return self._camera() if self._source.live else self._recording()

    def pause(self, paused: bool) -> None:
        with self._changed:
            self._paused, self._again, self._steps = paused, False, 0
            self._changed.notify_all()

    def step(self) -> None:
        """While paused, let one more frame through."""
        with self._changed:
            self._steps += self._paused
            self._changed.notify_all()

    def again(self) -> None:
        """While paused, give the last frame once more: to a detector that has changed."""
        with self._changed:
            self._again = self._paused
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._source.stop()

    def close(self) -> None:
        self.stop()
        self._source.close()

    def _camera(self) -> Iterator[SourceFrame]:
        last: SourceFrame | None = None
        for record in self._source.records():
            if self._is_lost:
                self._is_lost = False
                self.notify("")
            with self._changed:
                turn = _Turn.NEXT if not self._paused else self._asked_for()
            if turn is _Turn.NEXT:
                last = record
                yield record
            elif turn is _Turn.AGAIN and last is not None:
                yield replace(last, captured=None)

    def _recording(self) -> Iterator[SourceFrame]:
        assert self.fps is not None
        due = monotonic()
        last: SourceFrame | None = None
        for record in self._source.records():
            while (turn := self._wait(due)) is _Turn.AGAIN:
                if last is not None:
                    yield replace(last, captured=None)
            if turn is _Turn.STOP:
                return
            now = monotonic()
            last = record
            yield replace(record, captured=now)
            # What a pause or a slow disk took is not caught up with.
            due = max(due, now - 1 / self.fps) + 1 / self.fps

    def _hear(self, line: str) -> None:
        self._is_lost = True
        self.notify(line)

    def _wait(self, due: float) -> _Turn:
        with self._changed:
            while not self._stopped:
                left = due - monotonic()
                turn = self._asked_for() if self._paused else _Turn.NEXT if left <= 0 else None
                if turn is not None:
                    return turn
                self._changed.wait(None if self._paused else left)
        return _Turn.STOP

    def _asked_for(self) -> _Turn | None:
        if self._steps:
            self._steps -= 1
            return _Turn.NEXT
        if self._again:
            self._again = False
            return _Turn.AGAIN
        return None
