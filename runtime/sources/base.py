"""What every source of frames is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from irforge.frames import Frame

__all__ = ["Frame", "Layout", "Source", "SourceFrame"]


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A raw frame and where it comes from.

    index: its number in the source. id: the image's, video's or camera's name.
    seconds: media time; on live sources since the source was opened. None for images.
    captured: when a live source took it, on `time.monotonic`'s clock; None for recordings.
    shutter: the camera's shutter is closed or its picture stands still; see `irforge.runtime.thermal`.
    """

    index: int
    id: str
    seconds: float | None
    frame: Frame
    captured: float | None = None
    shutter: bool = False


@dataclass(frozen=True)
class Layout:
    """How raw levels lie, for files and cameras that do not say it themselves.

    size: (height, width) of a frame as stored, telemetry rows included; of a camera, what to ask it for.
    bit_depth: 8 for one byte a level, more for two. big_endian: the order of those two.
    """

    size: tuple[int, int] | None = None
    bit_depth: int = 16
    big_endian: bool = False


def _say_nothing(_: str) -> None:
    return


class Source(ABC):
    """A run of raw frames, H x W or H x W x 3 (RGB), uint8 or uint16; use it once, in a `with`.

    `frames` is how many there should be, `fps` their rate and `size` their (height, width); each is None where the
    source does not know. Frames may differ in size. A `live` source cannot be read again, nor made to wait: what
    nobody takes in time is lost. `notify` is told, in one line, when such a source is lost and when it is back;
    `damaged` counts the frames that it left out because they could not be decoded.
    """

    name: str
    frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    live: bool = False
    damaged: int = 0
    notify: Callable[[str], None] = staticmethod(_say_nothing)

    @abstractmethod
    def records(self) -> Iterator[SourceFrame]:
        """The frames, each with its number, name and time."""

    def __iter__(self) -> Iterator[Frame]:
        return (record.frame for record in self.records())

    def stop(self) -> None:
        """Have `records` end at its next frame, and wait for none; from any thread."""
        return

    def close(self) -> None:
        """Give back what the source holds open."""
        return

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
