"""Promises of a source in the hands of a viewer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from irforge.runtime.live.player import Player
from irforge.runtime.sources import Source, SourceFrame
from irforge.runtime.sources.synthetic import Scene, Synthetic
from tests.runtime.live.conftest import Camera, eventually


class Collected:
    """What a player gives, in a thread of its own."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.records: list[SourceFrame] = []
        self._thread = threading.Thread(target=self._collect)

    def _collect(self) -> None:
        for record in self.player.records():
            self.records.append(record)

    def __enter__(self) -> Collected:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.player.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def indices(self) -> list[int]:
        return [record.index for record in self.records]


def recording(**fields: Any) -> Synthetic:
    return Synthetic(Scene(**{"width": 32, "height": 32, "fps": 200.0} | fields))


def test_a_recording_runs_at_its_own_rate_with_times_of_capture() -> None:
    start = time.monotonic()
    records = list(Player(recording(frames=11, fps=50)).records())
    assert [record.index for record in records] == list(range(11))
    assert time.monotonic() - start >= 10 / 50
    stamps = [record.captured for record in records]
    assert None not in stamps and stamps == sorted(stamps)


def test_another_rate_and_the_rate_of_images() -> None:
    assert Player(recording(), fps=3).fps == 3
    source = recording()
    source.fps = None
    assert Player(source).fps == 10


def test_a_camera_keeps_its_own_rate() -> None:
    assert Player(Camera(), fps=3).fps == 12.5


def test_a_paused_recording_waits_and_loses_nothing() -> None:
    with Collected(Player(recording(frames=30))) as got:
        eventually(lambda: len(got.records) >= 5)
        got.player.pause(True)
        time.sleep(0.05)
        held = len(got.records)
        time.sleep(0.2)
        assert len(got.records) <= held + 1
        got.player.pause(False)
        eventually(lambda: len(got.records) == 30)
    assert got.indices() == list(range(30))


def test_a_step_lets_one_frame_through() -> None:
    player = Player(recording(frames=0))
    player.step()
    player.pause(True)
    with Collected(player) as got:
        time.sleep(0.1)
        assert got.records == []
        for count in (1, 2):
            player.step()
            eventually(lambda count=count: len(got.records) == count)
            time.sleep(0.05)
            assert got.indices() == list(range(count))


def test_the_same_frame_again_has_no_time_of_capture() -> None:
    player = Player(recording(frames=0))
    player.pause(True)
    with Collected(player) as got:
        player.step()
        eventually(lambda: len(got.records) == 1)
        player.again()
        eventually(lambda: len(got.records) == 2)
    first, second = got.records
    assert np.array_equal(first.frame, second.frame) and first.index == second.index
    assert first.captured is not None and second.captured is None


def test_frames_of_a_paused_camera_go_by_unseen() -> None:
    camera = Camera()
    with Collected(Player(camera)) as got:
        eventually(lambda: len(got.records) >= 2)
        got.player.pause(True)
        time.sleep(0.5)
        got.player.pause(False)
        before = len(got.records)
        eventually(lambda: len(got.records) > before)
    gaps = np.diff(got.indices())
    assert gaps.max() >= 3


def test_a_camera_that_comes_back_while_paused_is_told() -> None:
    camera, said = Camera(), []
    player = Player(camera)
    player.notify = said.append
    player.pause(True)
    with Collected(player) as got:
        eventually(lambda: said == [""])
        camera.unplugged.set()
        eventually(lambda: len(said) == 2)
        camera.unplugged.clear()
        eventually(lambda: len(said) >= 4)
    assert said[1].endswith("connecting again") and "is back" in said[2] and said[3] == ""
    assert got.records == []


class Damaged(Source):
    name = "damaged"

    def records(self) -> Iterator[SourceFrame]:
        yield SourceFrame(0, self.name, None, np.zeros((32, 32), np.uint8))
        raise ValueError("a defect")


def test_errors_pass_through() -> None:
    with pytest.raises(ValueError, match="a defect"):
        list(Player(Damaged()).records())
