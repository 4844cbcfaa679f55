"""Promises of `irforge compare`: what the command writes, shows again, and refuses in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from irforge.cli import application
from irforge.compare import compare_models
from irforge.datasets import open_dataset
from irforge.errors import IrforgeError, UsageError
from irforge.runtime.comparison.schema import read_comparison
from tests.box_model import write_box_data, write_box_model


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "irforge.cli", "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_box_data(tmp_path / "set", {"a": [(10, 10), (40, 20)], "b": [(30, 30)]})


def write_classical(path: Path) -> Path:
    from irforge.train.classical import classical

    classical(path.stem, path, option=["cells=[3]"], threshold=0.5, bit_depth=8)
    return path


def test_networks_masks_and_filters_stand_in_one_table(data: Path, tmp_path: Path, spot_model) -> None:
    box, spot = write_box_model(tmp_path / "boxes.onnx"), spot_model()
    mpcm = write_classical(tmp_path / "mpcm.safetensors")
    arguments = [spot, box, mpcm, "--data", data, "--gallery", "--rounds", 1, "--frames-per-round", 2, "--csv", "c.csv"]
    done = run(*arguments, "-o", "c.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_comparison(tmp_path / "c.json")
    assert [one.name for one in found.contestants] == ["spot.onnx", "boxes.onnx", "mpcm.safetensors"]
    assert [one.fit for one in found.contestants] == ["squashed to 64 × 64", "squashed to 64 × 64", "own size"]
    assert found.command.startswith(f"irforge compare {spot} ") and found.command.endswith("-o c.json")
    method = found.contestants[2]
    assert method.backend == "torch" and method.objects.pd == 1 and method.parameters == 0
    assert method.missing["macs"] == "a method without weights: its work is not that of layers"
    assert {path.name for path in tmp_path.glob("c.*")} == {"c.json", "c.html", "c.csv", "c.answers"}
    assert len(list((tmp_path / "c.answers").iterdir())) == 3
    assert "Accuracy" in done.stdout and done.stdout.splitlines()[-1] == "c.json, c.html, c.csv"

    page = (tmp_path / "c.html").read_text()
    (tmp_path / "c.html").unlink()
    again = run("--from", "c.json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "c.html").read_text() == page
    assert again.stdout.partition("c.json")[0] == done.stdout.partition("c.json")[0]


def test_a_checkpoint_is_counted_as_published_and_scored_in_torch(data: Path, tmp_path: Path, untrained: Path) -> None:
    (found,) = compare_models([untrained], str(data), folder=tmp_path / "kept", schedule=(0, 1, 0)).contestants
    # MSHNet of three channels; its convolutions take 6.0015 GMAC at 256 x 256.
    assert found.parameters == 4_065_513
    assert found.macs == pytest.approx(6.0015e9 / 16, rel=0.002) and found.macs_size == (64, 64)
    assert found.backend == "torch" and found.mask is not None and found.mask.targets == 3
    assert found.missing["engine"] == "a checkpoint has no compiled plan: export and build it"


def test_a_limit_is_stated_as_n(data: Path, tmp_path: Path, spot_model) -> None:
    found = compare_models([spot_model()], str(data), folder=tmp_path / "kept", limit=1, schedule=(0, 1, 0))
    assert (found.data.frames, found.data.frames_in_split, found.data.targets) == (1, 2, 2)


def test_larger_frames_are_left_out_before_the_limit(data: Path, tmp_path: Path, spot_model) -> None:
    folder, nothing = tmp_path / "kept", (0, 1, 0)
    image, mask = data / "images" / "a.png", data / "masks" / "a.png"
    for path in (image, mask):
        plane = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), cv2.copyMakeBorder(plane, 0, 1, 0, 0, cv2.BORDER_REPLICATE))
    smaller = plane.shape[0] * plane.shape[1]
    found = compare_models([spot_model()], str(data), folder=folder, limit=1, max_pixels=smaller, schedule=nothing)
    assert (found.data.frames, found.data.frames_in_split) == (1, 2)
    assert [sample.id for sample in open_dataset(str(data)).within(smaller)] == ["b"]
    with pytest.raises(UsageError, match="has no frame of at most 9 pixels"):
        compare_models([spot_model()], str(data), folder=folder, max_pixels=9, schedule=nothing)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{spot}"], 2, "there is no --data to compare on"),
        (["--data", "{data}"], 2, "there are no models to compare on"),
        (["--from", "{spot}", "--data", "{data}"], 2, "--from shows a comparison that was made before"),
        (["--from", "{spot}", "-o", "compare.json"], 2, "--from shows a comparison that was made before"),
        (["{spot}", "--data", "{data}", "-o", "compare.html"], 2, "'compare.html' is not a .json file"),
        (["{spot}", "--data", "{data}", "-o", "{data}"], 2, "is not a .json file"),
        (["--from", "{data}/images/a.png"], 4, "is no comparison"),
        (["{data}/absent.onnx", "--data", "{data}"], 4, "absent.onnx"),
        (["{bare}", "--data", "{data}"], 4, "bare.onnx"),
        (["{spot}", "--data", "{data}/images"], 2, "has no truth for all of its frames"),
        (["{spot}", "{spot}", "--data", "{data}"], 2, "two of the models are called 'spot.onnx'"),
    ],
)
def test_bad_input_is_one_line(
    arguments, code, words, data: Path, tmp_path: Path, spot_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"spot": spot_model(), "data": data, "bare": spot_model("bare.onnx", contract=False)}
    with pytest.raises(IrforgeError) as refused:
        application("compare")(["compare", *(text.format(**places) for text in arguments)], standalone_mode=False)
    assert refused.value.exit_code == code and words in refused.value.line
    assert not list(tmp_path.glob("compare*"))
