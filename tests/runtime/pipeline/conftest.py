"""What the pipeline is tested with: sources in memory, and a session that something happens to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from irforge.runtime.detector import SessionDetector, load
from irforge.runtime.sources import Source, SourceFrame
from irforge.runtime.sources.synthetic import Scene, Synthetic
from tests.box_model import write_box_model


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionDetector]:
    with load(write_box_model(tmp_path_factory.mktemp("pipeline") / "peaks.onnx"), threads=1) as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def scene(**fields: Any) -> Synthetic:
    return Synthetic(Scene(**{"width": 64, "height": 64, "frames": 40, "noise": 1.0} | fields))


class Frames(Source):
    """Frames from memory; an exception among them is raised in its turn."""

    def __init__(self, frames: list[np.ndarray | Exception], live: bool = False) -> None:
        self.name = "memory"
        self.live = live
        self._frames = frames

    def records(self) -> Iterator[SourceFrame]:
        for index, frame in enumerate(self._frames):
            if isinstance(frame, Exception):
                raise frame
            yield SourceFrame(index, f"frame {index}", None, frame, time.monotonic() if self.live else None)


class Hindered:
    """A session that something happens to before each run."""

    def __init__(self, session: Any, hinder: Callable[[int], None]) -> None:
        self._session = session
        self._hinder = hinder
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, feeds: Mapping[str, np.ndarray], out: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        self.batches.append(len(next(iter(feeds.values()))))
        self._hinder(len(self.batches))
        return self._session.run(feeds, out)


def hindered(detector: SessionDetector, hinder: Callable[[int], None]) -> SessionDetector:
    return SessionDetector(Hindered(detector.session, hinder), detector.contract, "hindered")
