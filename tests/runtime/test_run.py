"""Promises of `irforge run`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.errors import InputError, UsageError
from irforge.runtime.counts import Counts
from irforge.runtime.run import run
from irforge.runtime.sinks import JsonLines
from irforge.runtime.sources import opening
from irforge.runtime.sources.base import Source, SourceFrame
from irforge.session import StageTimes
from tests.box_model import box_frame, write_box_model

Model = Callable[..., Path]
Frames = Callable[..., np.ndarray]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, spot_frame: Frames) -> Path:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(4):
        cv2.imwrite(str(frames / f"f{index}.png"), spot_frame(x=10 * index + 5))
    return frames


def test_a_folder_becomes_json_lines_and_an_overlay(tmp_path: Path, folder: Path, spot_model: Model) -> None:
    out, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    command = [sys.executable, "runtime/run.py", str(spot_model()), str(folder), "--json", str(out)]
    done = subprocess.run([*command, "--overlay", str(video)], capture_output=True, text=True, cwd=ROOT, check=True)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["f0.png", "f1.png", "f2.png", "f3.png"]
    assert [line["detections"][0]["box"][0] for line in lines] == [5, 15, 25, 35]
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 4
    first, last = done.stdout.splitlines()
    assert first.startswith("Detector(spot.onnx")
    assert last.startswith("4 frames, 4 detections; ms at p50/p99: prepare ")
    assert done.stderr == ""


def test_limit_stops_early_and_reads_no_further(tmp_path: Path, folder: Path, spot_model: Model) -> None:
    (folder / "f2.png").write_bytes(b"broken")
    run(spot_model(), [str(folder)], json_lines=tmp_path / "out.jsonl", limit=2)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_the_closing_line_gives_percentiles_of_every_stage() -> None:
    times = [StageTimes(0.001 * i, 0.010 * i, 0.0001 * i) for i in range(1, 101)]
    counts = Counts(published=100, detections=7)
    counts.times.extend(times)
    assert counts.lines() == [
        "100 frames, 7 detections; ms at p50/p99: prepare 50.00/99.00, infer 500.00/990.00, decode 5.00/9.90"
    ]


def test_boxes_without_centres_become_json_lines_and_pictures(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, targets in enumerate([[(10, 20), (40, 30)], []]):
        cv2.imwrite(str(frames / f"f{index}.png"), box_frame(*targets))
    out, overlay = tmp_path / "out.jsonl", tmp_path / "overlay"
    run(write_box_model(tmp_path / "peaks.onnx"), [str(frames)], json_lines=out, overlay=overlay)
    first, second = (json.loads(line)["detections"] for line in out.read_text().splitlines())
    assert second == [] and [found["label"] for found in first] == ["target"] * 2
    # Nobody asks for a centre that the detector does not give; the area is the box's.
    assert set(first[0]) == {"box", "score", "class", "label", "area"}
    assert sorted(found["box"] for found in first) == [
        pytest.approx([10, 20, 13, 23], abs=0.3),
        pytest.approx([40, 30, 43, 33], abs=0.3),
    ]
    marked, plain = (cv2.imread(str(path)) for path in sorted(overlay.iterdir()))
    assert (marked[..., 1] > marked[..., 2]).any() and not (plain[..., 1] > plain[..., 2]).any()


def test_a_mot_file_beside_json_lines(tmp_path: Path, folder: Path, spot_model: Model) -> None:
    run(spot_model(), [str(folder)], json_lines=tmp_path / "o.jsonl", mot=tmp_path / "o.csv")
    rows = [line.split(",") for line in (tmp_path / "o.csv").read_text().splitlines()]
    assert [(row[0], row[2]) for row in rows] == [("1", "6.00"), ("2", "16.00"), ("3", "26.00"), ("4", "36.00")]


def test_several_sources_write_to_numbered_files(tmp_path: Path, spot_model: Model) -> None:
    sources = [f"synthetic:64x64,frames=5,targets=1,seed={seed}" for seed in (1, 2)]
    run(spot_model(), sources, json_lines=tmp_path / "o.jsonl", overlay=tmp_path / "o.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"o.0.jsonl", "o.1.jsonl", "o.0.mp4", "o.1.mp4"}
    boxes = []
    for number in (0, 1):
        lines = [json.loads(line) for line in (tmp_path / f"o.{number}.jsonl").read_text().splitlines()]
        assert [line["index"] for line in lines] == list(range(5))
        boxes.append([line["detections"][0]["box"] for line in lines])
    assert boxes[0] != boxes[1]


def test_pictures_of_several_sources_go_to_a_folder_each(tmp_path: Path, spot_model: Model) -> None:
    run(spot_model(), ["synthetic:64x64,frames=2", "synthetic:64x64,frames=1"], overlay=tmp_path / "marks")
    assert [len(list((tmp_path / "marks" / number).iterdir())) for number in "01"] == [2, 1]


def test_a_raw_recording_is_corrected_on_its_way(tmp_path: Path, spot_model: Model) -> None:
    # Black-hot, with telemetry at the bottom, a dead pixel, a column that is off: one real target.
    frames = np.random.default_rng(0).normal(8000, 4, (3, 68, 64))
    frames[:, 40:43, 30:33] -= 900
    frames[:, :, 12] -= 500
    frames[:, 20, 50] = 0
    frames[:, 64:] = np.arange(64) * 200
    (tmp_path / "clip.y16").write_bytes(frames.astype("<u2").tobytes())
    dead = np.zeros((64, 64), np.uint8)
    dead[20, 50] = 255
    cv2.imwrite(str(tmp_path / "dead.png"), dead)
    model = spot_model(bit_depth=14, gain={"kind": "min-max"})
    out, clip = tmp_path / "o.jsonl", [str(tmp_path / "clip.y16")]
    corrections = {"telemetry": "0,4", "dead_pixels": str(tmp_path / "dead.png"), "column_noise": True, "invert": True}
    run(model, clip, json_lines=out, size="64x68", smooth_gain=0.1, **corrections)
    for line in out.read_text().splitlines():
        (found,) = json.loads(line)["detections"]
        assert found["box"] == [30, 40, 33, 43]
    with pytest.raises(UsageError, match="--size"):
        run(model, clip)


def test_a_shutter_in_a_recording_is_flagged_in_the_lines(tmp_path: Path, spot_model: Model) -> None:
    random = np.random.default_rng(0)
    scene = np.full((64, 64), 8000.0)
    scene[40:43, 30:33] += 900
    levels = [*[scene] * 6, *[np.full((64, 64), 8300.0)] * 4, *[scene + 30] * 4]
    (tmp_path / "clip.y16").write_bytes(np.stack([random.normal(one, 4) for one in levels]).astype("<u2").tobytes())
    model, out = spot_model(bit_depth=14, gain={"kind": "min-max"}), tmp_path / "o.jsonl"
    run(model, [str(tmp_path / "clip.y16")], json_lines=out, size="64x64", shutter=True)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["index"] for line in lines if line.get("shutter")] == [6, 7, 8, 9]


def test_a_slow_disk_makes_a_recording_wait_and_a_camera_drop_and_says_how_many(
    tmp_path: Path, spot_model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = JsonLines.write

    def slowly(*given: Any) -> None:
        time.sleep(0.03)
        write(*given)

    monkeypatch.setattr(JsonLines, "write", slowly)
    out, model = tmp_path / "o.jsonl", spot_model()
    run(model, ["synthetic:64x64,frames=40"], json_lines=out)
    assert [json.loads(line)["index"] for line in out.read_text().splitlines()] == list(range(40))
    assert "dropped" not in capsys.readouterr().out
    run(model, ["synthetic:64x64,frames=60,live=1,fps=200"], json_lines=out)
    written = [json.loads(line)["index"] for line in out.read_text().splitlines()]
    assert written == sorted(set(written)) and written[-1] == 59 and len(written) < 60
    assert f"read 60, dropped {60 - len(written)};" in capsys.readouterr().out


def test_frames_of_another_size_in_mid_stream_keep_their_own_pixels(
    tmp_path: Path, folder: Path, spot_frame: Frames, spot_model: Model
) -> None:
    cv2.imwrite(str(folder / "f2.png"), cv2.resize(spot_frame(x=25), (128, 192), interpolation=cv2.INTER_NEAREST))
    out, video = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    run(spot_model(), [str(folder)], json_lines=out, overlay=video)
    boxes = [json.loads(line)["detections"][0]["box"] for line in out.read_text().splitlines()]
    assert boxes == [[5, 30, 8, 31], [15, 30, 18, 31], [50, 90, 56, 93], [35, 30, 38, 31]]
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 4


class Unplugged(Source):
    """A camera that gives three frames and is gone."""

    name = "camera:0"
    live = True

    def records(self) -> Iterator[SourceFrame]:
        for index in range(3):
            yield SourceFrame(index, self.name, index / 25, np.full((64, 64), 90, np.uint8), time.monotonic())
            time.sleep(0.2)
        raise InputError("camera:0 has given no frames for 10 s", "Check its cable")


def test_what_a_camera_saw_stays_when_it_is_unplugged(
    tmp_path: Path, spot_model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(opening.SCHEMES, "camera", lambda *_: Unplugged())
    with pytest.raises(InputError, match="no frames for 10 s"):
        run(spot_model(), ["camera:0"], json_lines=tmp_path / "o.jsonl", overlay=tmp_path / "o.mp4")
    assert [json.loads(line)["index"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == [0, 1, 2]
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert "3 frames, 0 detections" in capsys.readouterr().out


def started(folder: Path, model: Path, *options: str) -> subprocess.Popen[str]:
    """A run on an endless camera, once it has written some lines."""
    source = "synthetic:64x64,frames=0,live=1,fps=100"
    command = [sys.executable, "-m", "irforge.cli", "run", str(model), source, "--json", "o.jsonl", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True
    )
    growing = folder / "o.jsonl.partial"
    while not growing.exists() or growing.read_bytes().count(b"\n") < 20:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_live_run_well(tmp_path: Path, spot_model: Model, number: signal.Signals) -> None:
    process = started(tmp_path, spot_model(), "--overlay", "o.mp4")
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert {path.name for path in tmp_path.iterdir()} == {"o.jsonl", "o.mp4"}
    assert cv2.VideoCapture(str(tmp_path / "o.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == len(lines)
    _, closing, live = output.splitlines()
    assert closing.startswith(f"{len(lines)} frames, ")
    read, dropped = (int(part.split()[1]) for part in live.split(";")[0].split(","))
    assert read == len(lines) + dropped


def test_a_network_camera_that_drops_is_said_waited_for_and_back(tmp_path: Path, spot_model: Model) -> None:
    av = pytest.importorskip("av", reason="the stream is encoded by PyAV: pip install 'irforge[video]'")
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV does not encode H.264")
    from tests.runtime.rtsp_camera import RtspCamera

    growing = tmp_path / "o.jsonl.partial"

    def grown(process: subprocess.Popen[str], lines: int) -> int:
        while not growing.exists() or growing.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        return growing.read_bytes().count(b"\n")

    with RtspCamera(60, damaged=True) as camera:
        command = [sys.executable, "-m", "irforge.cli", "run", str(spot_model()), camera.url, "--json", "o.jsonl"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
        )
        grown(process, 30)
    assert process.stderr is not None
    said = [process.stderr.readline()]
    before = grown(process, 5)
    with RtspCamera(60, camera.port):
        grown(process, before + 5)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    said += errors.splitlines(keepends=True)
    assert process.returncode == 0 and said[0] == f"irforge: {camera.url} gives no frames; connecting again\n"
    assert len(said) == 2 and said[1].startswith(f"irforge: {camera.url} is back after ")
    indices = [json.loads(line)["index"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert indices == sorted(set(indices)) and len(indices) >= before + 5
    assert re.fullmatch(f"{camera.url}: \\d+ damaged frames left out", output.splitlines()[-1])


def test_kill_9_leaves_every_line_so_far(tmp_path: Path, spot_model: Model) -> None:
    process = started(tmp_path, spot_model(), "--policy", "lossless")
    process.kill()
    process.communicate(timeout=60)
    text = (tmp_path / "o.jsonl.partial").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert text.endswith("\n") and [line["index"] for line in lines] == list(range(len(lines))) and len(lines) >= 20
