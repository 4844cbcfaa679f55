"""Promises of tracks: one target is one number, whatever the camera does meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.detections import Detections
from irforge.errors import EnvironmentFault, UsageError
from irforge.runtime.detector import SessionDetector, load
from irforge.runtime.pipeline import Pipeline
from irforge.runtime.run import run
from irforge.runtime.sinks import JsonLines, MotLines, OverlayImages
from irforge.runtime.sinks.overlay import draw_tracks, track_colour
from irforge.runtime.sources import SourceFrame
from irforge.runtime.sources.synthetic import Scene, Synthetic
from irforge.runtime.tracking import Tracked, Tracker, TrackSettings, tracker
from irforge.runtime.tracking.motion import CameraMotion
from tests.box_model import write_box_model

pytest.importorskip("trackers", reason="trackers is not installed")

Model = Callable[..., Path]
BLANK = np.full((100, 120), 90, np.uint8)


def spots(*centres: tuple[float, float], scores: list[float] | None = None, side: float = 3) -> Detections:
    points = np.array(centres, np.float32).reshape(-1, 2)
    boxes = np.concatenate([points - side / 2, points + side / 2], axis=1)
    return Detections(boxes, np.array(scores or [0.9] * len(points)), np.zeros(len(points)))


def follow(found: list[Detections], settings: TrackSettings | None = None, **fields: Any) -> list[list[int]]:
    """The tracks in successive frames that show nothing but noise."""
    made = Tracker(settings or TrackSettings(**fields), fps=25)
    return [
        made.update(SourceFrame(index, "clip", index / 25, BLANK), one).tracks.tolist()
        for index, one in enumerate(found)
    ]


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rough = np.random.default_rng(seed).random((height // 8, width // 8), np.float32)
    return (cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC) * 120 + 60).clip(0, 255).astype(np.uint8)


# --- association


def test_a_track_has_its_number_from_the_third_frame_on() -> None:
    assert follow([spots((10 + k, 50)) for k in range(5)]) == [[-1], [-1], [1], [1], [1]]
    assert follow([spots((10 + k, 50)) for k in range(3)], confirm=1)[-1] == [1]


def test_targets_that_never_overlap_are_associated_by_centre() -> None:
    # 3 pixels wide, 5 pixels a frame.
    moving = [spots((10 + 5 * k, 50)) for k in range(12)]
    assert follow(moving)[2:] == [[1]] * 10
    assert follow(moving, by="overlap") == [[-1]] * 12


def test_large_targets_may_be_associated_by_overlap() -> None:
    assert follow([spots((30 + 5 * k, 50), side=30) for k in range(8)], by="overlap")[2:] == [[1]] * 6


def test_what_jumps_farther_than_the_reach_is_another_target() -> None:
    there_and_away = [spots((20, 50))] * 5 + [spots((40, 50))] * 5
    assert follow(there_and_away)[-1] == [2]
    assert follow(there_and_away, reach=25.0)[-1] == [1]


def test_two_targets_keep_their_numbers_when_their_paths_cross() -> None:
    crossing = [spots((10 + 4 * k, 30 + 2 * k), (10 + 4 * k, 70 - 2 * k)) for k in range(20)]
    numbers = follow(crossing)
    assert set(map(tuple, numbers[2:])) == {(1, 2)}


def test_a_gap_is_bridged_and_a_long_one_is_not() -> None:
    def with_gap(frames: int) -> list[list[int]]:
        return follow([spots((10 + k, 50)) if not 10 <= k < 10 + frames else spots() for k in range(60)])

    assert with_gap(12)[-1] == [1]
    assert with_gap(40)[-1] == [2]


def test_one_false_alarm_is_no_track() -> None:
    random = np.random.default_rng(0)
    alarms = [spots(*random.uniform(0, 1000, (1, 2))) for _ in range(100)]
    assert {number for numbers in follow(alarms) for number in numbers} == {-1}


def test_a_low_score_continues_a_track_and_starts_none() -> None:
    weak = [spots((10 + k, 50), scores=[0.3]) for k in range(20)]
    assert {number for numbers in follow(weak, start=0.5) for number in numbers} == {-1}
    assert follow([spots((9, 50))] * 3 + weak, start=0.5)[-1] == [1]


def test_settings_that_make_no_track_are_refused() -> None:
    with pytest.raises(UsageError, match="reach 0, confirm 3"):
        TrackSettings(reach=0)


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="pip install 'irforge\\[track\\]'"):
        Tracker()


# --- the camera


@pytest.mark.parametrize(("size", "shift"), [((256, 320), (7, -4)), ((256, 320), (40, 30)), ((512, 640), (13, 6))])
def test_a_shift_of_the_picture_is_seen(size: tuple[int, int], shift: tuple[int, int]) -> None:
    scene = texture(size[0] + 100, size[1] + 100)
    noise = np.random.default_rng(1).normal(0, 2, (2, *size))
    motion = CameraMotion()
    places = [(50, 50), (50 - shift[1], 50 - shift[0])]
    frames = [
        (scene[y : y + size[0], x : x + size[1]] + n).astype(np.uint8) for (y, x), n in zip(places, noise, strict=True)
    ]
    assert motion.update(frames[0]).tolist() == [0, 0]
    assert motion.update(frames[1]) == pytest.approx(shift, abs=1)
    assert motion.update(frames[1]) == pytest.approx((0, 0), abs=0.1)
    assert motion.update(frames[1][::2]).tolist() == [0, 0]


def test_nothing_to_hold_on_to_is_no_motion() -> None:
    random = np.random.default_rng(0)
    motion = CameraMotion()
    for _ in range(6):
        found = motion.update(random.normal(8000, 20, (256, 320)).astype(np.uint16))
        assert np.abs(found).max() < 1


def shaken(camera: bool) -> list[Tracked]:
    """A target that moves one pixel a frame while the camera jumps 20 pixels to and fro."""
    scene = texture(260, 340)
    made = Tracker(TrackSettings(camera=camera), fps=25)
    results = []
    for k in range(12):
        x = 20 * (k % 2)
        frame = np.ascontiguousarray(scene[:240, x : x + 300])
        results.append(made.update(SourceFrame(k, "clip", k / 25, frame), spots((150 + k - x, 100))))
    return results


def test_a_shaking_camera_breaks_no_track() -> None:
    assert [result.tracks.tolist() for result in shaken(camera=True)][2:] == [[1]] * 10
    assert [1] not in [result.tracks.tolist() for result in shaken(camera=False)][:6]


def test_trails_move_with_the_camera() -> None:
    last = shaken(camera=True)[-1]
    trail = last.trails[1]
    assert trail.shape == (10, 2) and trail.dtype == np.float32
    assert np.diff(trail[:, 0]) == pytest.approx(1, abs=0.5)
    assert trail[-1] == pytest.approx((150 + 11 - 20, 100), abs=0.01)


# --- time


def test_a_closed_shutter_holds_tracks() -> None:
    def after(shutter: bool) -> list[int]:
        made = Tracker(fps=25)
        for k in range(60):
            closed = 10 <= k < 45
            found = spots() if closed else spots((10 + k, 50))
            result = made.update(SourceFrame(k, "clip", k / 25, BLANK, shutter=shutter and closed), found)
        return result.tracks.tolist()

    # 35 frames are longer than a track may be lost.
    assert after(shutter=True) == [1]
    assert after(shutter=False) == [2]


def test_what_is_found_while_the_shutter_is_closed_belongs_to_no_track() -> None:
    made = Tracker(TrackSettings(confirm=1), fps=25)
    for k in range(4):
        result = made.update(SourceFrame(k, "clip", k / 25, BLANK, shutter=k == 3), spots((10, 50)))
    assert result.tracks.tolist() == [-1] and result.trails == {}


@pytest.mark.parametrize("timed", [True, False])
def test_dropped_frames_count(timed: bool) -> None:
    made = Tracker(fps=25)
    kept = [*range(8), 13, 14, 20, 21]
    for k in kept:
        result = made.update(SourceFrame(k, "camera", k / 25 if timed else None, BLANK), spots((5 + 4 * k, 50)))
    assert result.tracks.tolist() == [1]


def test_memory_of_old_tracks_does_not_stay() -> None:
    made = Tracker(TrackSettings(confirm=1, lost=0.1), fps=25)
    for k in range(400):
        made.update(SourceFrame(k, "clip", k / 25, BLANK), spots((40 * (k // 4 % 20), 50)))
    assert len(made._trails) < 20


# --- where tracks go


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionDetector]:
    with load(write_box_model(tmp_path_factory.mktemp("tracking") / "peaks.onnx"), threads=1) as loaded:
        yield loaded


def test_a_pipeline_tracks_each_stream_by_itself(detector: SessionDetector) -> None:
    scenes = [Scene(width=64, height=64, frames=25, targets=1, noise=1, seed=seed) for seed in (1, 2)]
    trackers = [Tracker(fps=25) for _ in scenes]
    with Pipeline(detector, [Synthetic(one) for one in scenes], trackers=trackers) as pipeline:
        results = list(pipeline)
    for stream in (0, 1):
        numbers = [result.detections.tracks.tolist() for result in results if result.stream == stream]
        assert len(numbers) == 25 and numbers[2:] == [[1]] * 23
    assert pipeline.counts.busy["track"] > 0 and "track" in pipeline.counts.lines()[0]


def test_a_failing_tracker_stops_the_run_with_its_cause(detector: SessionDetector) -> None:
    class Failing:
        def update(self, record: SourceFrame, found: Detections) -> Detections:
            if record.index == 4:
                raise ValueError("no more")
            return found

    numbers = []
    source = Synthetic(Scene(width=64, height=64, frames=0))
    with pytest.raises(ValueError, match="no more"), Pipeline(detector, [source], trackers=[Failing()]) as pipeline:
        for result in pipeline:
            numbers.append(result.record.index)
    assert numbers == [0, 1, 2, 3]


def tracked(index: int) -> tuple[SourceFrame, Tracked]:
    trail = np.array([[20, 20], [30, 30], [40, 40], [50, 50]], np.float32)
    return SourceFrame(index, "clip", index / 25, BLANK), Tracked.of(
        spots((50, 50), (80, 20)), np.array([7, -1]), {7: trail}
    )


def test_sinks_write_the_number_of_a_track(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "o.jsonl") as lines, MotLines(tmp_path / "o.csv") as mot:
        lines.write(*tracked(3))
        mot.write(*tracked(3))
    rows = json.loads((tmp_path / "o.jsonl").read_text())["detections"]
    assert rows[0]["track"] == 7 and "track" not in rows[1]
    assert (tmp_path / "o.csv").read_text() == "4,7,49.50,49.50,3.00,3.00,0.900000,-1,-1,-1\n"


def test_an_overlay_shows_the_trail_and_keeps_the_target_clear(tmp_path: Path) -> None:
    record, found = tracked(0)
    shown, plain = draw_tracks(record, found), draw_tracks(record, spots((50, 50), (80, 20)))
    zoom = shown.shape[1] // record.frame.shape[1]
    changed = (shown != plain).any(axis=2)
    assert changed[25 * zoom, 25 * zoom] and changed[35 * zoom, 35 * zoom]
    assert not changed[48 * zoom : 52 * zoom, 48 * zoom : 52 * zoom].any()
    with OverlayImages(tmp_path / "pictures") as pictures:
        pictures.write(record, found)
    assert np.array_equal(cv2.imread(str(tmp_path / "pictures" / "000000_clip.png")), shown)
    assert len({track_colour(number) for number in range(1, 30)}) == 29


def test_tracks_stay_with_their_rows() -> None:
    found = spots((10, 10), (30, 30), (50, 50), scores=[0.9, 0.8, 0.7])
    trails = {number: np.zeros((2, 2), np.float32) for number in (4, 5, 6)}
    whole = Tracked.of(found, np.array([4, 5, 6]), trails)
    part = whole.take([2, 0])
    assert part.tracks.tolist() == [4, 6] and part.boxes[:, 0].tolist() == [8.5, 48.5] and set(part.trails) == {4, 6}
    assert whole.take(whole.scores < 0.85).tracks.tolist() == [5, 6]
    unsorted = Tracked(boxes=found.boxes, scores=found.scores[::-1], classes=found.classes, tracks=np.array([4, 5, 6]))
    assert unsorted.tracks.tolist() == [6, 5, 4] and unsorted.boxes[0, 0] == 48.5


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 detections with 1 tracks"):
        Tracked.of(spots((1, 1), (5, 5)), np.array([1]), {})


def test_run_tracks_and_tiles(tmp_path: Path, spot_model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    out, mot = tmp_path / "o.jsonl", tmp_path / "o.csv"
    run(
        spot_model(),
        ["synthetic:150x100,frames=20,targets=2,noise=1"],
        json_lines=out,
        mot=mot,
        overlay=tmp_path / "o.mp4",
        tile=16,
        track=True,
    )
    lines = [json.loads(line)["detections"] for line in out.read_text().splitlines()]
    assert all("track" not in row for row in lines[0]) and {row["track"] for row in lines[-1]} == {1, 2}
    assert {row.split(",")[1] for row in mot.read_text().splitlines()} == {"1", "2"}
    said = capsys.readouterr().out
    assert "in tiles that overlap by 16 pixels" in said and ", track " in said
