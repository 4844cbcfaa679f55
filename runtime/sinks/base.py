"""What every sink of detections is."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from irforge.detections import Detections
from irforge.runtime.sources import SourceFrame


class Sink(Protocol):
    """Takes each frame with what was found in it; nothing appears under its final name before the `with` ends well."""

    def write(self, record: SourceFrame, detections: Detections) -> None: ...

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NullSink:
    """Keeps nothing."""

    def write(self, record: SourceFrame, detections: Detections) -> None:
        return

    def __enter__(self) -> NullSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return
