from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from irforge.artifact import check_model
from irforge.calib.cpu import insert_unsigned_qdq, unsigned_scale
from irforge.calib.placement import Span
from irforge.calib.qdq import ChannelScales, half_scale, insert_qdq, quantize_weight
from irforge.graph import Graph
from tests.calib.conftest import Net

Run = Callable[[onnx.ModelProto | Path, np.ndarray], np.ndarray]
FLOAT = TensorProto.FLOAT


def test_an_fp16_scale_reaches_the_largest_value_and_is_the_smallest_that_does() -> None:
    reach = np.float32(np.random.default_rng(0).uniform(0.01, 300, 2000))
    scale = half_scale(reach)
    assert np.array_equal(scale.astype(np.float16).astype(np.float32), scale)
    assert np.all(scale.astype(np.float64) * 127 >= reach.astype(np.float64) * (1 - 1e-7))
    below = np.nextafter(scale.astype(np.float16), np.float16(0)).astype(np.float64)
    assert np.all(below * 127 < reach)


def test_scales_never_become_zero_or_subnormal() -> None:
    assert float(half_scale(0.0)) == float(np.finfo(np.float16).smallest_normal)
    assert float(half_scale(1e-9)) == float(np.finfo(np.float16).smallest_normal)


def test_weights_round_to_even_and_stay_within_127() -> None:
    weight = np.float32([[[[0.5, 1.5, 2.5, -0.5, -1.5]]], [[[254, -254, 300, 2, 1]]]])
    quantized = quantize_weight(weight, np.float32([1, 2])).values
    assert quantized.dtype == np.int8
    assert quantized.ravel().tolist() == [0, 2, 2, 0, -2, 127, -127, 127, 1, 0]


def _pair() -> tuple[Net, str, str]:
    """Stem -> 3x3 convolution with loud and quiet channels -> ReLU -> mean of channels."""
    net = Net(4)
    stem = net.conv(net.node("Cast", "frames", to=FLOAT), 1, 8, 1)
    conv = net.conv(stem, 8, 16, 3)
    active = net.node("Relu", conv)
    net.node("ReduceMean", active, net.constant([1], np.int64), keepdims=1, out="mask")
    return net, stem, conv


def _reference(net: Net, stem: str, conv: str, frames: np.ndarray, run: Run, reach: float) -> np.ndarray:
    """The same in numpy: Q/DQ of the input and of each output channel's weights, by the definition in ONNX."""
    model = net.model()
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = {node.output[0]: node for node in model.graph.node}
    x = _tensor(model, stem, frames, run)
    scale = float(half_scale(reach))
    x = np.clip(np.rint(x / np.float32(scale)), -128, 127) * np.float32(scale)
    weight, bias = (weights[name] for name in nodes[conv].input[1:])
    steps = half_scale(np.abs(weight).reshape(16, -1).max(1)).reshape(-1, 1, 1, 1)
    weight = np.clip(np.rint(weight / steps), -127, 127) * steps
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    y = np.einsum("nihwkl,oikl->nohw", windows, weight, optimize=True) + bias.reshape(1, -1, 1, 1)
    result: np.ndarray = np.maximum(y, 0).mean(1, keepdims=True)
    return result


def _tensor(model: onnx.ModelProto, name: str, frames: np.ndarray, run: Run) -> np.ndarray:
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    del probe.graph.output[:]
    probe.graph.output.append(onnx.helper.make_tensor_value_info(name, FLOAT, None))
    return run(probe, frames)


def _noise(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def _spans(model: onnx.ModelProto, frames: np.ndarray, run: Run, *names: str) -> dict[str, Span]:
    values = {name: _tensor(model, name, frames, run) for name in names}
    return {name: Span(float(x.min()), float(x.max())) for name, x in values.items()}


@pytest.mark.parametrize("channel_scales", ["axis", "factored"])
def test_quantised_arithmetic_is_that_of_a_numpy_reference(
    channel_scales: ChannelScales, run_model: Run, frames_tensor: np.ndarray
) -> None:
    net, stem, conv = _pair()
    expected = _reference(net, stem, conv, frames_tensor, run_model, 300.0)
    model = net.model()
    insert_qdq(Graph(model), [conv], {stem: Span(-100.0, 300.0)}, channel_scales)
    check_model(model, "m", shapes=True)
    found = run_model(model, frames_tensor)
    # `factored` rounds its channel factors to FP16 apart from the base, which moves a scale by up to 2^-10.
    tolerance = 1e-4 if channel_scales == "axis" else 5e-3
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_factored_scales_are_one_per_tensor_and_a_factor_of_at_least_one_per_channel() -> None:
    net, stem, conv = _pair()
    model = net.model()
    insert_qdq(Graph(model), [conv], {stem: Span(-1.0, 1.0)}, "factored")
    graph = Graph(model)
    (scaled,) = graph.of_type("BatchNormalization")
    factors = graph.array(scaled.input[1])
    weight_dq = graph.producer(graph.producer(scaled.input[0]).input[1])  # type: ignore[union-attr]
    assert weight_dq is not None
    assert graph.array(weight_dq.input[1]).shape == ()  # type: ignore[union-attr]
    assert factors is not None
    assert factors.min() >= 1.0
    assert factors.max() > 2
    values = graph.array(weight_dq.input[0])
    assert values is not None
    assert np.all(np.abs(values.astype(int)).reshape(16, -1).max(1) >= 126)


def test_every_scale_is_held_exactly_by_fp16_and_no_bias_is_quantised() -> None:
    for form in ("axis", "factored"):
        net, stem, conv = _pair()
        model = net.model()
        insert_qdq(Graph(model), [conv], {stem: Span(-1.0, 1.0)}, form)  # type: ignore[arg-type]
        graph = Graph(model)
        for node in graph.of_type("QuantizeLinear", "DequantizeLinear"):
            scale, zero = graph.array(node.input[1]), graph.array(node.input[2])
            assert scale is not None
            assert zero is not None
            assert np.array_equal(scale.astype(np.float16).astype(np.float32), scale)
            assert zero.dtype == np.int8
            assert not zero.any()
        assert not [t for t in model.graph.initializer if t.data_type == TensorProto.INT32]


@pytest.mark.parametrize("form", ["axis", "factored"])
def test_a_weight_shared_by_two_convolutions_is_given_to_each(
    form: ChannelScales, run_model: Run, frames_tensor: np.ndarray
) -> None:
    net = Net(2)
    weight = net.weight(8, 8, 3, name="shared")
    stem = net.conv(net.node("Cast", "frames", to=FLOAT), 1, 8, 1)
    first = net.conv(stem, 8, 8, 3, weight=weight)
    second = net.conv(first, 8, 8, 3, weight=weight)
    net.node("ReduceMean", second, net.constant([1], np.int64), keepdims=1, out="mask")
    model = net.model()
    before = run_model(model, frames_tensor)
    points = _spans(model, frames_tensor, run_model, stem, first)
    insert_qdq(Graph(model), [first, second], points, form)
    graph = Graph(model)
    makers = [graph.producer(node.input[1]) for node in graph.of_type("Conv")[1:]]
    assert None not in makers
    assert len({maker.output[0] for maker in makers if maker}) == 2
    assert len({maker.input[0] for maker in makers if maker}) == 2
    assert _noise(run_model(model, frames_tensor), before) < 0.2


def test_a_channel_without_weights_stays_silent(run_model: Run, frames_tensor: np.ndarray) -> None:
    net, stem, conv = _pair()
    model = net.model()
    name = next(node.input[1] for node in model.graph.node if node.output[0] == conv)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[3] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    before = run_model(model, frames_tensor)
    points = _spans(model, frames_tensor, run_model, stem)
    for form in ("axis", "factored"):
        quantised = onnx.ModelProto.FromString(model.SerializeToString())
        insert_qdq(Graph(quantised), [conv], points, form)  # type: ignore[arg-type]
        assert _noise(run_model(quantised, frames_tensor), before) < 0.05


@pytest.mark.parametrize(
    ("span", "zero"), [(Span(0.0, 10.0), 0), (Span(-10.0, 0.0), 255), (Span(-5.0, 5.0), 127), (Span(2.0, 10.0), 0)]
)
def test_an_unsigned_scale_covers_the_span_with_zero_exact(span: Span, zero: int) -> None:
    scale, point = unsigned_scale(span)
    assert point == zero
    assert (0 - float(point)) * scale <= min(span.low, 0) + scale
    assert (255 - float(point)) * scale >= max(span.high, 0) - scale


def test_the_unsigned_form_computes_in_integers_on_onnx_runtime(
    run_model: Run, frames_tensor: np.ndarray, tmp_path: Path
) -> None:
    import onnxruntime

    net, stem, conv = _pair()
    active = net.nodes[-2].output[0]
    model = net.model()
    before = run_model(model, frames_tensor)
    insert_unsigned_qdq(Graph(model), [conv], _spans(model, frames_tensor, run_model, stem, active))
    check_model(model, "m", shapes=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "QLinearConv" in kinds
    assert _noise(run_model(model, frames_tensor), before) < 0.05


def _linear() -> tuple[Net, str, str]:
    """Tokens of 8 channels -> a matrix with loud and quiet columns -> mean of its 16 outputs."""
    net = Net(6)
    pixels = net.conv(net.node("Cast", "frames", to=FLOAT), 1, 8, 1)
    tokens = net.node("Transpose", pixels, perm=[0, 2, 3, 1])
    matrix = net.constant(net.random.normal(0, 0.3, (8, 16)) * 2.0 ** net.random.uniform(-3, 3, 16))
    product = net.node("MatMul", tokens, matrix)
    mean = net.node("ReduceMean", product, net.constant([3], np.int64), keepdims=1)
    net.node("Transpose", mean, perm=[0, 3, 1, 2], out="mask")
    return net, tokens, product


def test_a_matrix_product_gets_a_scale_for_each_column(run_model: Run) -> None:
    net, tokens, product = _linear()
    frames = np.random.default_rng(0).integers(0, 255, (1, 1, 32, 32), np.uint8)
    plain = net.model()
    expected_tokens = _tensor(plain, tokens, frames, run_model)
    matrix = next(onnx.numpy_helper.to_array(t) for t in plain.graph.initializer if t.dims == [8, 16])
    reach = float(np.abs(expected_tokens).max())
    step = np.float32(half_scale(reach))
    columns = half_scale(np.abs(matrix).max(axis=0))
    rounded = np.rint(matrix / columns) * columns
    expected = (np.rint(expected_tokens / step) * step) @ rounded

    model = net.model()
    insert_qdq(Graph(model), [product], {tokens: Span(-reach, reach)})
    check_model(model, "quantised", shapes=True)
    matrices = [tensor for tensor in model.graph.initializer if tensor.dims == [8, 16]]
    assert [tensor.data_type for tensor in matrices] == [TensorProto.INT8]
    model.graph.output[0].CopyFrom(onnx.helper.make_empty_tensor_value_info(product))
    # By the definition of the operators: ONNX Runtime's fused product saturates in 16 bits on CPUs without VNNI.
    found = ReferenceEvaluator(model).run(None, {"frames": frames})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-3)
