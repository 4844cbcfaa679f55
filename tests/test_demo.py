"""Promises of `make demo`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from irforge import demo
from irforge.contract import PadToMultiple
from irforge.errors import ArtifactError


def test_a_step_is_done_once_and_again_when_its_input_or_output_changes(tmp_path: Path, capsys) -> None:
    source, made = tmp_path / "in", tmp_path / "made"
    source.write_text("1")
    runs = []

    def step() -> None:
        runs.append(made.write_text(f"made of {source.read_text()}"))

    def once() -> None:
        demo.once(tmp_path, "copy", [source], [made], step)

    once()
    once()
    assert len(runs) == 1
    assert capsys.readouterr().out.splitlines()[1] == f"copy        {made}, up to date"
    source.write_text("2")
    once()
    assert len(runs) == 2 and made.read_text() == "made of 2"
    made.write_text("by hand")
    once()
    assert len(runs) == 3
    made.unlink()
    once()
    assert len(runs) == 4


def test_a_step_is_done_again_when_the_code_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, runs = tmp_path / "made", []
    for code in ("a", "a", "b"):
        monkeypatch.setattr(demo, "code_hash", lambda code=code: code)
        demo.once(tmp_path, "step", [], [made], lambda: runs.append(made.write_text("x")))
    assert len(runs) == 2


def test_a_step_that_fails_is_not_remembered(tmp_path: Path) -> None:
    made = tmp_path / "made"

    def fail() -> None:
        made.write_text("half")
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            demo.once(tmp_path, "step", [], [made], fail)
    assert not (tmp_path / demo.STATE).exists()


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"step made": 3}'])
def test_a_damaged_memory_means_that_everything_is_done_again(tmp_path: Path, content: str) -> None:
    (tmp_path / demo.STATE).write_text(content)
    made, runs = tmp_path / "made", []
    demo.once(tmp_path, "step", [], [made], lambda: runs.append(made.write_text("x")))
    assert len(runs) == 1
    assert list(json.loads((tmp_path / demo.STATE).read_text())) == ["step made"]


def test_missing_weights_are_one_line_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irforge.samples.FRAMES", tmp_path / "samples" / "frames")
    with pytest.raises(ArtifactError, match=r"mshnet\.safetensors' is missing\. Give --weights"):
        demo.shipped_weights()


def test_the_overlay_shows_six_frames(spot_model, tmp_path: Path) -> None:
    model = spot_model(size=(256, 256), fit=PadToMultiple(multiple=1))
    demo.overlay(model, tmp_path / "overlay.png")
    picture = cv2.imread(str(tmp_path / "overlay.png"))
    assert picture.shape == (1024, 1536, 3)


def test_the_demo_ends_on_five_seconds_of_the_video_that_ships(spot_model, tmp_path: Path, capsys) -> None:
    model = spot_model(size=(256, 256))
    for _ in range(2):
        demo.clip(model, tmp_path / "clip.mp4")
    video = cv2.VideoCapture(str(tmp_path / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 150 and video.get(cv2.CAP_PROP_FPS) == 30
    assert capsys.readouterr().out.splitlines()[-1].endswith("clip.mp4, up to date")


def test_files_are_named_as_cameras_are_sold() -> None:
    assert demo.stem(demo.SMALL) == "mshnet" and demo.stem(demo.HEADLINE) == "mshnet.640x512"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_makes_every_file_it_names_without_data_from_elsewhere_and_repeats_quickly(tmp_path: Path) -> None:
    weights = demo.shipped_weights()
    surroundings = {name: value for name, value in os.environ.items() if name != "IRFORGE_DATA"}
    command = [sys.executable, "-m", "irforge.demo", "--out", str(tmp_path / "out"), "--weights", str(weights)]
    first = subprocess.run(command, capture_output=True, text=True, env=surroundings, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    stems = [f"{name}{kind}" for name in ("mshnet", "mshnet.640x512") for kind in ("", ".fp16", ".int8")]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"{s}.onnx" for s in stems} <= names
    engines = [f"{s}{kind}.rtx.engine" for s in stems for kind in ("", ".sm75")]
    assert {f"{engine}{end}" for engine in engines for end in ("", ".json")} <= names
    assert {"report.json", "report.html", "overlay.png", "clip.mp4"} <= names
    assert str(tmp_path / "out" / "report.html") in first.stdout.splitlines()[-1]
    again = subprocess.run(command, capture_output=True, text=True, env=surroundings, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("up to date") == 23
