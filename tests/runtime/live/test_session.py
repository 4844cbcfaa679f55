"""Promises of a session: it outlives what happens to its source, and ends at once when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from irforge.detections import Detections
from irforge.errors import InputError
from irforge.runtime.detector import SessionDetector
from irforge.runtime.live import session as session_module
from irforge.runtime.live.hub import Hub
from irforge.runtime.live.session import LiveSession, _Holding
from irforge.runtime.sources import Source, SourceFrame
from irforge.runtime.sources.synthetic import Scene, Synthetic
from irforge.runtime.tracking import Tracked
from tests.box_model import box_frame
from tests.runtime.live.conftest import SIZE, Live, eventually


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(session_module, "LONGEST_WAIT", 0.05)


def recording(frames: int = 5) -> Synthetic:
    return Synthetic(Scene(width=SIZE, height=SIZE, frames=frames, fps=100.0))


class Script(Source):
    """Gives so many frames, and then fails."""

    name = "camera:0"

    def __init__(self, frames: int, live: bool = True) -> None:
        self.live = live
        self.fps = 100.0
        self._count = frames

    def records(self) -> Iterator[SourceFrame]:
        for index in range(self._count):
            captured = time.monotonic() if self.live else None
            yield SourceFrame(index, self.name, None, box_frame((20, 20)), captured)
        raise InputError("camera:0 has given no frames for 10 s", "Check its cable")


class Deaf(Source):
    """A driver that never returns."""

    name = "camera:0"
    live = True

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def records(self) -> Iterator[SourceFrame]:
        yield SourceFrame(0, self.name, None, box_frame((20, 20)), time.monotonic())
        self.let_go.wait(60)


class Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.indices: list[int] = []

    def write(self, record: SourceFrame, detections: Detections) -> None:
        self.indices.append(record.index)


def test_a_recording_ends_and_can_be_played_again(detector: SessionDetector) -> None:
    hub, sink = Hub(0.5), Kept()
    with LiveSession(detector, recording, hub, [sink], policy="lossless") as session:
        eventually(lambda: hub.status == "ended")
        assert sink.indices == list(range(5))
        session.pause(False)
        eventually(lambda: len(sink.indices) == 10 and hub.status == "ended")
    assert hub.statistics()["published"] == 10 and hub.lines()[0].startswith("10 frames, ")
    assert session.error is None and hub.status == "stopped"


def test_going_on_after_a_pause_does_not_play_again(detector: SessionDetector) -> None:
    hub, sink = Hub(0.5), Kept()
    with LiveSession(detector, lambda: recording(20), hub, [sink], policy="lossless") as session:
        session.pause(True)
        session.pause(False)
        eventually(lambda: hub.status == "ended")
        time.sleep(0.2)
        assert sink.indices == list(range(20))


def test_a_loop_goes_on_until_it_is_stopped(detector: SessionDetector) -> None:
    hub = Hub(0.5)
    with LiveSession(detector, recording, hub, loop=True):
        eventually(lambda: hub.statistics()["published"] >= 12)
    assert hub.status == "stopped"


def test_a_camera_that_is_lost_for_good_is_opened_again(detector: SessionDetector) -> None:
    hub, said = Hub(0.5), []
    tries: list[int] = []

    def opened() -> Source:
        tries.append(len(tries))
        if len(tries) in (2, 3):
            raise InputError("camera:0 cannot be opened", "Check the cable")
        return Script(3)

    with LiveSession(detector, opened, hub, policy="lossless", say=said.append):
        eventually(lambda: hub.statistics()["published"] >= 6)
    assert said[0].startswith("camera:0 has given no frames for 10 s") and said[1].startswith("camera:0 cannot be")


def test_a_camera_that_never_gave_a_frame_is_an_error(detector: SessionDetector) -> None:
    hub = Hub(0.5)
    with LiveSession(detector, lambda: Script(0), hub) as session:
        assert session.over.wait(120)
    assert isinstance(session.error, InputError) and hub.status == "stopped" and "10 s" in hub.note


def test_a_damaged_recording_is_an_error(detector: SessionDetector) -> None:
    hub = Hub(0.5)
    with LiveSession(detector, lambda: Script(3, live=False), hub, policy="lossless") as session:
        assert session.over.wait(120)
    assert isinstance(session.error, InputError) and hub.statistics()["published"] == 3


def test_a_full_disk_ends_it_and_is_said(detector: SessionDetector) -> None:
    class Full(Kept):
        def write(self, record: SourceFrame, detections: Detections) -> None:
            raise OSError(28, "No space left on device", "o.jsonl")

    hub = Hub(0.5)
    with LiveSession(detector, recording, hub, [Full()]) as session:
        assert session.over.wait(120)
    assert isinstance(session.error, OSError) and "No space left" in hub.note


def test_a_driver_that_never_returns_does_not_hold_up_the_end(detector: SessionDetector) -> None:
    hub, source, sink = Hub(0.5), Deaf(), Kept()
    with LiveSession(detector, lambda: source, hub, [sink]) as session:
        eventually(lambda: sink.indices == [0])
        start = time.monotonic()
    # 0.6 s are for a session that ends well.
    assert time.monotonic() - start < 5
    assert session.sinks == [] and hub.status == "stopped" and session.is_running
    source.let_go.set()


def test_a_paused_session_ends_too(detector: SessionDetector) -> None:
    hub = Hub(0.5)
    with LiveSession(detector, lambda: recording(0), hub) as session:
        eventually(lambda: hub.latest)
        session.pause(True)
    assert hub.status == "stopped" and session.error is None


def test_the_threshold_is_the_detectors_and_a_paused_frame_is_done_again(live: Live) -> None:
    eventually(lambda: live.hub.latest and len(live.hub.latest.result.detections) >= 2)
    live.session.pause(True)
    before = eventually(settled(live.hub))
    live.session.set_threshold(0.97)
    after = eventually(lambda: live.hub.latest.seq > before.seq and live.hub.latest)
    assert after.result.record.index == before.result.record.index and after.latency is None
    assert len(after.result.detections) == 0
    live.session.step()
    following = eventually(lambda: live.hub.latest.seq > after.seq and live.hub.latest)
    assert following.result.record.index > before.result.record.index


def settled(hub: Hub) -> Callable[[], object]:
    """True, and the latest, once nothing new has come for a while."""

    def look() -> object:
        seen = hub.latest
        time.sleep(0.3)
        return seen is hub.latest and seen

    return look


class Numbering:
    """In place of a tracker: the first detection is track 7."""

    calls = 0

    def update(self, record: SourceFrame, found: Detections) -> Tracked:
        self.calls += 1
        return Tracked.of(found, np.array([7, *[-1] * (len(found) - 1)]), {7: np.zeros((2, 2), np.float32)})


def test_a_frame_that_is_shown_again_moves_no_track() -> None:
    tracker = Numbering()
    holding = _Holding(tracker)
    first = Detections(np.array([[10, 10, 13, 13], [30, 30, 33, 33]]), np.array([0.9, 0.8]), np.zeros(2))
    record = SourceFrame(0, "x", None, np.zeros((64, 64), np.uint8), captured=1.0)
    assert holding.update(record, first).tracks.tolist() == [7, -1]
    again = SourceFrame(0, "x", None, record.frame, captured=None)
    more = Detections(
        np.array([[50, 50, 53, 53], [10, 10, 14, 13], [30, 30, 33, 33]]), np.array([0.95, 0.9, 0.8]), np.zeros(3)
    )
    assert holding.update(again, more).tracks.tolist() == [-1, 7, -1]
    assert len(holding.update(again, Detections.empty())) == 0
    assert tracker.calls == 1
