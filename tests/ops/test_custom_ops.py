"""Each custom operator computes what its summary says: by its body in every runtime, and natively in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from irforge.calib.islands import _is_generic
from irforge.errors import EnvironmentFault
from irforge.lint import lint
from irforge.ops import CUSTOM_OPS, add_bodies, count_custom_ops, drop_bodies
from irforge.runtime.custom_ops import native_library

CHANNELS, HIDDEN, HEIGHT, WIDTH = 6, 2, 9, 11
STEPS = {"scale_g": 0.02, "scale_l": 0.05}
SETTINGS = STEPS | {"scale": 0.25, "bins": 7, "every": 2, "sampling": 2}
BOXES = np.array([[[4, 2, 30, 33], [0, 0, 44, 36]], [[10, 10, 14, 12], [20.5, 7.25, 43.75, 20]]], np.float32)
# A rounding of FP16 in each of a body's steps; an int8 level where a value lies between two.
TOLERANCE = {("float32", "float"): 2e-6, ("float16", "float"): 6e-3, ("float32", "int8"): 0, ("float16", "int8"): 1}

Array = np.ndarray
Session = Callable[[onnx.ModelProto], onnxruntime.InferenceSession]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def mutual_gate(g: Array, l: Array) -> Array:
    return np.concatenate([g * sigmoid(l), l * sigmoid(g)], axis=1)


def quantized_mutual_gate(g: Array, l: Array) -> Array:
    steps = np.repeat([STEPS["scale_g"], STEPS["scale_l"]], g.shape[1])[None, :, None, None]
    return np.clip(np.rint(mutual_gate(g, l) / steps), -128, 127)


def channel_gate(x: Array, w1: Array, w2: Array) -> Array:
    def perceptron(pooled: Array) -> Array:
        return np.maximum(pooled @ w1[..., 0, 0].T, 0) @ w2[..., 0, 0].T

    logits = perceptron(x.mean(axis=(2, 3))) + perceptron(x.max(axis=(2, 3)))
    return x * sigmoid(logits)[:, :, None, None]


def spatial_gate(x: Array, w: Array) -> Array:
    reach = w.shape[-1] // 2
    pooled = np.pad(np.stack([x.mean(axis=1), x.max(axis=1)], axis=1), ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(pooled, w.shape[2:], axis=(2, 3))
    return x * sigmoid(np.einsum("nchwij,ocij->nohw", windows, w))


def fixed_roi_align(x: Array, boxes: Array) -> Array:
    """The mean of 2 x 2 samples in each of 4 x 4 bins; borders go on outside the map."""
    height, width = x.shape[2:]
    offsets = (np.arange(0, 7, 2)[:, None] + [0.25, 0.75]).ravel()
    pooled = []
    for maps, some in zip(x, boxes, strict=True):
        for x0, y0, x1, y1 in some:
            rows = (y0 + (y1 - y0) * offsets / 7) * 0.25 - 0.5
            columns = (x0 + (x1 - x0) * offsets / 7) * 0.25 - 0.5
            samples = weights_of(rows, height) @ maps @ weights_of(columns, width).T
            pooled.append(samples.reshape(len(maps), 4, 2, 4, 2).mean(axis=(2, 4)))
    return np.stack(pooled)


def weights_of(places: Array, length: int) -> Array:
    return np.maximum(1 - np.abs(places.clip(0, length - 1)[:, None] - np.arange(length)), 0)


EXPECTED: dict[str, Callable[..., Array]] = {
    "MutualGate": mutual_gate,
    "QuantizedMutualGate": quantized_mutual_gate,
    "ChannelGate": channel_gate,
    "SpatialGate": spatial_gate,
    "FixedRoiAlign": fixed_roi_align,
}
NATIVE = ("MutualGate", "QuantizedMutualGate", "ChannelGate", "SpatialGate")
WEIGHTS = {
    "ChannelGate": {"w1": (HIDDEN, CHANNELS, 1, 1), "w2": (CHANNELS, HIDDEN, 1, 1)},
    "SpatialGate": {"w": (1, 2, 7, 7)},
}


def inputs_of(name: str, dtype: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """Random maps and weights of an operator."""
    rng = np.random.default_rng(3)
    op = CUSTOM_OPS[name]
    shapes = WEIGHTS.get(name, {})
    maps = {
        i: BOXES if i == "boxes" else rng.normal(size=(2, CHANNELS, HEIGHT, WIDTH)).astype(dtype)
        for i in op.inputs
        if i not in shapes
    }
    return maps, {i: (0.3 * rng.normal(size=shape)).astype(dtype) for i, shape in shapes.items()}


def model_of(name: str, dtype: str, opset: int = 20, shape: tuple[int | str, ...] | None = None) -> onnx.ModelProto:
    """A model of one node with its body; inputs free in N, H and W unless a shape is given."""
    op = CUSTOM_OPS[name]
    maps, weights = inputs_of(name, dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    sides = shape or ("N", CHANNELS, "H", "W")
    result = TensorProto.INT8 if op.output_type == "tensor(int8)" else kind
    result_sides = (sides[0], 2 * CHANNELS if name.endswith("MutualGate") else CHANNELS, *sides[2:])
    if name == "FixedRoiAlign":
        result_sides = (2 * sides[0] if isinstance(sides[0], int) else None, CHANNELS, 4, 4)
    graph = helper.make_graph(
        [op.node(list(op.inputs), "result", **{key: SETTINGS[key] for key in op.attributes})],
        name,
        [
            helper.make_tensor_value_info(i, TensorProto.FLOAT, (sides[0], 2, 4))
            if i in op.wide_inputs
            else helper.make_tensor_value_info(i, kind, sides)
            for i in maps
        ],
        [helper.make_tensor_value_info("result", result, result_sides)],
        [numpy_helper.from_array(weight, i) for i, weight in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    add_bodies(model)
    return model


def by_body(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString())


def natively(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Without the body: the native kernel computes, or nothing does."""
    try:
        library = native_library("onnxruntime")
    except EnvironmentFault as error:
        pytest.skip(error.line)
    drop_bodies(model)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.mark.parametrize(
    ("name", "session"), [*((name, by_body) for name in CUSTOM_OPS), *((name, natively) for name in NATIVE)]
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_operator_computes_its_summary(name: str, dtype: str, session: Session) -> None:
    maps, weights = inputs_of(name, dtype)
    expected = EXPECTED[name](*(value.astype(np.float64) for value in (*maps.values(), *weights.values())))
    found = session(model_of(name, dtype)).run(None, maps)[0]
    kind = "int8" if found.dtype == np.int8 else "float"
    assert found.dtype == np.int8 or found.dtype == dtype
    np.testing.assert_allclose(
        found.astype(np.float64), expected, atol=TOLERANCE[dtype, kind], rtol=TOLERANCE[dtype, kind]
    )


@pytest.mark.parametrize("opset", [18, 19, 20])
@pytest.mark.parametrize("name", CUSTOM_OPS)
def test_a_file_of_any_opset_is_valid_and_runs_without_native_code(name: str, opset: int) -> None:
    model = model_of(name, "float32", opset)
    onnx.checker.check_model(model, full_check=True)
    maps, _ = inputs_of(name, "float32")
    by_runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, maps)[0]
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, maps)[0], by_runtime, atol=2e-6)


@pytest.mark.parametrize("session", [by_body, natively])
def test_mutual_gate_has_the_golden_values(session: Session) -> None:
    g = np.array([-2, -1, 0, 1, 2], np.float32).reshape(1, 1, 1, 5)
    l = np.array([3, 0, -3, 1, -1], np.float32).reshape(1, 1, 1, 5)
    model = model_of("MutualGate", "float32", shape=("N", "C", "H", "W"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "C2"
    found = session(model).run(None, {"g": g, "l": l})[0]
    golden = [[-1.90514825, -0.5, 0, 0.73105858, 0.53788284], [0.35760877, 0, -1.5, 0.73105858, -0.88079708]]
    np.testing.assert_allclose(found[0, :, 0], golden, atol=1e-7)


@pytest.mark.parametrize("name", CUSTOM_OPS)
@pytest.mark.parametrize("with_body", [True, False])
@pytest.mark.parametrize("shape", [(2, CHANNELS, 8, 12), ("N", CHANNELS, "H", "W")])
def test_shapes_are_inferred(name: str, with_body: bool, shape: tuple[int | str, ...]) -> None:
    model = model_of(name, "float32", shape=shape)
    declared = [side.dim_value or side.dim_param for side in model.graph.output[0].type.tensor_type.shape.dim]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    if not with_body:
        drop_bodies(model)
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type
    # A product of free sides has no name of its own; ONNX calls it unk__0.
    assert [side.dim_value or side.dim_param.replace("unk__0", "") for side in found.shape.dim] == declared


@pytest.mark.parametrize("name", CUSTOM_OPS)
def test_nvidias_parser_finds_the_plugin_of_a_node_by_its_attributes(name: str) -> None:
    (node,) = model_of(name, "float32").graph.node
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    assert attributes["plugin_namespace"] == b"" and attributes["plugin_version"] == b"1"


@pytest.mark.parametrize("name", CUSTOM_OPS)
def test_names_inside_a_body_cannot_be_those_of_a_graph(name: str) -> None:
    model = model_of(name, "float32")
    assert not [finding for finding in lint(model) if finding.rule == "function-names"]
    (body,) = model.functions
    inner = {*body.input, *body.output, *(i for node in body.node for i in (*node.input, *node.output))}
    assert all(i.startswith(f"irforge_{name}_") for i in inner)


def test_the_gate_of_a_trained_network_may_be_cast_to_half() -> None:
    assert _is_generic(CUSTOM_OPS["MutualGate"].function(20))


def test_a_file_has_the_bodies_it_uses_and_no_others() -> None:
    model = model_of("MutualGate", "float32")
    assert count_custom_ops(model) == {"MutualGate": 1}
    add_bodies(model)
    assert [function.name for function in model.functions] == ["MutualGate"]
    del model.graph.node[:]
    add_bodies(model)
    assert not model.functions and [entry.domain for entry in model.opset_import] == [""]


@pytest.mark.parametrize("name", CUSTOM_OPS)
def test_without_body_and_native_code_nothing_runs_in_silence(name: str) -> None:
    model = model_of(name, "float32")
    drop_bodies(model)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match=f"irforge:{name}"):
        onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", CUSTOM_OPS)
def test_nvidias_compiler_takes_the_body(name: str, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    from irforge.runtime.parts import compile_part

    shape = (1, CHANNELS, 16, 24)
    model = model_of(name, dtype, shape=shape)
    path = tmp_path / "op.onnx"
    onnx.save(model, path)
    shapes = {
        value.name: (tuple(side.dim_value for side in value.type.tensor_type.shape.dim),) * 3
        for value in model.graph.input
    }
    report, skipped = compile_part(path, shapes, ("8.9",))
    assert report.available and not skipped
