"""Promises of `irforge run`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.runtime.run import closing_line, run
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
    run(spot_model(), str(folder), json_lines=tmp_path / "out.jsonl", limit=2)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_the_closing_line_gives_percentiles_of_every_stage() -> None:
    times = [StageTimes(0.001 * i, 0.010 * i, 0.0001 * i) for i in range(1, 101)]
    assert closing_line(times, 7) == (
        "100 frames, 7 detections; ms at p50/p99: prepare 50.00/99.00, infer 500.00/990.00, decode 5.00/9.90"
    )


def test_boxes_without_centres_become_json_lines_and_pictures(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, targets in enumerate([[(10, 20), (40, 30)], []]):
        cv2.imwrite(str(frames / f"f{index}.png"), box_frame(*targets))
    out, overlay = tmp_path / "out.jsonl", tmp_path / "overlay"
    run(write_box_model(tmp_path / "peaks.onnx"), str(frames), json_lines=out, overlay=overlay)
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
