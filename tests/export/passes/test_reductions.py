"""Global pooling and shared perceptrons keep their values in their new form."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from irforge.export.passes import global_max_as_reduction, merge_shared_perceptrons
from irforge.graph import Graph

CHANNELS, HIDDEN = 6, 2


def _model(body: str, opset: int = 20, **weights: np.ndarray) -> onnx.ModelProto:
    header = f'<ir_version: 10, opset_import: ["": {opset}]>'
    text = f"{header} g (float[N, {CHANNELS}, 8, 9] x) => (float[N, C, H, W] y) {{ {body} }}"
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def _run(model: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(2, CHANNELS, 8, 9)).astype(np.float32)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("opset", [17, 20])
def test_a_window_over_the_whole_map_becomes_a_reduction(opset: int) -> None:
    model = _model("y = MaxPool<kernel_shape = [8, 9]>(x)", opset)
    before = _run(model)
    graph = Graph(model)
    assert global_max_as_reduction(graph) == 1
    graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["ReduceMax"]
    np.testing.assert_array_equal(_run(model), before)


@pytest.mark.parametrize("pool", ["<kernel_shape = [2, 2]>", "<kernel_shape = [8, 9], pads = [1, 1, 1, 1]>"])
def test_other_pooling_stays(pool: str) -> None:
    assert global_max_as_reduction(Graph(_model(f"y = MaxPool{pool}(x)"))) == 0


def _attention(second: str = "w1") -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return _model(
        f"""a = ReduceMean<keepdims = 1>(x, axes) b = ReduceMax<keepdims = 1>(x, axes)
        p = Conv(a, w1) q = Relu(p) r = Conv(q, w2)
        s = Conv(b, {second}) t = Relu(s) u = Conv(t, w2)
        z = Add(r, u) g = Sigmoid(z) y = Mul(g, x)""",
        axes=np.array([2, 3], np.int64),
        w1=rng.normal(size=(HIDDEN, CHANNELS, 1, 1)).astype(np.float32),
        w2=rng.normal(size=(CHANNELS, HIDDEN, 1, 1)).astype(np.float32),
        w3=rng.normal(size=(HIDDEN, CHANNELS, 1, 1)).astype(np.float32),
    )


def test_a_perceptron_shared_by_two_vectors_runs_once_and_shares_no_weight() -> None:
    model = _attention()
    before = _run(model)
    graph = Graph(model)
    assert merge_shared_perceptrons(graph) == 1
    graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(_run(model), before, rtol=1e-6, atol=1e-6)
    convolutions = graph.of_type("Conv")
    assert len(convolutions) == 2
    assert all(len(graph.consumers(conv.input[1])) == 1 for conv in convolutions)


def test_two_different_perceptrons_stay_two() -> None:
    assert merge_shared_perceptrons(Graph(_attention(second="w3"))) == 0
