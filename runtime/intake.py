"""The one place where a pipeline's frames wait: how many there may be, who has to wait, and what is dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

Policy = Literal["lossless", "latest"]
Item = TypeVar("Item")

# How long a wait lasts before it looks whether somebody asked for the end from a signal handler.
_GLANCE_SECONDS = 0.05


class Intake(Generic[Item]):
    """Items of several streams on their way in: a bounded queue each, taken in turn, and only while there is a place.

    An item that is taken holds a place until `leave`, so `places` bounds everything behind the intake. Where a queue is
    full, `lossless` makes the stream wait, and `latest` drops the oldest item of that queue.

    Args:
        streams: how many.
        waiting: items that each queue holds.
        places: items that may be inside.
        policy: see above.
    """

    def __init__(self, streams: int, waiting: int, places: int, policy: Policy) -> None:
        # No lock guards it: a signal handler sets it, which must not wait for whom it interrupted.
        self.ending = False
        self.accepted = [0] * streams
        self.dropped = [0] * streams
        self._queues: Sequence[deque[Item]] = [deque() for _ in range(streams)]
        self._open = streams
        self._waiting = waiting
        self._places = places
        self._latest = policy == "latest"
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, stream: int, item: Item) -> bool:
        """Hand in an item, which may wait; False where nobody will take it any more."""
        with self._changed:
            queue = self._queues[stream]
            while len(queue) >= self._waiting and not self._latest and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self.accepted[stream] += 1
            if len(queue) >= self._waiting:
                queue.popleft()
                self.dropped[stream] += 1
            queue.append(item)
            self._changed.notify_all()
        return True

    def finish(self, stream: int, last: Item | None = None) -> None:
        """That stream has no more items, but for `last`, which waits for nothing, drops nothing and is not counted."""
        with self._changed:
            if last is not None:
                self._queues[stream].append(last)
            self._open -= 1
            self._changed.notify_all()

    def take(self) -> tuple[int, Item] | None:
        """The oldest item of the stream whose turn it is, once there is a place for it; None after the last one."""
        with self._changed:
            while not self._closed:
                if self._places > 0:
                    for offset in range(len(self._queues)):
                        stream = (self._turn + offset) % len(self._queues)
                        if self._queues[stream]:
                            self._turn = stream + 1
                            self._places -= 1
                            self._changed.notify_all()
                            return stream, self._queues[stream].popleft()
                if (self._open == 0 or self.ending) and not any(self._queues):
                    break
                self._changed.wait(_GLANCE_SECONDS)
            self._close()
        return None

    def leave(self) -> None:
        """A taken item is done with: its place is free."""
        with self._changed:
            self._places += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing goes in or out any more; whoever waits is let go."""
        with self._changed:
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._changed.notify_all()
