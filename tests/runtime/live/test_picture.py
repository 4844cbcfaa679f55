"""Promises of what is shown: the gain is exact, what stands still is lossless, the detector sees none of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from irforge.detections import Detections
from irforge.runtime.drawing import PALETTES, palette_table
from irforge.runtime.live.hub import _KEPT_BYTES, _KEPT_FRAMES, Hub
from irforge.runtime.live.picture import BINS, DisplayGain, Histogram, encoded, raw_png, snapshot_png
from irforge.runtime.pipeline import Result
from irforge.runtime.sources import SourceFrame
from irforge.runtime.tracking import Tracked
from irforge.session import StageTimes


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def deep_frame() -> np.ndarray:
    levels = np.random.default_rng(0).normal(8000, 20, (64, 80))
    levels[30:33, 40:43] = 8400
    return levels.astype(np.uint16)


def result(frame: np.ndarray, detections: Detections | None = None, captured: float | None = 0.0) -> Result:
    record = SourceFrame(7, "clip.png", None, frame, captured)
    return Result(0, record, detections or Detections.empty(), StageTimes(0.001, 0.02, 0.003))


def test_full_range_leaves_8_bit_levels_alone() -> None:
    frame = np.arange(256, dtype=np.uint8).reshape(16, 16)
    content, levels = encoded(frame, DisplayGain("full"), 8, lossless=True)
    assert levels == (0, 255) and np.array_equal(decoded(content), frame)


def test_full_range_of_counts_is_that_of_their_depth() -> None:
    content, levels = encoded(deep_frame(), DisplayGain("full"), 14, lossless=True)
    assert levels == (0, 16383)
    assert abs(float(np.median(decoded(content))) - 8000 / 16383 * 255) < 1


def test_auto_gain_spreads_the_scene_and_keeps_the_target_on_top() -> None:
    content, (low, high) = encoded(deep_frame(), DisplayGain("auto"), 14, lossless=True)
    shown = decoded(content)
    assert 7900 < low < 8000 < high <= 8400
    assert shown[31, 41] == 255 and 5 < shown.std() < 120


def test_manual_gain_is_linear_between_its_levels() -> None:
    content, levels = encoded(deep_frame(), DisplayGain("manual", 8000, 8400), 14, lossless=True)
    shown = decoded(content)
    assert levels == (8000, 8400) and shown[31, 41] == 255 and shown[deep_frame() <= 8000].max() == 0
    # A window that is turned round is one level wide, and no division by zero.
    assert encoded(deep_frame(), DisplayGain("manual", 8000, 10), 14, lossless=True)[1] == (8000, 8001)


@pytest.mark.parametrize("mode", ["full", "auto"])
def test_a_flat_frame_is_a_picture(mode: str) -> None:
    content, (low, high) = encoded(np.full((32, 32), 77, np.uint8), DisplayGain(mode), 8, lossless=False)
    assert low < high and decoded(content).shape == (32, 32)


def test_colours_are_shown_as_the_gray_that_the_detector_gets() -> None:
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[..., 0] = 90
    assert (decoded(encoded(frame, DisplayGain("full"), 8, lossless=True)[0]) == 30).all()


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_the_raw_frame_is_the_frame(shape: tuple[int, ...]) -> None:
    dtype = np.uint16 if len(shape) == 2 else np.uint8
    frame = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    back = decoded(raw_png(frame))
    assert back.dtype == dtype and np.array_equal(back if len(shape) == 2 else back[..., ::-1], frame)


def test_palettes() -> None:
    tables = {name: palette_table(name) for name in PALETTES}
    assert all(table.shape == (256, 3) and table.dtype == np.uint8 for table in tables.values())
    assert np.array_equal(tables["white-hot"], tables["black-hot"][::-1])
    luma = tables["ironbow"].astype(float) @ (0.299, 0.587, 0.114)
    # Hotter is brighter, all the way: nothing hot looks cold.
    assert (np.diff(luma) > -0.51).all() and luma[-1] - luma[0] > 230


def test_a_snapshot_has_the_palette_the_marks_and_the_tracks_above_the_threshold() -> None:
    frame = np.full((64, 64), 60, np.uint8)
    boxes = np.array([[10, 10, 13, 13], [40, 40, 43, 43]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.4]), np.zeros(2))
    trails = {5: np.array([[2, 2], [11.5, 11.5]], np.float32)}
    tracked = Tracked.of(found, np.array([5, -1]), trails)
    both, one, plain = (
        decoded(snapshot_png(result(frame, tracked), level, DisplayGain("full"), 8, "ironbow"))
        for level in (0.3, 0.5, 0.95)
    )
    background = palette_table("ironbow")[60]
    assert (plain[..., ::-1] == background).all()
    zoom = plain.shape[0] // 64
    first, second = (slice(0, 25 * zoom),) * 2, (slice(36 * zoom, 48 * zoom),) * 2
    assert (one[first] != plain[first]).any() and (one[second] == plain[second]).all()
    assert (both[second] != plain[second]).any()
    # The target itself is not drawn upon.
    assert (both[10 * zoom : 13 * zoom, 10 * zoom : 13 * zoom] == plain[0, 0]).all()


def test_the_histogram_holds_its_range_and_grows() -> None:
    histogram = Histogram(14)
    first = histogram(deep_frame())
    assert len(first["bins"]) == BINS and max(first["bins"]) == 1 and min(first["bins"]) >= 0
    assert first["low"] < deep_frame().min() and deep_frame().max() < first["high"] < 16384
    again = histogram(deep_frame() + 10)
    assert (again["low"], again["high"]) == (first["low"], first["high"])
    hot = deep_frame()
    hot[0, 0] = 16000
    assert histogram(hot)["high"] >= 16000
    assert Histogram(8)(np.zeros((16, 16), np.uint8))["bins"][0] == 1


def test_what_is_kept_for_snapshots_is_bounded() -> None:
    hub = Hub(0.5)
    for _ in range(3 * _KEPT_FRAMES):
        hub.publish(result(np.zeros((8, 8), np.uint8)))
    assert hub.find(hub.latest.seq) is hub.latest and hub.find(hub.latest.seq - _KEPT_FRAMES) is None
    large = np.zeros(_KEPT_BYTES // 2, np.uint8).reshape(-1, 1024)
    for _ in range(4):
        hub.publish(result(large))
    assert hub.find(hub.latest.seq - 1) is not None and hub.find(hub.latest.seq - 2) is None


def test_a_frame_that_is_shown_again_is_no_measurement() -> None:
    hub = Hub(0.5)
    for captured in (None, None, None):
        hub.publish(result(np.zeros((8, 8), np.uint8), captured=captured))
    found = hub.statistics()
    assert found["latencies"] == [] and found["p50"] is None and found["fps"] == 0
