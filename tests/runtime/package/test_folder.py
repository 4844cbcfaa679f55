"""A folder's runner, without irforge, writes what `irforge run` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import irforge.components
from irforge.contract import Letterbox, PadToMultiple, Range
from irforge.errors import UsageError
from irforge.runtime.package.deployable import read_deployable
from irforge.runtime.package.folder import Folder
from irforge.runtime.package.pack import package
from irforge.runtime.package.standalone.targets import components
from irforge.runtime.package.target import write_package
from irforge.runtime.run import run
from tests.box_model import box_frame, write_box_model
from tests.runtime.test_rescoring import name_companion, write_companion

Model = Callable[..., Path]
SAMPLES = Path(irforge.__file__).parent / "samples"

NO_IRFORGE = """
import runpy, sys
sys.modules["irforge"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def runner(folder: Path, *frames: Path) -> subprocess.CompletedProcess[str]:
    """The folder's run.py in a process that cannot import irforge."""
    command = [sys.executable, "-c", NO_IRFORGE, str(folder / "run.py"), *map(str, frames)]
    # Where Python looks first is the folder, as for a script.
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def same_lines(model: Path, frames: list[Path], tmp_path: Path) -> list[dict[str, Any]]:
    """What both write, line for line, with whatever was found."""
    package(model, "folder", tmp_path / "packed")
    images = tmp_path / "given"
    images.mkdir()
    for frame in frames:
        (images / frame.name).write_bytes(frame.read_bytes())
    run(model, [str(images)], json_lines=tmp_path / "expected.jsonl", threads=1)
    done = runner(tmp_path / "packed", *sorted(images.iterdir()))
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "expected.jsonl").read_text()
    return [json.loads(line) for line in done.stdout.splitlines()]


def samples(count: int) -> list[Path]:
    return sorted((SAMPLES / "frames" / "images").glob("*.png"))[:count]


def deep(tmp_path: Path, count: int = 2) -> list[Path]:
    """14-bit frames of noise with one warm target."""
    random, paths = np.random.default_rng(3), []
    for number in range(count):
        frame = random.normal(7000, 60, (48, 80))
        frame[20:23, 30:34] += 3000
        paths.append(tmp_path / f"deep{number}.png")
        cv2.imwrite(str(paths[-1]), frame.clip(0, 16383).astype(np.uint16))
    return paths


SPOTS: dict[str, dict[str, Any]] = {
    "squash": {"size": (96, 80)},
    "letterbox": {"size": (96, 112), "fit": Letterbox(), "pad_level": 40.4},
    "linear": {"size": (300, 270), "resize": "linear"},
    "nearest": {"size": (100, 90), "resize": "nearest", "fit": Letterbox()},
    "padded": {"size": (320, 352), "fit": PadToMultiple(multiple=32)},
    "batch of three": {"batch": 3},
    "min-max": {"gain": {"kind": "min-max"}},
    "clahe": {"gain": {"kind": "clahe", "clip_limit": 3.0, "tiles": 4}},
    "percentile": {"gain": {"kind": "percentile", "low": 1, "high": 99.5}},
}


@pytest.mark.parametrize("fields", SPOTS.values(), ids=SPOTS)
def test_masks_of_every_fit_and_gain(tmp_path: Path, spot_model: Model, fields: dict[str, Any]) -> None:
    lines = same_lines(spot_model(**fields), samples(3), tmp_path)
    assert sum(len(line["detections"]) for line in lines) >= 3


@pytest.mark.parametrize(
    "fields",
    [
        {"gain": {"kind": "min-max"}},
        {"gain": {"kind": "percentile", "low": 0.5, "high": 99.9}},
        {"gain": {"kind": "clahe", "clip_limit": 2.0, "tiles": 4}},
        {"door": "float32"},
    ],
)
def test_frames_of_14_bits(tmp_path: Path, spot_model: Model, fields: dict[str, Any]) -> None:
    lines = same_lines(spot_model(bit_depth=14, **fields), deep(tmp_path), tmp_path)
    assert len(lines) == 2 and any(line["detections"] for line in lines)


@pytest.mark.parametrize("colour", ["mean", "luma"])
def test_colour_becomes_gray_by_the_contract(tmp_path: Path, spot_model: Model, colour: str) -> None:
    frame = np.random.default_rng(1).integers(90, 160, (64, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "c.png"), frame)
    (line,) = same_lines(spot_model(colour=colour), [tmp_path / "c.png"], tmp_path)
    assert line["detections"]


def test_boxes(tmp_path: Path) -> None:
    for number, targets in enumerate([[(10, 20), (40, 30)], [], [(60, 61)]]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), box_frame(*targets))
    lines = same_lines(write_box_model(tmp_path / "peaks.onnx"), sorted(tmp_path.glob("*.png")), tmp_path)
    assert [len(line["detections"]) for line in lines] == [2, 0, 1]


def test_boxes_that_an_image_encoder_judges_again(tmp_path: Path) -> None:
    write_companion(tmp_path / "judge.onnx")
    model = write_box_model(tmp_path / "peaks.onnx")
    cv2.imwrite(str(tmp_path / "0.png"), box_frame((10, 12), (40, 30)))
    (plain,) = same_lines(model, [tmp_path / "0.png"], tmp_path / "plain")
    name_companion(model)
    (judged,) = same_lines(model, [tmp_path / "0.png"], tmp_path / "judged")
    scores = [[found["score"] for found in line["detections"]] for line in (plain, judged)]
    assert len(scores[0]) == 2 and scores[0] != scores[1]


def test_a_video(tmp_path: Path, spot_model: Model) -> None:
    model, clip = spot_model(), tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 64))
    for number in range(4):
        writer.write(cv2.cvtColor(box_frame((10 * number + 5, 20)), cv2.COLOR_GRAY2BGR))
    writer.release()
    package(model, "folder", tmp_path / "packed")
    run(model, [str(clip)], json_lines=tmp_path / "expected.jsonl")
    assert runner(tmp_path / "packed", clip).stdout == (tmp_path / "expected.jsonl").read_text()


@pytest.mark.slow
def test_the_shipped_weights_of_mshnet_on_all_sample_frames(tmp_path: Path) -> None:
    model = tmp_path / "mshnet.onnx"
    command = [sys.executable, "-m", "irforge.cli", "export", str(SAMPLES / "mshnet.safetensors"), "-o", str(model)]
    subprocess.run(command, check=True, capture_output=True)
    lines = same_lines(model, samples(40), tmp_path)
    assert sum(len(line["detections"]) for line in lines) >= 40


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("share", [0, 0.02, 0.35, 0.6, 1])
def test_components_in_numpy_are_those_of_opencv(share: float, connectivity: int) -> None:
    mask = np.random.default_rng(7).random((37, 53)) < share
    pixels, owners, count = components(mask, connectivity)
    expected = irforge.components.components(mask, connectivity)
    assert count == len(expected)
    np.testing.assert_array_equal(pixels, expected.rows * 53 + expected.columns)
    np.testing.assert_array_equal(owners, expected.owners)


def test_a_frame_that_the_contract_does_not_cover_is_one_line(tmp_path: Path, spot_model: Model) -> None:
    package(spot_model(colour="strict"), "folder", tmp_path / "packed")
    frames = {"deep": np.full((64, 64), 9000, np.uint16), "tiny": np.full((15, 64), 9, np.uint8)}
    frames["coloured"] = np.dstack([np.full((64, 64), level, np.uint8) for level in (10, 90, 200)])
    words = {"deep": "8-bit frames", "tiny": "at least 16", "coloured": "'strict'", "text": "neither an image"}
    (tmp_path / "text.png").write_text("no image")
    for name, frame in frames.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), frame)
    for name, word in words.items():
        done = runner(tmp_path / "packed", tmp_path / f"{name}.png")
        assert done.returncode == 1 and not done.stdout
        assert done.stderr.count("\n") == 1 and word in done.stderr and f"{name}.png" in done.stderr


def test_what_a_folder_cannot_run_is_refused_and_nothing_is_left(tmp_path: Path, spot_model: Model) -> None:
    tiled = spot_model(fit={"kind": "tile", "overlap": 8})
    with pytest.raises(UsageError, match="tiles"):
        package(tiled, "folder", tmp_path / "packed")
    with pytest.raises(UsageError, match="--luma says nothing"):
        package(spot_model(), "folder", tmp_path / "packed", luma="limited")
    with pytest.raises(UsageError, match="no package for 'docker'"):
        package(spot_model(), "docker", tmp_path / "packed")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        package(spot_model(), "folder", tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_failed_package_leaves_nothing(tmp_path: Path, spot_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("irforge.runtime.package.folder.write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_package(read_deployable(spot_model()), Folder(), tmp_path / "packed")
    assert not list(tmp_path.iterdir())


def test_a_dynamic_size_is_padded_as_the_contract_says(tmp_path: Path, conv_model: Model) -> None:
    model = conv_model(height="H", width="W", batch="N", channels=4)
    assert isinstance(read_deployable(model).contract.input.height, Range)
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (40, 77), np.uint8))
    (line,) = same_lines(model, [tmp_path / "a.png"], tmp_path)
    assert line["detections"]
