"""What cameras and streams share: capture times, loss and return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import numpy as np

from irforge.errors import InputError
from irforge.runtime.sources.base import Frame, Source, SourceFrame
from irforge.runtime.sources.video import plausible_fps

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
# How long a capture that gives nothing is asked again before it is taken for lost, and how often.
ASK_SECONDS, _ASK_EVERY = 0.5, 0.01
# A decoder that has lost its place recovers with the next key frame; one that never does is as good as lost.
_DAMAGED_IN_A_ROW = 250


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: N802

    def grab(self) -> bool: ...

    def retrieve(self) -> tuple[bool, Any]: ...

    def get(self, key: int) -> float: ...

    def release(self) -> None: ...


class CaptureSource(Source):
    """A live source behind OpenCV's capture interface.

    A frame that arrives damaged is left out and counted in `damaged`. Where frames stop coming, the source connects
    again, first after `FIRST_WAIT` seconds, then after twice as long each time up to `LONGEST_WAIT`, and goes on with
    the next number; `reconnects` counts how often it came back.

    Args:
        name: how messages and results call it.
        connect: opens it; asked again after each loss.
        patience: seconds without frames after which the loss is an error; None waits for ever, 0 takes the first loss
            for the end.

    Raises:
        InputError: it cannot be opened now; while reading, it was lost for longer than its patience.
    """

    live = True

    def __init__(self, name: str, connect: Callable[[], Capture], patience: float | None) -> None:
        self.name = name
        self.reconnects = 0
        self._connect = connect
        self._patience = patience
        self._stopped = threading.Event()
        # Releasing a capture that another thread is reading from would crash the process.
        self._busy = threading.Lock()
        self._capture = connect()
        if not self._capture.isOpened():
            raise InputError(f"{name} cannot be opened", "Check the cable, the address and who else is using it")
        self.fps = plausible_fps(self._capture.get(cv2.CAP_PROP_FPS))

    def levels(self, picture: Any) -> Frame | None:
        """What OpenCV gave as a frame; None where it is none. BGR becomes RGB."""
        if picture.ndim == 3 and picture.shape[2] == 3:
            return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
        frame: Frame = picture.reshape(picture.shape[:2])
        return frame

    def records(self) -> Iterator[SourceFrame]:
        start = time.monotonic()
        index = damaged = 0
        wait = FIRST_WAIT
        while not self._stopped.is_set():
            grabbed, captured, frame = self._next()
            if frame is not None:
                yield SourceFrame(index, self.name, captured - start, frame, captured)
                index += 1
                damaged, wait = 0, FIRST_WAIT
            elif grabbed and damaged < _DAMAGED_IN_A_ROW:
                self.damaged += 1
                damaged += 1
            elif self._patience == 0:
                return
            else:
                damaged = 0
                wait = self._reconnect(wait)

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self.stop()
        with self._busy:
            self._capture.release()

    def _next(self) -> tuple[bool, float, Frame | None]:
        with self._busy:
            if self._stopped.is_set():
                return False, 0.0, None
            grabbed = self._grab()
            # Decoding comes after the frame was there: it is part of a detection's age.
            captured = time.monotonic()
            found, picture = self._capture.retrieve() if grabbed else (False, None)
        return grabbed, captured, self.levels(picture) if found and picture is not None else None

    def _grab(self) -> bool:
        """Also past packets that cannot be decoded: OpenCV gives up at each as at the end, but goes on behind it."""
        start = time.monotonic()
        failed = 0
        while not self._capture.grab():
            failed += 1
            if self._patience == 0 or time.monotonic() - start > ASK_SECONDS or self._stopped.wait(_ASK_EVERY):
                return False
        self.damaged += failed
        return True

    def _reconnect(self, wait: float) -> float:
        """Wait and connect until it is back, or the source is stopped; returns how long to wait the next time."""
        if self._stopped.is_set():
            return wait
        lost = time.monotonic()
        self.notify(f"{self.name} gives no frames; connecting again")
        with self._busy:
            self._capture.release()
        while not self._stopped.wait(wait):
            wait = min(2 * wait, LONGEST_WAIT)
            with self._busy:
                capture = self._connect()
                if capture.isOpened():
                    self._capture = capture
                    self.reconnects += 1
                    self.notify(f"{self.name} is back after {time.monotonic() - lost:.1f} s")
                    break
                capture.release()
            if self._patience is not None and time.monotonic() - lost > self._patience:
                raise InputError(
                    f"{self.name} has given no frames for {self._patience:g} s", "Check its cable and power, then rerun"
                )
        return wait
