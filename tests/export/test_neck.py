"""The GLMD neck as a graph of its own: right in every form, and taken by NVIDIA's compiler in every precision."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from irforge.export.convert import onnx_from_part
from irforge.export.passes.gates import quantize_in_gates
from irforge.graph import Graph
from irforge.ops import count_custom_ops
from irforge.runtime.compilers.targets import DEFAULT_TARGETS
from irforge.train.detectors.glmd.neck import GlmdNeck

SMALL, FULL = (32, 40), (50, 76)


def load_benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "neck.py"
    spec = importlib.util.spec_from_file_location("neck_benchmark", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load_benchmark()


@pytest.fixture(scope="module")
def narrow() -> GlmdNeck:
    return bench.random_neck(64)


@pytest.fixture(scope="module")
def neck() -> GlmdNeck:
    return bench.random_neck()


def run(model: onnx.ModelProto, features: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {bench.NAME: features.astype(np.float32)})[0]


def torch_result(neck: GlmdNeck, features: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return neck(torch.from_numpy(features.astype(np.float32))).numpy()


def maps(*shape: int) -> np.ndarray:
    return np.maximum(np.random.default_rng(0).standard_normal(shape), 0)


@pytest.mark.parametrize("merged", [False, True])
def test_the_graph_equals_the_module_image_by_image(narrow: GlmdNeck, merged: bool) -> None:
    model = bench.neck_onnx(narrow, 10, 12, merged=merged)
    assert count_custom_ops(model) == {"MutualGate": 1}
    features = maps(3, 64, 10, 12)
    expected = torch_result(narrow, features)
    np.testing.assert_allclose(run(model, features), expected, atol=2e-5)
    np.testing.assert_allclose(run(model, features[1:2]), expected[1:2], atol=2e-5)


def test_merging_is_exact(narrow: GlmdNeck) -> None:
    features = maps(1, 64, 10, 12)
    apart, merged = (bench.neck_onnx(narrow, 10, 12, merged=merged) for merged in (False, True))
    convolutions = [sum(node.op_type == "Conv" for node in model.graph.node) for model in (apart, merged)]
    assert convolutions[1] == convolutions[0] - 1
    np.testing.assert_allclose(run(merged, features), run(apart, features), atol=1e-5)


def test_one_graph_of_free_size_serves_every_size(narrow: GlmdNeck) -> None:
    free = ({0: torch.export.Dim("N"), 2: torch.export.Dim("H", max=128), 3: torch.export.Dim("W", max=128)},)
    model, _ = onnx_from_part(narrow, {bench.NAME: torch.rand(2, 64, 9, 11)}, ["fused"], "glmd_neck", free=free)
    for height, width in ((9, 11), (5, 7), (17, 23), (2, 40)):
        features = maps(2, 64, height, width)
        np.testing.assert_allclose(run(model, features), torch_result(narrow, features), atol=2e-5)


def test_fused_before_and_after_quantising_the_gate_writes_int8(narrow: GlmdNeck) -> None:
    merged = bench.neck_onnx(narrow, 10, 12, merged=True)
    quantised = bench.at_precision(merged, "int8", bench.ranges_of(merged))
    graph = Graph(quantised)
    assert quantize_in_gates(graph) == 1
    graph.tidy()
    onnx.checker.check_model(quantised, full_check=True)
    assert count_custom_ops(quantised) == {"QuantizedMutualGate": 1}


@pytest.mark.parametrize(("precision", "item_bytes"), [("fp16", (2, 2)), ("int8", (2, 1))])
def test_what_is_around_the_gate_is_compiled_without_it(
    narrow: GlmdNeck, precision: str, item_bytes: tuple[int, int]
) -> None:
    merged = bench.neck_onnx(narrow, 10, 12, merged=True)
    model = bench.fused(bench.at_precision(merged, precision, bench.ranges_of(merged)))
    shapes, moved = bench.cut_at_gate(model)
    assert [len(model.graph.input), len(model.graph.output)] == [2, 3]
    assert sorted(shapes.values()) == [(1, 64, 10, 12), (1, 128, 10, 12)]
    assert moved == 128 * 10 * 12 * sum(item_bytes)
    assert not any("MutualGate" in name for name in count_custom_ops(model))
    assert not refused_or_built(model, ("8.9",), shapes)


@pytest.fixture(scope="module")
def at_full_width(neck: GlmdNeck) -> onnx.ModelProto:
    return bench.neck_onnx(neck, *SMALL)


@pytest.fixture(scope="module")
def ranges(neck: GlmdNeck) -> dict:
    return bench.ranges_of(bench.neck_onnx(neck, *bench.RANGES_SIZE))


def test_at_full_width_it_matches_torch(neck: GlmdNeck, at_full_width: onnx.ModelProto) -> None:
    features = maps(1, 1024, *SMALL)
    np.testing.assert_allclose(run(at_full_width, features), torch_result(neck, features), atol=1e-4)


def test_half_precision_keeps_what_sums_in_fp32_and_stays_close(
    neck: GlmdNeck, at_full_width: onnx.ModelProto, ranges: dict
) -> None:
    half = bench.at_precision(at_full_width, "fp16", ranges)
    types = onnx.shape_inference.infer_shapes(half).graph.value_info
    kinds = {value.name: value.type.tensor_type.elem_type for value in types}
    norms = [node for node in half.graph.node if node.op_type in ("LayerNormalization", "Softmax")]
    assert len(norms) == 6 and all(kinds[node.output[0]] == onnx.TensorProto.FLOAT for node in norms)
    features = maps(1, 1024, *SMALL)
    expected = torch_result(neck, features)
    assert np.abs(run(half, features) - expected).max() < 0.02 * np.abs(expected).max()


def refused_or_built(model: onnx.ModelProto, targets: tuple[str, ...], shapes: dict | None = None) -> dict[str, str]:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    report, skipped = bench.gate(model, targets, shapes)
    assert report.available, report.reason
    return skipped


def test_nvidias_compiler_takes_fp32_for_all_but_turing(at_full_width: onnx.ModelProto) -> None:
    skipped = refused_or_built(at_full_width, DEFAULT_TARGETS)
    assert list(skipped) == ["7.5"] and "FP32 GEMM" in skipped["7.5"]


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_nvidias_compiler_takes_half_and_int8_for_all_five(
    neck: GlmdNeck, at_full_width: onnx.ModelProto, ranges: dict, precision: str, merged: bool
) -> None:
    model = bench.merge(at_full_width) if merged else at_full_width
    assert not refused_or_built(bench.at_precision(model, precision, ranges), DEFAULT_TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_at_the_size_of_a_whole_frame(neck: GlmdNeck, ranges: dict, precision: str) -> None:
    model = bench.neck_onnx(neck, *FULL)
    features = maps(1, 1024, *FULL)
    np.testing.assert_allclose(run(model, features), torch_result(neck, features), atol=1e-4)
    skipped = refused_or_built(bench.at_precision(model, precision, ranges), DEFAULT_TARGETS)
    assert list(skipped) == (["7.5"] if precision == "fp32" else [])
