from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from irforge.artifact import load_model, model_fingerprint, read_contract, save_model
from irforge.calib.collect import collect_ranges
from irforge.calib.quantize import quantize, quantize_model
from irforge.calib.ranges import load_ranges, save_ranges
from irforge.errors import ArtifactError, CalibrationError, UsageError
from irforge.graph import Graph
from irforge.lint import JETPACK_6, TENSORRT_11, LintTarget, lint
from tests.calib.conftest import attentive_net

Run = Callable[[onnx.ModelProto | Path, np.ndarray], np.ndarray]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(scope="module")
def int8(attentive: Path, attentive_ranges: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "attentive.int8.onnx"
    quantize_model(attentive, path, attentive_ranges)
    return path


def _logit(probability: np.ndarray) -> np.ndarray:
    kept = np.clip(probability.astype(np.float64), 1e-6, 1 - 1e-6)
    result: np.ndarray = np.log(kept / (1 - kept))
    return result


def test_int8_computes_what_fp32_computes(
    attentive: Path, int8: Path, run_model: Run, frames_tensor: np.ndarray
) -> None:
    """Signal over quantisation noise of the logits, on the frames the ranges are from."""
    expected, found = (_logit(run_model(path, frames_tensor)) for path in (attentive, int8))
    noise = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    assert noise < 0.1
    assert np.mean((found > 0) == (expected > 0)) > 0.99


def test_activations_are_fp16_and_weights_int8(int8: Path) -> None:
    graph = Graph(load_model(int8))
    quantised = [node for node in graph.of_type("Conv") if _reads_dq(graph, node)]
    assert len(quantised) == 8
    assert {graph.dtype(node.output[0]) for node in quantised} == {HALF}
    assert all(graph.dtype(node.input[0]) == HALF for node in graph.of_type("QuantizeLinear"))
    assert all(graph.dtype(node.input[1]) == HALF for node in graph.of_type("QuantizeLinear", "DequantizeLinear"))
    largest = max(graph.initializers.values(), key=lambda array: array.size)
    assert largest.dtype == np.int8


def _reads_dq(graph: Graph, node: onnx.NodeProto) -> bool:
    makers = [graph.producer(name) for name in node.input[:2]]
    return all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)


def test_tensorrt_has_nothing_against_it(int8: Path) -> None:
    for target in (None, JETPACK_6, TENSORRT_11, LintTarget("RTX", (11, 0), "7.5", is_rtx=True)):
        assert lint(load_model(int8), target) == []


def test_the_contract_says_what_was_done(attentive: Path, attentive_ranges: Path, int8: Path) -> None:
    before, after = read_contract(attentive), read_contract(int8)
    step = after.provenance.history[-1]
    assert (after.input, after.output) == (before.input, before.output)
    assert after.provenance.precision == "int8"
    assert step["tool"] == "quantize"
    assert step["model_sha256"] == model_fingerprint(load_model(attentive))
    assert step["ranges_key"] == load_ranges(attentive_ranges).key
    assert (step["target"], step["method"], step["channel_scales"]) == ("tensorrt", "minmax", "factored")
    assert step["int8_macs"] > 0.98


def test_quantising_twice_gives_the_same_bytes(
    attentive: Path, attentive_ranges: Path, int8: Path, tmp_path: Path
) -> None:
    quantize_model(attentive, tmp_path / "again.onnx", attentive_ranges)
    assert (tmp_path / "again.onnx").read_bytes() == int8.read_bytes()


def test_both_forms_of_channel_scales_agree(
    attentive: Path, attentive_ranges: Path, int8: Path, tmp_path: Path, run_model: Run, frames_tensor: np.ndarray
) -> None:
    quantize_model(attentive, tmp_path / "axis.onnx", attentive_ranges, channel_scales="axis")
    assert not Graph(load_model(tmp_path / "axis.onnx")).of_type("BatchNormalization")
    one, two = (_logit(run_model(path, frames_tensor)) for path in (int8, tmp_path / "axis.onnx"))
    assert np.sqrt(np.mean((one - two) ** 2)) < 0.05 * one.std()


def test_what_is_kept_stays_fp16(attentive: Path, attentive_ranges: Path, tmp_path: Path) -> None:
    large = [node for node in load_model(attentive).graph.node if node.op_type == "Conv" and len(node.input) == 3]
    name = large[1].output[0]
    report = quantize_model(attentive, tmp_path / "kept.onnx", attentive_ranges, keep=[large[1].name, "conv_1?"])
    assert [kept.reason for kept in report.kept if kept.node == name] == [f"kept by '{large[1].name}'"]
    graph = Graph(load_model(tmp_path / "kept.onnx"))
    kept = next(node for node in graph.of_type("Conv") if node.name == large[1].name)
    assert graph.dtype(kept.input[1]) == HALF
    noted = read_contract(tmp_path / "kept.onnx").provenance.history[-1]["kept"]
    assert [entry["weight"] for entry in noted if entry["node"] == name] == [large[1].input[1]]


def test_a_pattern_that_matches_nothing_is_refused(attentive: Path, attentive_ranges: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no convolution matches 'decoder_9\*'"):
        quantize_model(attentive, tmp_path / "m.onnx", attentive_ranges, keep=["decoder_9*"])
    assert not (tmp_path / "m.onnx").exists()


def test_keeping_every_convolution_is_refused(attentive: Path, attentive_ranges: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"nothing .* can be quantised: kept by '\*'"):
        quantize_model(attentive, tmp_path / "m.onnx", attentive_ranges, keep=["*"])


def test_functions_and_other_metadata_are_kept(tmp_path: Path, frame_folder: Path) -> None:
    model = attentive_net().model()
    model.metadata_props.add(key="team", value="night watch")
    body = helper.make_function(
        "irforge", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("irforge", 1))
    sigmoid = model.graph.node[-1]
    logit = sigmoid.input[0]
    sigmoid.input[0] = "doubled"
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Twice", [logit], ["doubled"], domain="irforge")
    )
    save_model(tmp_path / "m.onnx", model)
    save_ranges(tmp_path / "r.json", collect_ranges(tmp_path / "m.onnx", str(frame_folder), limit=2, threads=1))
    quantize_model(tmp_path / "m.onnx", tmp_path / "q.onnx", tmp_path / "r.json")
    made = load_model(tmp_path / "q.onnx")
    assert list(made.functions) == [body]
    assert ("team", "night watch") in [(entry.key, entry.value) for entry in made.metadata_props]
    assert any(node.domain == "irforge" for node in made.graph.node)


def test_a_quantised_model_is_not_quantised_again(int8: Path, attentive_ranges: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is quantised already.*FP32"):
        quantize_model(int8, tmp_path / "m.onnx", attentive_ranges)


def test_ranges_of_another_model_are_refused(attentive_ranges: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "other.onnx", attentive_net(seed=1).model())
    with pytest.raises(CalibrationError, match=r"is of .*, not "):
        quantize_model(tmp_path / "other.onnx", tmp_path / "m.onnx", attentive_ranges)
    assert not (tmp_path / "m.onnx").exists()


def test_a_model_without_contract_names_adopt(attentive_ranges: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "bare.onnx", attentive_net().model(contract=False))
    with pytest.raises(ArtifactError, match="irforge adopt"):
        quantize_model(tmp_path / "bare.onnx", tmp_path / "m.onnx", attentive_ranges)


@pytest.mark.parametrize(("opset", "accepted"), [(17, False), (18, True), (19, True), (21, False)])
def test_opset_18_is_raised_and_others_are_refused(
    opset: int, accepted: bool, tmp_path: Path, frame_folder: Path
) -> None:
    model = attentive_net().model(opset=opset) if opset > 17 else None
    if model is None:
        # Reductions took their axes as an attribute then.
        model = attentive_net().model(opset=18)
        model.opset_import[0].version = 17
        for node in model.graph.node:
            if node.op_type in ("ReduceMean", "ReduceMax"):
                axes = next(t for t in model.graph.initializer if t.name == node.input[1])
                node.attribute.append(helper.make_attribute("axes", onnx.numpy_helper.to_array(axes).tolist()))
                del node.input[1:]
    save_model(tmp_path / "m.onnx", model)
    save_ranges(tmp_path / "r.json", collect_ranges(tmp_path / "m.onnx", str(frame_folder), limit=2, threads=1))
    if accepted:
        quantize_model(tmp_path / "m.onnx", tmp_path / "q.onnx", tmp_path / "r.json")
        assert load_model(tmp_path / "q.onnx").opset_import[0].version == max(opset, 19)
    else:
        with pytest.raises(ArtifactError, match=f"opset {opset}.*--opset 20"):
            quantize_model(tmp_path / "m.onnx", tmp_path / "q.onnx", tmp_path / "r.json")


def test_the_cpu_form_says_that_it_is_not_for_tensorrt_and_lint_refuses_it(
    attentive: Path, attentive_ranges: Path, tmp_path: Path, run_model: Run, frames_tensor: np.ndarray
) -> None:
    quantize_model(attentive, tmp_path / "cpu.onnx", attentive_ranges, target="cpu")
    model = load_model(tmp_path / "cpu.onnx")
    step = read_contract(model).provenance.history[-1]
    assert step["target"] == "cpu"
    assert "TensorRT refuses" in step["note"]
    assert {"int32-bias", "qdq-type"} <= {finding.rule for finding in lint(model, TENSORRT_11)}
    expected, found = (_logit(run_model(path, frames_tensor)) for path in (attentive, tmp_path / "cpu.onnx"))
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.15 * expected.std()


@pytest.mark.parametrize(
    "settings", [{"target": "dsp"}, {"method": "kl"}, {"channel_scales": "rows"}, {"output": Path("q.engine")}]
)
def test_unknown_settings_are_usage_errors(
    attentive: Path, attentive_ranges: Path, settings: dict[str, object]
) -> None:
    arguments: dict[str, object] = {"model": attentive, "ranges": attentive_ranges, "output": Path("q.onnx")}
    with pytest.raises(UsageError):
        quantize(**(arguments | settings))  # type: ignore[arg-type]


def test_the_table_says_what_was_quantised_and_kept(
    attentive: Path, attentive_ranges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantize(attentive, attentive_ranges, tmp_path / "q.onnx")
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "int8 convolutions 8, 98" in printed
    assert "fewer than 8 channels" in printed
    assert "ReduceMean sums over the whole map" in printed
