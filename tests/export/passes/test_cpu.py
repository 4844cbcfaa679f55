"""The CPU form of a graph computes the same; what is not suited stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from irforge.export.passes.cpu import (
    blocked_residuals,
    declare_upsampled_shapes,
    gated_means_as_products,
    split_concatenations,
    strided_single_outputs,
    upsampled_planes_as_products,
)
from irforge.graph import Graph

RNG = np.random.default_rng(0)


def _floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def _model(body: str, channels: int = 16, sides: str = "8, 12", **weights: np.ndarray) -> onnx.ModelProto:
    """Textual nodes over two maps x and z of equal shape."""
    text = f"""<ir_version: 10, opset_import: ["": 20]>
        g (float[N, {channels}, {sides}] x, float[N, {channels}, {sides}] z) => (float[N, c, h, w] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    return model


def _run(model: onnx.ModelProto, channels: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    feeds = {name: rng.normal(size=(2, channels, 8, 12)).astype(np.float32) for name in "xz"}
    return ReferenceEvaluator(model).run(None, feeds)[0]


def _kinds(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


def _check(
    model: onnx.ModelProto, rewrite: Callable[[Graph], int], expected: dict[str, int], channels: int = 16
) -> None:
    before = _run(model, channels)
    graph = Graph(model)
    assert rewrite(graph) == 1
    graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    assert _kinds(model) == expected
    np.testing.assert_allclose(_run(model, channels), before, rtol=0, atol=1e-5 * np.abs(before).max())


CONCAT = "m = Concat<axis = 1>(x, z) y = Conv<pads = [1, 1, 1, 1]>(m, w, b)"


def test_a_convolution_over_a_concatenation_becomes_a_sum() -> None:
    model = _model(CONCAT, w=_floats(3, 32, 3, 3), b=_floats(3))
    _check(model, split_concatenations, {"Conv": 2, "Add": 1})


def test_a_sum_of_three_parts_has_one_bias() -> None:
    body = CONCAT.replace("(x, z)", "(x, z, x)")
    _check(_model(body, w=_floats(3, 48, 3, 3), b=_floats(3)), split_concatenations, {"Conv": 3, "Add": 2})


def test_parts_that_fill_no_channel_block_stay_concatenated() -> None:
    model = _model(CONCAT, channels=8, w=_floats(3, 16, 3, 3), b=_floats(3))
    assert split_concatenations(Graph(model)) == 0


def test_grouped_convolutions_stay_whole() -> None:
    model = _model("m = Concat<axis = 1>(x, z) y = Conv<group = 2>(m, w)", w=_floats(4, 16, 1, 1))
    assert split_concatenations(Graph(model)) == 0


RESIDUAL = """gate = ReduceMax<keepdims = 1>(z, axis) product = Mul(gate, x) total = Add(product, z) y = Relu(total)"""


def test_a_gated_residual_gets_an_identity_convolution() -> None:
    model = _model(RESIDUAL, axis=np.array([1], np.int64))
    _check(model, blocked_residuals, {"ReduceMax": 1, "Mul": 1, "Conv": 1, "Add": 1, "Relu": 1})


def test_wide_or_unblocked_residuals_stay() -> None:
    for channels in (8, 128):
        assert blocked_residuals(Graph(_model(RESIDUAL, channels, axis=np.array([1], np.int64)))) == 0


@pytest.mark.parametrize("size", [3, 7])
def test_one_output_channel_is_computed_as_sixteen_phases(size: int) -> None:
    pad = size // 2
    body = f"c = Conv<pads = [{pad}, {pad}, {pad}, {pad}]>(x, w, b) s = Sigmoid(c) y = Mul(s, x)"
    model = _model(body, 2, w=_floats(1, 2, size, size), b=_floats(1))
    _check(model, strided_single_outputs, {"Conv": 1, "Sigmoid": 1, "DepthToSpace": 1, "Mul": 1}, 2)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["Conv", "Sigmoid", "DepthToSpace", "Mul"]


def test_a_graph_output_keeps_its_name_through_the_phases() -> None:
    model = _model("y = Conv<pads = [1, 1, 1, 1]>(x, w)", 4, w=_floats(1, 4, 3, 3))
    _check(model, strided_single_outputs, {"Conv": 1, "DepthToSpace": 1}, 4)


@pytest.mark.parametrize(
    ("attributes", "sides", "outputs"),
    [
        ("pads = [1, 1, 1, 1]", "8, 10", 1),
        ("pads = [1, 1, 1, 1]", "H, W", 1),
        ("pads = [1, 1, 1, 1]", "8, 12", 2),
        ("pads = [0, 0, 0, 0]", "8, 12", 1),
        ("pads = [1, 1, 1, 1], strides = [2, 2]", "8, 16", 1),
        ("pads = [2, 2, 2, 2], dilations = [2, 2]", "8, 16", 1),
    ],
)
def test_convolutions_that_do_not_unfold_stay(attributes: str, sides: str, outputs: int) -> None:
    model = _model(f"y = Conv<{attributes}>(x, w)", 2, sides, w=_floats(outputs, 2, 3, 3))
    assert strided_single_outputs(Graph(model)) == 0


MEAN = (
    """gate = ReduceMax<keepdims = 1>(z, places) product = Mul(gate, x) y = ReduceMean<keepdims = 1>(product, axis)"""
)


def test_the_channel_mean_of_a_gated_map_is_a_matrix_product() -> None:
    model = _model(MEAN, places=np.array([2, 3], np.int64), axis=np.array([1], np.int64))
    _check(model, gated_means_as_products, {"ReduceMax": 1, "Reshape": 3, "Mul": 1, "MatMul": 1})


def test_other_means_stay() -> None:
    places = np.array([2, 3], np.int64)
    assert gated_means_as_products(Graph(_model(MEAN, places=places, axis=np.array([2], np.int64)))) == 0
    assert gated_means_as_products(Graph(_model("y = ReduceMean(x, axis)", axis=np.array([1], np.int64)))) == 0
    model = _model(MEAN, sides="H, W", places=places, axis=np.array([1], np.int64))
    assert gated_means_as_products(Graph(model)) == 0


def _resize(mode: str = "linear", coordinates: str = "align_corners") -> str:
    return f'y = Resize<mode = "{mode}", coordinate_transformation_mode = "{coordinates}">(x, , scales)'


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_a_plane_is_a_product_of_matrices(factor: int) -> None:
    model = _model(_resize(), 1, scales=np.float32([1, 1, factor, factor]))
    _check(model, upsampled_planes_as_products, {"MatMul": 2}, 1)


def test_other_resizes_stay() -> None:
    scales = np.float32([1, 1, 2, 2])
    for model in (
        _model(_resize(), 16, scales=scales),
        _model(_resize("nearest"), 1, scales=scales),
        _model(_resize(coordinates="half_pixel"), 1, scales=scales),
        _model(_resize(), 1, "H, W", scales=scales),
    ):
        assert upsampled_planes_as_products(Graph(model)) == 0


def test_upsampled_maps_keep_the_symbol_of_the_batch() -> None:
    model = _model(_resize(), scales=np.float32([1, 1, 2, 2]))
    model.graph.node[0].output[0] = "u"
    model.graph.node.add(op_type="Relu", input=["u"], output=["y"])
    graph = Graph(model)
    assert graph.shape("u") == (None, 16, 16, 24)
    assert declare_upsampled_shapes(graph) == 1
    assert graph.shape("u") == ("N", 16, 16, 24)
    onnx.checker.check_model(model, full_check=True)
