"""Every input that a user can get wrong: one line, the exit code of its kind, no traceback, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

USAGE, INPUT, ARTIFACT, ENVIRONMENT = 2, 3, 4, 5

Model = Callable[..., Path]
Frames = Callable[..., np.ndarray]


# --- frames


def test_a_missing_folder(workplace: Any, spot_model: Model) -> None:
    workplace.refused(INPUT, "nowhere", arguments=("run", spot_model(), "./nowhere", "--json", "o.jsonl"))


def test_an_empty_folder(workplace: Any, spot_model: Model) -> None:
    workplace.put("empty/notes.txt", "no frame")
    workplace.refused(INPUT, "empty", "no frames", arguments=("run", spot_model(), "empty", "--json", "o.jsonl"))


def test_a_truncated_png(workplace: Any, frames: Path, spot_model: Model) -> None:
    whole = (frames / "f2.png").read_bytes()
    workplace.put("frames/f2.png", whole[: len(whole) // 2])
    arguments = ("run", spot_model(), frames, "--json", "o.jsonl", "--overlay", "o.mp4")
    workplace.refused(INPUT, "f2.png", "truncated", arguments=arguments)


def test_levels_beyond_the_contracts_bit_depth(workplace: Any, spot_model: Model) -> None:
    workplace.put("deep.png", np.full((64, 64), 9000, np.uint16))
    workplace.refused(INPUT, "deep.png", "bit", arguments=("run", spot_model(), "deep.png", "--json", "o.jsonl"))


def test_unequal_channels_under_strict(workplace: Any, spot_model: Model) -> None:
    coloured = np.full((64, 64, 3), 90, np.uint8)
    coloured[5, 5] = (10, 90, 200)
    workplace.put("coloured.png", coloured)
    model = spot_model(colour="strict")
    workplace.refused(INPUT, "coloured.png", "strict", arguments=("run", model, "coloured.png", "--json", "o.jsonl"))


def test_a_frame_below_16_pixels(workplace: Any, spot_model: Model) -> None:
    workplace.put("tiny.png", np.full((15, 64), 90, np.uint8))
    workplace.refused(INPUT, "tiny.png", "16", arguments=("run", spot_model(), "tiny.png", "--json", "o.jsonl"))


def test_a_truncated_video(workplace: Any, spot_model: Model) -> None:
    writer = cv2.VideoWriter(str(workplace.folder / "w.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
    for level in range(40):
        writer.write(np.full((64, 64, 3), level, np.uint8))
    writer.release()
    whole = (workplace.folder / "w.avi").read_bytes()
    workplace.put("cut.avi", whole[: len(whole) // 2])
    arguments = ("run", spot_model(), "cut.avi", "--json", "o.jsonl", "--overlay", "o.mp4")
    workplace.refused(INPUT, "cut.avi", arguments=arguments)


@pytest.mark.parametrize("verb", ["bench", "evaluate"])
def test_a_mask_of_another_size(workplace: Any, pairs: Path, verb: str, untrained: Path, untrained_onnx: Path) -> None:
    workplace.put("pairs/masks/f1.png", np.zeros((64, 60), np.uint8))
    arguments = (
        ("evaluate", untrained, "--data", pairs) if verb == "evaluate" else ("bench", untrained_onnx, "--data", pairs)
    )
    workplace.refused(INPUT, "f1.png", "60x64", "64x64", arguments=arguments)


# --- weights


@pytest.mark.parametrize("verb", ["export", "evaluate"])
def test_weights_of_another_detector(workplace: Any, pairs: Path, verb: str) -> None:
    from safetensors.numpy import save

    contract = {
        "schema_version": "1.0",
        "input": {"height": 64, "width": 64, "fit": {"kind": "squash"}, "normalization": {"mean": 100, "std": 35}},
        "output": {
            "kind": "mask",
            "classes": ["target"],
            "score_threshold": 0.5,
            "tensors": [{"name": "mask", "dtype": "float32", "shape": ["N", 1, "H", "W"], "meaning": "p"}],
        },
        "provenance": {"detector": "mshnet"},
    }
    weights = {"backbone.conv1.weight": np.zeros((8, 1, 3, 3), np.float32)}
    tail = ("-o", "model.onnx") if verb == "export" else ("--data", pairs)
    workplace.put("other.safetensors", save(weights, {"irforge.contract": json.dumps(contract)}))
    workplace.refused(ARTIFACT, "other.safetensors", "MSHNet", arguments=(verb, "other.safetensors", *tail))
    contract["provenance"] = {"detector": "yolo"}
    workplace.put("other.safetensors", save(weights, {"irforge.contract": json.dumps(contract)}))
    workplace.refused(ARTIFACT, "'yolo'", "mshnet", arguments=(verb, "other.safetensors", *tail))


@pytest.mark.parametrize("verb", ["export", "evaluate"])
def test_a_pickle_given_as_weights(workplace: Any, pairs: Path, verb: str) -> None:
    # Unpickling this would write a file.
    workplace.put("weights.pkl", b"cposix\nsystem\n(S'touch gotcha'\ntR.")
    tail = ("-o", "model.onnx") if verb == "export" else ("--data", pairs)
    workplace.refused(ARTIFACT, "weights.pkl", "--trust", arguments=(verb, "weights.pkl", *tail))
    workplace.refused(ARTIFACT, "weights.pkl", arguments=(verb, "weights.pkl", *tail, "--trust"))


# --- models


def model_arguments(verb: str, model: object) -> tuple[object, ...]:
    tails: dict[str, tuple[object, ...]] = {
        "run": ("frames", "--json", "o.jsonl"),
        "bench": ("--data", "frames", "-o", "report.json"),
        "calibrate": ("frames", "-o", "ranges.json"),
        "quantize": ("--ranges", "ranges.json", "-o", "q.onnx"),
        "half": ("-o", "h.onnx"),
        "fuse": ("-o", "f.onnx"),
        "build": ("-o", "m.rtx.engine"),
    }
    return (verb, model, *tails[verb])


MODEL_VERBS = ["run", "bench", "calibrate", "quantize", "half", "fuse", "build"]


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_an_onnx_file_without_a_contract(workplace: Any, frames: Path, verb: str, spot_model: Model) -> None:
    workplace.put("ranges.json", "{}")
    model = spot_model(contract=False)
    workplace.refused(ARTIFACT, "irforge adopt", arguments=model_arguments(verb, model))


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_a_truncated_onnx_file(workplace: Any, frames: Path, verb: str, spot_model: Model) -> None:
    whole = spot_model().read_bytes()
    workplace.put("ranges.json", "{}")
    workplace.put("cut.onnx", whole[: len(whole) * 2 // 3])
    workplace.refused(ARTIFACT, "cut.onnx", arguments=model_arguments(verb, "cut.onnx"))


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_external_data_outside_the_folder(workplace: Any, frames: Path, verb: str, spot_model: Model) -> None:
    model = onnx.load(spot_model())
    stored = onnx.numpy_helper.from_array(np.zeros((1, 1), np.float32), "outside")
    stored.ClearField("raw_data")
    stored.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("offset", "0"), ("length", "4")):
        stored.external_data.add(key=key, value=value)
    model.graph.initializer.append(stored)
    workplace.put("ranges.json", "{}")
    workplace.put("secret.bin", b"\0" * 4)
    workplace.put("inner/outside.onnx", model.SerializeToString())
    workplace.refused(ARTIFACT, "../secret.bin", "outside", arguments=model_arguments(verb, "inner/outside.onnx"))


# --- calibration and engines


def test_a_stale_calibration(workplace: Any, frames: Path, untrained_onnx: Path, spot_model: Model) -> None:
    done = workplace.run("calibrate", spot_model(), frames, "-o", "ranges.json")
    assert done.returncode == 0, done.stderr
    workplace.put("unrelated", "")
    arguments = ("quantize", untrained_onnx, "--ranges", "ranges.json", "-o", "q.onnx")
    workplace.refused(ARTIFACT, "ranges.json", "calibrate", arguments=arguments)


def test_an_all_black_calibration_set(workplace: Any, untrained_onnx: Path) -> None:
    for index in range(3):
        workplace.put(f"black/f{index}.png", np.zeros((64, 64), np.uint8))
    arguments = ("calibrate", untrained_onnx, "black", "-o", "ranges.json")
    workplace.refused(ARTIFACT, "black", arguments=arguments)


@pytest.mark.parametrize(("sm", "words"), [("9.9", ("9.9", "unknown")), ("8.7", ("8.7", "Orin")), ("", ())])
def test_an_unknown_sm(workplace: Any, spot_model: Model, sm: str, words: tuple[str, ...]) -> None:
    arguments = ("build", spot_model(), "-o", "m.rtx.engine", "--sm", sm or "sm_")
    workplace.refused(USAGE, *words, arguments=arguments)


# --- what lies outside of any stage


def test_a_package_that_is_not_installed_is_one_line(workplace: Any, frames: Path, spot_model: Model) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None; from irforge.cli import main;"
        f"sys.argv = ['irforge', 'run', {str(spot_model())!r}, 'frames']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=workplace.folder)
    assert done.returncode == ENVIRONMENT
    assert done.stderr == "irforge: no Python package 'onnxruntime' here. 'irforge doctor' says how to install it\n"


def test_an_output_that_cannot_be_written_is_one_line(workplace: Any, frames: Path, spot_model: Model) -> None:
    workplace.put("occupied", "a file where a folder is needed")
    arguments = ("run", spot_model(), frames, "--json", "occupied/o.jsonl")
    workplace.refused(ENVIRONMENT, "occupied", arguments=arguments)
