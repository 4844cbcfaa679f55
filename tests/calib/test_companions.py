"""A detector's image encoder goes where its detector goes: to FP16, to another folder, or nowhere if that fails."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from irforge.artifact import embed_contract, load_model, read_contract, save_model
from irforge.calib.collect import collect_ranges
from irforge.calib.companions import carried
from irforge.calib.half import half_model
from irforge.calib.quantize import quantize_model
from irforge.calib.ranges import save_ranges
from irforge.calib.tables import print_pass
from irforge.contract import Companion, Contract
from irforge.errors import ArtifactError
from irforge.files import sha256_of_file
from irforge.graph import Graph
from irforge.rescoring import METADATA_KEY, ROLE, RescoringSpec
from irforge.runtime.detector import load
from tests.box_model import box_frame, write_box_model

SIDE = 8
SPEC = RescoringSpec(method="clip", classes=["target"], columns=[0], alpha=[0.5], crop_size=SIDE, lower=0.0)


def write_encoder(path: Path) -> Path:
    """A convolution's features of a crop, and their cosine with one vector: half of the new score."""
    random = np.random.default_rng(0)
    weights = {
        "kernel": random.normal(0, 30, (16, 3, SIDE, SIDE)).astype(np.float32),
        "table": np.abs(random.normal(0, 1, (16, 1))).astype(np.float32),
        "axis": np.array([1]),
        "half": np.float32(0.5),
    }
    weights["table"] /= np.linalg.norm(weights["table"])
    body = """
        <ir_version: 9, opset_import: ["": 20]>
        encoder (float[n, 3, 8, 8] crops, float[n] scores, int64[n] classes) => (float[n] rescored) {
            map = Conv (crops, kernel)
            positive = Abs (map)
            features = Flatten (positive)
            norm = ReduceL2 (features, axis)
            unit = Div (features, norm)
            cosines = MatMul (unit, table)
            own = Squeeze (cosines, axis)
            sum = Add (own, scores)
            mean = Mul (sum, half)
            class = Cast <to = 1> (classes)
            rescored = Add (mean, class)
        }"""
    model = onnx.parser.parse_model(body)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    model.metadata_props.add(key=METADATA_KEY, value=SPEC.model_dump_json())
    save_model(path, model)
    return path


@pytest.fixture
def primary(tmp_path: Path) -> Path:
    """A detector whose contract names an encoder beside it."""
    path = write_box_model(tmp_path / "plain.onnx")
    encoder = write_encoder(tmp_path / "plain.rescore.onnx")
    model = load_model(path)
    named = Companion(
        role=ROLE,
        path=encoder.name,
        sha256=sha256_of_file(encoder),
        input="crops",
        constants=SPEC.model_dump(mode="json"),
    )
    embed_contract(model, read_contract(model).model_copy(update={"companions": [named]}))
    save_model(path, model)
    return path


def encoder_of(path: Path) -> Path:
    (named,) = read_contract(path).companions
    encoder = path.parent / named.path
    assert named.sha256 == sha256_of_file(encoder)
    assert named.constants == SPEC.model_dump(mode="json")
    return encoder


def types_of(encoder: Path) -> dict[str, int]:
    graph = Graph(load_model(encoder))
    return {node.op_type: graph.dtype(node.output[0]) for node in graph.nodes if node.op_type != "Cast"}


def test_half_takes_the_encoder_along_but_for_its_norm_and_what_follows(
    primary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = primary.with_name("plain.fp16.onnx")
    report = half_model(primary, output)
    encoder = encoder_of(output)
    assert encoder.name == "plain.fp16.rescore.onnx" and encoder_of(primary).name == "plain.rescore.onnx"
    types = types_of(encoder)
    assert {types[kind] for kind in ("Conv", "Flatten", "MatMul")} == {TensorProto.FLOAT16}
    assert {types[kind] for kind in ("ReduceL2", "Div", "Squeeze", "Add", "Mul")} == {TensorProto.FLOAT}
    assert report.companion is not None and report.companion.half == 4
    print_pass(report)
    assert "plain.fp16.rescore.onnx" in capsys.readouterr().out.replace("\n", "")
    frame = box_frame((10, 12), (40, 30))
    scores = []
    for path in (primary, output):
        with load(path, threads=1, threshold=0.0) as detector:
            scores.append(detector(frame).scores)
    np.testing.assert_allclose(scores[1], scores[0], atol=2e-3)
    # Squares of these features leave FP16's range: with its norm in FP16 a cosine would be 0.
    assert scores[0].max() > 0.55


@pytest.mark.parametrize(("target", "kind"), [("tensorrt", TensorProto.FLOAT16), ("cpu", TensorProto.FLOAT)])
def test_quantize_takes_it_along_in_the_precision_of_the_rest(primary: Path, target: str, kind: int) -> None:
    frames, ranges = primary.parent / "frames", primary.with_name("ranges.json")
    frames.mkdir()
    for number in range(3):
        cv2.imwrite(str(frames / f"{number}.png"), box_frame((10 + 9 * number, 12), (40, 30)))
    save_ranges(ranges, collect_ranges(primary, str(frames), threads=1))
    output = primary.parent / "int8" / "small.onnx"
    quantize_model(primary, output, ranges, target=target)
    encoder = encoder_of(output)
    assert encoder == output.with_name("small.rescore.onnx") and types_of(encoder)["Conv"] == kind


def test_an_encoder_that_need_not_change_stays_where_it_is_or_is_copied(primary: Path, tmp_path: Path) -> None:
    contract = read_contract(primary)
    with carried(contract, primary, primary.with_name("other.onnx"), half=False) as (same, report):
        assert same == contract and report is None
    with carried(contract, primary, tmp_path / "far" / "other.onnx", half=False) as (moved, _):
        pass
    copy = tmp_path / "far" / moved.companions[0].path
    assert copy.read_bytes() == primary.with_name("plain.rescore.onnx").read_bytes()
    half_model(primary, primary.with_name("half.onnx"))
    halved = read_contract(primary.with_name("half.onnx"))
    with carried(halved, primary.with_name("half.onnx"), primary.with_name("again.onnx"), half=True) as (kept, _):
        assert kept == halved


def test_nothing_is_left_of_an_encoder_whose_detector_fails(primary: Path) -> None:
    before = sorted(primary.parent.iterdir())
    contract: Contract = read_contract(primary)
    with (
        pytest.raises(RuntimeError),
        carried(contract, primary, primary.with_name("half.onnx"), half=True),
    ):
        raise RuntimeError
    assert sorted(primary.parent.iterdir()) == before


def test_a_missing_encoder_is_named(primary: Path) -> None:
    primary.with_name("plain.rescore.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"companion '.*plain\.rescore\.onnx' does not exist"):
        half_model(primary, primary.with_name("half.onnx"))
    assert not primary.with_name("half.onnx").exists()


def test_a_detector_without_one_is_left_alone(tmp_path: Path) -> None:
    path = write_box_model(tmp_path / "alone.onnx")
    assert half_model(path, tmp_path / "half.onnx").companion is None
    assert {file.name for file in tmp_path.iterdir()} == {"alone.onnx", "half.onnx"}
