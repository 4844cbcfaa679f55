"""Folding into convolutions changes no output beyond float rounding, and stops where it would."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from irforge.export.passes import fold_affine_after, fold_affine_before
from irforge.graph import Graph

RNG = np.random.default_rng(0)


def model_of(body: str, outputs: str = "y", **weights: np.ndarray) -> onnx.ModelProto:
    """A model of the textual nodes over the float input x [N,1,8,9], with initializers."""
    declared = ", ".join(f"float[N, C, H, W] {name}" for name in outputs.split())
    text = f'<ir_version: 10, opset_import: ["": 20]> g (float[N, 1, 8, 9] x) => ({declared}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def run(model: onnx.ModelProto, channels: int = 1) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    x = np.random.default_rng(1).uniform(0, 255, (2, channels, 8, 9)).astype(np.float32)
    return list(ReferenceEvaluator(model).run(None, {"x": x}))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def floats(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


def check_equal(model: onnx.ModelProto, rewrite: object, expected_kinds: list[str], expected_count: int) -> None:
    before = run(model)
    graph = Graph(model)
    assert rewrite(graph) == expected_count  # type: ignore[operator]
    graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    assert kinds(model) == expected_kinds
    for old, new in zip(before, run(model), strict=True):
        np.testing.assert_allclose(new, old, rtol=2e-5, atol=2e-5 * np.abs(old).max())


def test_batch_norm_folds_into_its_convolution() -> None:
    model = model_of(
        "c = Conv<pads = [1, 1, 1, 1]>(x, w, b) y = BatchNormalization(c, gain, offset, mean, variance)",
        w=floats(4, 1, 3, 3), b=floats(4), gain=floats(4), offset=floats(4), mean=floats(4),
        variance=floats(4, low=0.5, high=2),
    )  # fmt: skip
    check_equal(model, fold_affine_after, ["Conv"], 1)


def test_batch_norm_folds_into_a_convolution_without_bias_and_leaves_a_shared_weight_alone() -> None:
    model = model_of(
        """c = Conv(x, w) d = Conv(x, w)
        e = BatchNormalization(c, gain, offset, mean, variance) y = Add(d, e)""",
        w=floats(4, 1, 3, 3), gain=floats(4), offset=floats(4), mean=floats(4), variance=floats(4, low=0.5, high=2),
    )  # fmt: skip
    check_equal(model, fold_affine_after, ["Conv", "Conv", "Add"], 1)


@pytest.mark.parametrize(
    "step", ["Mul(c, k)", "Mul(k, c)", "Div(c, k)", "Add(k, c)", "Sub(c, k)", "Sub(k, c)"]
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1)])
def test_per_channel_arithmetic_folds_into_the_convolution_before_it(step: str, shape: tuple[int, ...]) -> None:
    model = model_of(
        f"c = Conv<pads = [1, 1, 1, 1]>(x, w, b) y = {step}",
        w=floats(4, 1, 3, 3), b=floats(4), k=floats(*shape, low=0.5),
    )  # fmt: skip
    check_equal(model, fold_affine_after, ["Conv"], 1)


def test_what_is_not_one_number_a_channel_stays() -> None:
    for step, constant in (
        ("Mul(c, k)", floats(6, 7)),
        ("Mul(c, c)", floats(1)),
        ("Div(k, c)", floats(1)),
        ("Add(c, k)", floats(2, 4, 1, 1)),
    ):
        model = model_of(f"c = Conv(x, w, b) y = {step}", w=floats(4, 1, 3, 3), b=floats(4, low=3, high=4), k=constant)
        assert fold_affine_after(Graph(model)) == 0


def test_a_map_that_others_read_is_not_scaled() -> None:
    model = model_of("c = Conv(x, w) y = Mul(c, k) z = Relu(c)", outputs="y z", w=floats(4, 1, 3, 3), k=floats(1))
    assert fold_affine_after(Graph(model)) == 0
    output = model_of("y = Conv(x, w) z = Mul(y, k)", outputs="y z", w=floats(4, 1, 3, 3), k=floats(1))
    assert fold_affine_after(Graph(output)) == 0


MEAN = np.float32([123.7, 116.3, 103.5]).reshape(1, 3, 1, 1)
STD = np.float32([58.4, 57.1, 57.4]).reshape(1, 3, 1, 1)


@pytest.mark.parametrize(
    "replicate",
    [
        "r = Expand(x, to_rgb)",
        "r = Tile(x, to_rgb)",
        "r = Concat<axis = 1>(x, x, x)",
        "r = Identity(x)",
    ],
)
def test_normalisation_and_gray_to_rgb_become_a_one_channel_stem(replicate: str) -> None:
    model = model_of(
        f"{replicate} u = Div(r, level) s = Sub(u, mean) t = Div(s, std) y = Conv(t, w, b)",
        level=np.float32(255), mean=MEAN / 255, std=STD / 255, w=floats(16, 3, 1, 1), b=floats(16),
        to_rgb=np.array([1, 3, 1, 1], np.int64),
    )  # fmt: skip
    folded = 3 if "Identity" in replicate else 4
    graph = Graph(model)
    if folded == 3:
        graph.replace(graph.producer("r"), "x")
    check_equal(model, fold_affine_before, ["Conv"], folded)
    assert Graph(model).initializers[model.graph.node[0].input[1]].shape == (16, 1, 1, 1)


def test_a_shift_does_not_pass_a_padded_convolution() -> None:
    # At the border the padding is a zero of the normalised frame, which no bias can stand for.
    model = model_of(
        "s = Sub(x, mean) t = Div(s, std) y = Conv<pads = [1, 1, 1, 1]>(t, w, b)",
        mean=np.float32(100), std=np.float32(50), w=floats(4, 1, 3, 3), b=floats(4),
    )  # fmt: skip
    check_equal(model, fold_affine_before, ["Sub", "Conv"], 1)


def test_same_padding_counts_as_padding() -> None:
    model = model_of(
        's = Sub(x, mean) y = Conv<auto_pad = "SAME_UPPER">(s, w)', mean=np.float32(100), w=floats(4, 1, 3, 3)
    )
    check_equal(model, fold_affine_before, ["Sub", "Conv"], 0)
