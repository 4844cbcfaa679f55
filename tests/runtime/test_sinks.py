"""Promises of the sinks and of the marks they draw."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.detections import Detections
from irforge.errors import EnvironmentFault, InputError, UsageError
from irforge.runtime.drawing import displayable, draw
from irforge.runtime.sinks import JsonLines, MotLines, NullSink, OverlayImages, OverlayVideo, Sink, overlay_sink
from irforge.runtime.sources import SourceFrame


def record(index: int, height: int = 64, width: int = 80) -> SourceFrame:
    frame = np.full((height, width), 90, np.uint8)
    frame[30:31, 40:43] = 200
    return SourceFrame(index, f"frame{index}.png", index / 10, frame)


def found() -> Detections:
    return Detections(
        boxes=np.array([[40, 30, 43, 31]], np.float32),
        scores=np.array([0.875], np.float32),
        classes=np.array([0]),
        centres=np.array([[41.5, 30.5]], np.float32),
        areas=np.array([3], np.float32),
    )


@pytest.mark.parametrize("path", ["", "/"])
def test_lines_into_a_folder_are_refused_before_the_first(path: str) -> None:
    with pytest.raises(UsageError, match="is a folder, lines need a file"), JsonLines(Path(path)):
        pass


def test_json_lines_say_frame_time_and_detections(tmp_path: Path) -> None:
    path = tmp_path / "out" / "found.jsonl"
    with JsonLines(path, ["target"]) as sink:
        sink.write(record(0), found())
        sink.write(record(1), Detections.empty())
        assert not path.exists()
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "index": 0,
        "id": "frame0.png",
        "time": 0.0,
        "detections": [
            {"box": [40, 30, 43, 31], "score": 0.875, "class": 0, "label": "target", "centre": [41.5, 30.5], "area": 3}
        ],
    }
    assert second["time"] == 0.1 and second["detections"] == []


def test_json_lines_of_a_live_source_say_their_age_and_shutter(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    taken = SourceFrame(3, "camera:0", 1.5, record(0).frame, captured=time.monotonic() - 2, shutter=True)
    with JsonLines(path) as sink:
        sink.write(taken, Detections.empty())
    line = json.loads(path.read_text())
    assert line["age"] == pytest.approx(2, abs=0.5) and line["shutter"] is True


def test_lines_can_be_read_while_they_are_written_and_a_killed_run_leaves_them(tmp_path: Path) -> None:
    path, left = tmp_path / "found.jsonl", tmp_path / "found.jsonl.partial"
    left.write_text("of a run that was killed\n")
    with JsonLines(path) as sink:
        for index in range(3):
            sink.write(record(index), found())
            lines = (tmp_path / "found.jsonl.2.partial").read_text().splitlines()
            assert [json.loads(line)["index"] for line in lines] == list(range(index + 1))
    assert left.read_text() == "of a run that was killed\n"
    assert sorted(tmp_path.iterdir()) == [path, left]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
import numpy as np
from irforge.detections import Detections
from irforge.runtime.sinks import JsonLines
from irforge.runtime.sources import SourceFrame

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
with JsonLines("o.jsonl") as sink:
    try:
        for index in range(100):
            sink.write(SourceFrame(index, "frame", None, np.zeros((4, 4), np.uint8)), Detections.empty())
    except OSError:
        print(index)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(int(done.stdout))) and len(lines) > 5


def test_mot_counts_frames_and_pixels_from_one(tmp_path: Path) -> None:
    with MotLines(tmp_path / "found.csv") as sink:
        sink.write(record(0), Detections.empty())
        sink.write(record(1), found())
    # The box of the pixels 40 to 42 of row 30, counted from 0.
    assert (tmp_path / "found.csv").read_text() == "2,-1,41.00,31.00,3.00,1.00,0.875000,-1,-1,-1\n"


def test_overlay_video_holds_every_frame_with_visible_marks(tmp_path: Path) -> None:
    path = tmp_path / "overlay.mp4"
    with OverlayVideo(path, 12.5) as sink:
        for index in range(7):
            sink.write(record(index), found())
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    picture = capture.read()[1].astype(int)
    green = (picture[..., 1] - picture[..., 2] > 60) & (picture[..., 1] - picture[..., 0] > 60)
    assert picture.shape == (512, 640, 3)
    assert green.sum() > 50


def test_a_stream_of_several_sizes_gives_a_video_of_the_first(tmp_path: Path) -> None:
    with OverlayVideo(tmp_path / "overlay.avi", None) as sink:
        sink.write(record(0), found())
        sink.write(record(1, 96, 200), found())
        sink.write(record(2, 65, 81), Detections.empty())
    assert cv2.VideoCapture(str(tmp_path / "overlay.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_overlay_pictures_keep_order_and_leave_other_files_alone(tmp_path: Path) -> None:
    folder = tmp_path / "overlay"
    folder.mkdir()
    (folder / "notes.md").write_text("mine")
    with overlay_sink(folder, None) as sink:
        for index in range(3):
            sink.write(record(index), found())
    assert sorted(path.name for path in folder.iterdir()) == [
        "000000_frame0.png",
        "000001_frame1.png",
        "000002_frame2.png",
        "notes.md",
    ]


@pytest.mark.parametrize("kind", [JsonLines, MotLines, lambda path: OverlayVideo(path, 25), OverlayImages])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_nothing_stays_after_an_interruption(
    tmp_path: Path, kind: type[Sink], interruption: type[BaseException]
) -> None:
    before = tmp_path / "out.mp4"
    before.write_text("an older result")
    with pytest.raises(interruption), kind(tmp_path / "new.mp4") as sink, kind(before) as other:
        for index in range(3):
            sink.write(record(index), found())
            other.write(record(index), found())
        raise interruption
    assert list(tmp_path.iterdir()) == [before]
    assert before.read_text() == "an older result"


def test_a_video_that_did_not_arrive_whole_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(EnvironmentFault, match="could not be written whole"),
        OverlayVideo(tmp_path / "o.mp4", 25) as sink,
    ):
        sink.write(record(0), found())
        # What a full disk does: fewer frames in the file than were handed over.
        sink._written += 5
    assert list(tmp_path.iterdir()) == []


def test_a_video_of_nothing_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frame came"), OverlayVideo(tmp_path / "o.mp4", 25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_unknown_overlay_formats_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="overlay called"):
        overlay_sink(tmp_path / "overlay.gif", None)
    assert isinstance(overlay_sink(tmp_path / "overlay.MP4", None), OverlayVideo)


def test_null_sink_takes_everything() -> None:
    with NullSink() as sink:
        sink.write(record(0), found())


def test_marks_stand_around_a_small_target_and_never_upon_it() -> None:
    frame = record(0).frame
    plain, marked = draw(frame, Detections.empty()), draw(frame, found())
    zoom = plain.shape[1] // frame.shape[1]
    assert zoom == 8
    target = np.s_[30 * zoom : 31 * zoom, 40 * zoom : 43 * zoom]
    assert np.array_equal(plain[target], marked[target])
    assert (plain != marked).any()


def test_drawing_changes_neither_frame_nor_size_parity() -> None:
    frame = np.full((65, 641), 90, np.uint8)
    before = frame.copy()
    assert draw(frame, found()).shape == (66, 642, 3)
    assert np.array_equal(frame, before)


def test_deep_frames_are_stretched_for_the_eye_only() -> None:
    frame = np.random.default_rng(0).normal(8000, 20, (64, 80)).astype(np.uint16)
    shown = displayable(frame)
    assert shown.dtype == np.uint8 and shown.shape == (64, 80, 3)
    assert shown.min() == 0 and shown.max() == 255
    assert displayable(np.full((8, 8), 5000, np.uint16)).max() == 0
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 0] = 255
    assert (displayable(colour)[0, 0] == (0, 0, 255)).all()
