"""A DeepStream package: its graph's door, its configuration, and its parser, compiled and run on recorded outputs."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.contract import Letterbox
from irforge.errors import ArtifactError, CheckFailed, UsageError
from irforge.graph import Graph
from irforge.runtime.detector import load
from irforge.runtime.package.deepstream import LUMA
from irforge.runtime.package.door import prove_equal, with_float_door
from irforge.runtime.package.pack import package
from tests.box_model import box_frame, write_box_model
from tests.runtime.package.test_triton import write_engine
from tests.runtime.test_rescoring import name_companion, write_companion

Model = Callable[..., Path]
HERE = Path(__file__).parent / "deepstream"


def configured(folder: Path) -> configparser.ConfigParser:
    # GLib's key files are read as DeepStream reads them: '=' alone, no interpolation.
    parsed = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parsed.read(folder / "config_infer_primary.txt")
    return parsed


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    return write_box_model(tmp_path / "peaks.onnx")


def test_the_configuration_says_what_the_contract_says(boxes: Path, tmp_path: Path) -> None:
    package(boxes, "deepstream", tmp_path / "ds", batch=4)
    config = configured(tmp_path / "ds")
    assert dict(config["property"]) == {
        "gpu-id": "0",
        "gie-unique-id": "1",
        "process-mode": "1",
        "network-type": "0",
        "model-engine-file": "peaks.engine",
        "network-mode": "0",
        "batch-size": "4",
        "infer-dims": "1;64;64",
        "model-color-format": "2",
        "net-scale-factor": "1.0",
        "offsets": "0.0",
        "labelfile-path": "labels.txt",
        "num-detected-classes": "1",
        "output-blob-names": "boxes;scores;classes",
        "parse-bbox-func-name": "NvDsInferParseIrforge",
        "custom-lib-path": "libirforge_parser.so",
        "cluster-mode": "4",
    }
    assert dict(config["class-attrs-all"]) == {"pre-cluster-threshold": "0.5"}
    assert (tmp_path / "ds" / "labels.txt").read_text() == "target\n"
    assert "--optShapes=frames:4x1x64x64" in (tmp_path / "ds" / "README.md").read_text()
    names = {"config_infer_primary.txt", "labels.txt", "README.md", "Makefile", "irforge_parser.cpp", "peaks.onnx"}
    assert {path.name for path in (tmp_path / "ds").iterdir()} == names


def test_a_mask_is_a_segmentation(tmp_path: Path, spot_model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    package(spot_model(fit=Letterbox()), "deepstream", tmp_path / "ds")
    config = dict(configured(tmp_path / "ds")["property"])
    assert (config["network-type"], config["segmentation-threshold"], config["output-blob-names"]) == (
        "2",
        "0.5",
        "mask",
    )
    assert (config["maintain-aspect-ratio"], config["symmetric-padding"]) == ("1", "1")
    assert "custom-lib-path" not in config and not (tmp_path / "ds" / "Makefile").exists()
    assert "not its targets" in capsys.readouterr().out
    assert "class_map" in (tmp_path / "ds" / "README.md").read_text()


def test_the_float_door_gives_the_same_bits_and_is_a_deployable(boxes: Path, tmp_path: Path) -> None:
    package(boxes, "deepstream", tmp_path / "ds")
    copy = tmp_path / "ds" / "peaks.onnx"
    inputs = onnxruntime.InferenceSession(copy).get_inputs()
    assert [(tensor.name, tensor.type) for tensor in inputs] == [("frames", "tensor(float)")]
    contract = read_contract(copy)
    assert contract.input.door == "float32"
    assert {t.name: t.dtype for t in contract.output.tensors}["classes"] == "int32"
    frame = box_frame((10, 12), (40, 30))
    with load(boxes, threads=1) as original, load(copy, threads=1) as packaged:
        one, other = original(frame), packaged(frame)
    assert len(one) == 2
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_door_of_every_precision(conv_model: Model, precision: str) -> None:
    model = load_model(conv_model(precision, channels=4))
    contract = read_contract(model)
    copy, _ = with_float_door(model, contract, "chain")
    prove_equal(model, copy, contract)


def test_a_graph_that_works_on_uint8_levels_is_refused(spot_model: Model) -> None:
    model = load_model(spot_model())
    cast = next(node for node in model.graph.node if node.op_type == "Cast")
    graph = Graph(model)
    cast.input[0] = graph.add("Identity", ["frames"])
    graph.touch()
    graph.tidy()
    with pytest.raises(ArtifactError, match="works on the uint8 levels"):
        with_float_door(model, read_contract(model), "spot")


def test_a_copy_that_differs_is_found_out(spot_model: Model) -> None:
    model = load_model(spot_model())
    contract = read_contract(model)
    copy, _ = with_float_door(model, contract, "spot")
    bound = next(tensor for tensor in copy.graph.initializer if tensor.name == "level_255")
    bound.raw_data = np.array(254, np.float32).tobytes()
    with pytest.raises(CheckFailed, match="does not return"):
        prove_equal(model, copy, contract)


# --- the luma of NV12


def limited(levels: np.ndarray) -> np.ndarray:
    """Levels 0..255 as luma of 16..235, in whole numbers: ITU-R BT.601."""
    return np.rint(16 + levels.astype(np.float64) * 219 / 255).astype(np.uint8)


def planes(luma: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """nvinfer's y = net-scale-factor * (x - offset), in its float32."""
    return np.float32(scale) * (luma.astype(np.float32) - np.float32(offset))


def test_limited_luma_costs_20_levels_unscaled_and_half_a_level_scaled() -> None:
    levels = np.arange(256, dtype=np.uint8)
    unscaled = np.abs(planes(limited(levels), *LUMA["full"]) - levels)
    assert unscaled.max() == 20 and unscaled[0] == 16
    scaled = np.abs(planes(limited(levels), *LUMA["limited"]) - levels)
    # 219 steps for 256 levels: half a step is what rounding to luma costs, and no more comes on top.
    assert 0.5 < scaled.max() <= 0.5 * 255 / 219 + 1e-3
    np.testing.assert_array_equal(planes(levels, *LUMA["full"]), levels)


def test_the_graph_sees_the_same_targets_in_limited_luma_by_its_scale_alone(boxes: Path, tmp_path: Path) -> None:
    package(boxes, "deepstream", tmp_path / "ds", luma="limited")
    config = configured(tmp_path / "ds")["property"]
    scale, offset = float(config["net-scale-factor"]), float(config["offsets"])
    session = onnxruntime.InferenceSession(tmp_path / "ds" / "peaks.onnx")
    # Levels around the middle of the network's sigmoids, where a shift of the tensor shows.
    frame = np.random.default_rng(0).integers(85, 110, (64, 64), np.uint8)

    def scores(tensor: np.ndarray) -> Any:
        return session.run(["scores"], {"frames": tensor[None, None]})[0]

    expected = scores(frame.astype(np.float32))
    right = np.abs(scores(planes(limited(frame), scale, offset)) - expected).mean()
    wrong = np.abs(scores(planes(limited(frame), *LUMA["full"])) - expected).mean()
    assert right < 0.01 and wrong > 0.05
    # Blacker than black and whiter than white, which video may hold, stay at the ends.
    ends = planes(np.array([[0, 255]], np.uint8).repeat(64, 0).repeat(32, 1), scale, offset)
    np.testing.assert_array_equal(scores(ends), scores(np.clip(ends, 0, 255)))


# --- the parser


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's parser by the package's Makefile, and a program that feeds it."""
    if not (shutil.which("g++") and shutil.which("make")):
        pytest.skip("no g++ or no make here")
    folder = tmp_path_factory.mktemp("parser")
    package(write_box_model(folder / "peaks.onnx"), "deepstream", folder / "ds")
    make = ["make", "-C", str(folder / "ds"), f"HEADERS={HERE}", "CXX=g++"]
    subprocess.run(make, check=True, capture_output=True)
    flags = ["-std=c++17", "-Wall", "-Werror", "-isystem", str(HERE)]
    subprocess.run(["g++", *flags, str(HERE / "replay.cpp"), "-o", str(folder / "replay"), "-ldl"], check=True)
    return folder


def replayed(built: Path, outputs: list[np.ndarray], threshold: float, classes: int = 1) -> np.ndarray:
    boxes, scores, numbers = (output[0] for output in outputs)
    command = [str(built / "replay"), str(built / "ds" / "libirforge_parser.so"), str(len(scores)), "64", "64"]
    data = boxes.tobytes() + scores.tobytes() + numbers.astype(np.int32).tobytes()
    done = subprocess.run([*command, str(classes), repr(threshold)], input=data, capture_output=True)
    assert done.returncode == 0, done
    assert b"no output 'scores'" in done.stderr
    return np.array([line.split() for line in done.stdout.decode().splitlines()], np.float64).reshape(-1, 6)


def test_the_parser_finds_what_irforge_finds(built: Path) -> None:
    session = onnxruntime.InferenceSession(built / "ds" / "peaks.onnx")
    with load(built / "ds" / "peaks.onnx", threads=1) as detector:
        for targets in ([(10, 12), (40, 30)], [(61, 61), (-1, 20)], []):
            frame = box_frame(*[(max(x, 0), y) for x, y in targets])
            outputs = session.run(["boxes", "scores", "classes"], {"frames": frame.astype(np.float32)[None, None]})
            assert outputs[2].dtype == np.int32
            objects, found = replayed(built, outputs, 0.5), detector(frame)
            assert len(objects) == len(found) == len(targets)
            np.testing.assert_allclose(objects[:, 1:3], found.boxes[:, :2], atol=1e-6)
            np.testing.assert_allclose(objects[:, 1:3] + objects[:, 3:5], found.boxes[:, 2:], atol=1e-5)
            np.testing.assert_array_equal(objects[:, 5].astype(np.float32), found.scores)


def test_the_parser_is_strict_and_drops_what_is_no_object(built: Path) -> None:
    level = np.float32(0.25179195404052734)
    rows = [
        ((1, 2, 4, 6), np.nextafter(level, np.float32(1)), 1),
        ((1, 2, 4, 6), level, 0),
        ((1, 2, 4, 6), np.nan, 0),
        ((1, 2, 4, 6), 0.9, 2),
        ((1, 2, 4, 6), 0.9, -1),
        ((70, 2, 80, 6), 0.9, 0),
        ((-5, 60, 3, 90), 0.8, 0),
    ]
    columns = [np.array([row[k] for row in rows], np.float32)[None] for k in range(3)]
    objects = replayed(built, columns, float(level), classes=2)
    assert objects[:, :5].tolist() == [[1, 1, 2, 3, 4], [0, 0, 60, 3, 4]]


# --- refusals


def test_what_nvinfer_cannot_run_is_refused_before_anything_is_written(
    boxes: Path, tmp_path: Path, spot_model: Model, conv_model: Model
) -> None:
    write_companion(tmp_path / "judge.onnx")
    judged = write_box_model(tmp_path / "judged.onnx")
    name_companion(judged)
    contract = read_contract(boxes)
    refusals = {
        "image encoder": judged,
        "many sizes": conv_model(height="H", width="W", channels=4),
        "14-bit": spot_model(bit_depth=14, door="float32"),
        "gain control 'min-max'": spot_model(gain={"kind": "min-max"}),
        "into tiles": spot_model(fit={"kind": "tile", "overlap": 8}),
        "no TensorRT plan": write_engine(tmp_path / "x.rtx.engine", contract, runtime="TensorRT-RTX"),
        "cannot be given": write_engine(tmp_path / "x.engine", contract),
    }
    for words, model in refusals.items():
        with pytest.raises(UsageError, match=words):
            package(model, "deepstream", tmp_path / "ds")
    with pytest.raises(UsageError, match="fixed at 1"):
        package(conv_model(batch=1, channels=4), "deepstream", tmp_path / "ds", batch=2)
    two = load_model(spot_model())
    held = read_contract(two)
    output = held.output.model_copy(update={"classes": ["a", "b"]})
    embed_contract(two, held.model_copy(update={"output": output}))
    save_model(tmp_path / "two.onnx", two)
    with pytest.raises(UsageError, match="mask of 2 classes"):
        package(tmp_path / "two.onnx", "deepstream", tmp_path / "ds")
    assert not (tmp_path / "ds").exists() and not list(tmp_path.glob(".*"))
