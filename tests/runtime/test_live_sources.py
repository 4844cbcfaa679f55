"""Promises of cameras and streams, held by a small RTSP server, and by captures that play a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.errors import EnvironmentFault, InputError, UsageError
from irforge.runtime.sources import Layout, open_source
from irforge.runtime.sources import live as live_module
from irforge.runtime.sources import network as network_module
from irforge.runtime.sources.camera import Y16Camera
from irforge.runtime.sources.live import CaptureSource
from irforge.runtime.sources.network import RtspStream, has_gstreamer

DAMAGED, UNDECODABLE = "damaged", "undecodable"


class ScriptedCapture:
    """Gives its frames, fails to retrieve one where the script says DAMAGED and to grab one where it says UNDECODABLE,
    and gives nothing once it is at its end."""

    def __init__(self, script: Sequence[Any], opened: bool = True, properties: dict[int, float] | None = None) -> None:
        self.script = list(script)
        self.opened = opened
        self.properties = properties or {}
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened

    def grab(self) -> bool:
        assert not self.released
        if self.script and isinstance(self.script[0], str) and self.script[0] == UNDECODABLE:
            self.script.pop(0)
            return False
        return bool(self.script)

    def retrieve(self) -> tuple[bool, Any]:
        frame = self.script.pop(0)
        return (False, None) if isinstance(frame, str) else (True, frame)

    def get(self, key: int) -> float:
        return self.properties.get(key, 0.0)

    def set(self, key: int, value: float) -> bool:
        self.properties.setdefault(key, value)
        return True

    def release(self) -> None:
        self.released = True


def pictures(*levels: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), level, np.uint8) for level in levels]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(live_module, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(live_module, "LONGEST_WAIT", 0.08)


def levels_of(source: CaptureSource, count: int) -> list[int]:
    return [int(record.frame[0, 0, 0]) for record in islice(source.records(), count)]


def test_a_stream_that_drops_comes_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []
    captures = [
        ScriptedCapture(pictures(1, 2)),
        ScriptedCapture([], opened=False),
        ScriptedCapture([], opened=False),
        ScriptedCapture(pictures(3, 4)),
    ]

    def connect(url: str, *_: object) -> ScriptedCapture:
        assert url == "rtsp://user:secret@camera.local:554/stream"
        tries.append(time.monotonic())
        return captures[len(tries) - 1]

    monkeypatch.setattr(cv2, "VideoCapture", connect)
    said: list[str] = []
    with open_source("rtsp://user:secret@camera.local:554/stream") as source:
        assert isinstance(source, RtspStream) and source.live
        source.notify = said.append
        records = list(islice(source.records(), 4))
        assert source.reconnects == 1
    assert [int(record.frame[0, 0, 0]) for record in records] == [1, 2, 3, 4]
    assert [record.index for record in records] == [0, 1, 2, 3]
    stamps = [record.captured for record in records]
    assert stamps == sorted(stamps)
    # Waits double: 0.02, 0.04, 0.08 s.
    waits = np.diff(tries)
    assert waits[0] >= 0.02 and waits[1] >= 0.04 and waits[2] >= 0.08
    assert said[0] == "rtsp://camera.local:554/stream gives no frames; connecting again"
    assert said[1].startswith("rtsp://camera.local:554/stream is back after 0.")
    assert all(capture.released for capture in captures)
    assert "secret" not in records[0].id


def test_a_real_stream_goes_on_past_damage_and_comes_back_when_its_cable_was_pulled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    av = pytest.importorskip("av", reason="the stream is encoded by PyAV: pip install 'irforge[video]'")
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV does not encode H.264")
    from tests.runtime.rtsp_camera import RtspCamera

    # A machine that does other things too.
    monkeypatch.setattr(network_module, "_TIMEOUT_MS", 60_000)
    monkeypatch.setattr(live_module, "ASK_SECONDS", 2.0)
    said: list[str] = []
    with ExitStack() as cable, open_source(cable.enter_context(camera := RtspCamera(60, damaged=True)).url) as source:
        assert isinstance(source, RtspStream)
        source.notify = said.append
        records = source.records()
        before = [next(records)]
        while source.damaged < 3 and len(before) < 200:
            before.append(next(records))
        assert source.damaged >= 3 and source.reconnects == 0 and not said
        cable.close()
        with RtspCamera(180, camera.port):
            after = next(record for record in records if record.frame.mean() > 120)
    assert {record.frame.shape for record in (*before, after)} == {(48, 64, 3)}
    assert all(abs(record.frame.mean() - 60) < 8 for record in before) and abs(after.frame.mean() - 180) < 8
    assert [record.index for record in before] == list(range(len(before)))
    assert after.index >= len(before) and source.reconnects >= 1
    assert said[0] == f"{camera.url} gives no frames; connecting again"
    assert said[1].startswith(f"{camera.url} is back after ")


def test_a_stream_that_is_not_there_at_the_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ScriptedCapture([], opened=False))
    with pytest.raises(InputError, match="local/x cannot be opened"):
        open_source("rtsp://camera.local/x")


def test_a_camera_that_was_unplugged_is_an_error_after_its_patience() -> None:
    captures = iter([ScriptedCapture(pictures(1)), *(ScriptedCapture([], opened=False) for _ in range(50))])
    source = CaptureSource("camera:0", lambda: next(captures), patience=0.1)
    with source, pytest.raises(InputError, match=r"camera:0 has given no frames for 0\.1 s"):
        levels_of(source, 2)


def test_damaged_frames_are_left_out_and_counted() -> None:
    script = [*pictures(1), DAMAGED, DAMAGED, *pictures(2), UNDECODABLE, *pictures(3)]
    with CaptureSource("camera:0", lambda: ScriptedCapture(script), patience=None) as source:
        assert levels_of(source, 3) == [1, 2, 3]
        assert (source.damaged, source.reconnects) == (3, 0)


def test_a_stream_of_nothing_but_damage_is_a_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_DAMAGED_IN_A_ROW", 5)
    captures = iter([ScriptedCapture([DAMAGED] * 50), ScriptedCapture(pictures(7))])
    with CaptureSource("camera:0", lambda: next(captures), patience=None) as source:
        assert levels_of(source, 1) == [7]
        assert (source.damaged, source.reconnects) == (5, 1)


def test_a_source_that_waits_for_a_stream_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "FIRST_WAIT", 60.0)
    source = CaptureSource("camera:0", lambda: ScriptedCapture([]), patience=None)
    reader = threading.Thread(target=lambda: list(source.records()))
    reader.start()
    source.close()
    reader.join(5)
    assert not reader.is_alive()


def test_a_usb_camera_gives_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    blue = np.zeros((48, 64, 3), np.uint8)
    blue[..., 0] = 200
    capture = ScriptedCapture([blue])
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture if number == 3 else None)
    with open_source("camera:3", Layout(size=(48, 64))) as source:
        found = next(source.records()).frame
    assert (found[0, 0] == (0, 0, 200)).all()
    assert capture.properties[cv2.CAP_PROP_FRAME_WIDTH] == 64
    with pytest.raises(UsageError, match="no camera's number"):
        open_source("camera:/dev/video0")


@pytest.mark.parametrize("form", ["counts", "bytes"])
def test_y16_keeps_every_count_in_either_form_that_opencv_gives(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    counts = np.random.default_rng(0).integers(0, 1 << 14, (48, 64)).astype("<u2")
    size = {cv2.CAP_PROP_FRAME_HEIGHT: 48.0, cv2.CAP_PROP_FRAME_WIDTH: 64.0}
    given = counts if form == "counts" else counts.view(np.uint8).reshape(1, -1)
    capture = ScriptedCapture([given[:, :-4], given], properties=size)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
    with open_source("v4l2:/dev/video2") as source:
        assert isinstance(source, Y16Camera)
        found = next(source.records()).frame
        # The first was cut short on its way.
        assert source.damaged == 1
    assert found.dtype == np.uint16 and np.array_equal(found, counts)
    assert capture.properties[cv2.CAP_PROP_CONVERT_RGB] == 0


def test_a_camera_without_y16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    yuyv = {cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV"))}
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ScriptedCapture([], properties=yuyv))
    with pytest.raises(InputError, match="does not give raw counts"):
        open_source("v4l2:/dev/video0")


def test_gstreamer_is_used_where_opencv_has_it_and_asked_for_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_gstreamer():
        with pytest.raises(EnvironmentFault, match="built without GStreamer"):
            open_source("gst:videotestsrc")
    asked: list[str] = []

    def connect(pipeline: str, backend: int) -> ScriptedCapture:
        assert backend == cv2.CAP_GSTREAMER
        asked.append(pipeline)
        return ScriptedCapture([np.full((48, 64), 9000, np.uint16)] * 2)

    monkeypatch.setattr("irforge.runtime.sources.network.has_gstreamer", lambda: True)
    monkeypatch.setattr(cv2, "VideoCapture", connect)
    with open_source("gst:v4l2src ! video/x-raw,format=GRAY16_LE") as source:
        # A pipeline that ends is a source that ends.
        assert [frame.dtype for frame in source] == [np.uint16] * 2
    assert asked == ["v4l2src ! video/x-raw,format=GRAY16_LE ! appsink max-buffers=2 sync=false"]
