"""A page with everything behind it, in this process: a detector of peaks, a camera that can be unplugged, a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from irforge.runtime.detector import SessionDetector, load
from irforge.runtime.live.hub import Hub
from irforge.runtime.live.session import LiveSession
from irforge.runtime.sources import Source, SourceFrame
from irforge.runtime.sources.synthetic import Scene, Synthetic
from tests.box_model import write_box_model

SIZE = 64


class Camera(Source):
    """Two moving targets, whose scores are about 0.9, at 12.5 frames a second; nothing comes while it is unplugged."""

    name = "camera:0"
    live = True
    fps = 12.5

    def __init__(self) -> None:
        self.scene = Synthetic(Scene(width=SIZE, height=SIZE, frames=0, noise=1.0, contrast=60, seed=3))
        self.unplugged = threading.Event()
        self._stopped = threading.Event()

    def records(self) -> Iterator[SourceFrame]:
        index = 0
        while not self._stopped.wait(1 / self.fps):
            if self.unplugged.is_set():
                self.notify("camera:0 gives no frames; connecting again")
                while self.unplugged.is_set() and not self._stopped.wait(0.01):
                    pass
                self.notify("camera:0 is back after 0.1 s")
            yield SourceFrame(index, self.name, index / self.fps, self.scene.frame(index), time.monotonic())
            index += 1

    def stop(self) -> None:
        self._stopped.set()


@dataclass
class Live:
    hub: Hub
    session: LiveSession
    server: Any
    camera: Camera

    @property
    def url(self) -> str:
        return str(self.server.urls[0])


def eventually(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What the condition returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return found


@pytest.fixture(scope="session")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_box_model(tmp_path_factory.mktemp("live") / "peaks.onnx", size=(SIZE, SIZE), bias=-2)


@pytest.fixture
def detector(peaks: Path) -> Iterator[SessionDetector]:
    with load(peaks, threads=1) as loaded:
        yield loaded


@pytest.fixture
def start(detector: SessionDetector) -> Iterator[Callable[..., Live]]:
    """Starts a session and its page at a free port; ends them with the test."""
    pytest.importorskip("aiohttp", reason="the live page needs aiohttp: pip install 'irforge[live]'")
    from irforge.runtime.live.server import PageServer

    with ExitStack() as stack:

        def begin(host: str = "127.0.0.1") -> Live:
            camera = Camera()
            hub = Hub(detector.threshold)
            session = LiveSession(detector, lambda: camera, hub)
            server = stack.enter_context(PageServer(session, hub, host, 0))
            stack.enter_context(session)
            return Live(hub, session, server, camera)

        yield begin


@pytest.fixture
def live(start: Callable[..., Live]) -> Live:
    return start()
