"""What does not depend on the frame is evaluated once; everything else stays."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from irforge.export.passes import fold_constants, run_passes
from irforge.graph import Graph


def _model(body: str, **weights: np.ndarray) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["": 20]> g (float[N, 2, 8, 8] x) => (float[N, C, H, W] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def _folded(model: onnx.ModelProto) -> list[str]:
    x = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    before = ReferenceEvaluator(model).run(None, {"x": x})[0]
    graph = Graph(model)
    fold_constants(graph)
    graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], before)
    return [node.op_type for node in model.graph.node]


def test_chains_of_constants_vanish() -> None:
    model = _model(
        """c = Constant<value_float = 0.5>() k = Mul(c, w) shape = Constant<value_ints = [2, 1, 1]>()
        r = Reshape(k, shape) t = CastLike(r, x) y = Mul(x, t)""",
        w=np.float32([3, 5]),
    )
    assert _folded(model) == ["Mul"]


def test_shapes_with_known_sides_are_constants() -> None:
    model = _model("s = Shape<start = 1, end = 4>(x) f = Cast<to = 1>(s) m = ReduceMean<keepdims = 0>(f) y = Mul(x, m)")
    assert _folded(model) == ["Mul"]
    assert _folded(_model("s = Shape<start = 0, end = 1>(x) f = Cast<to = 1>(s) y = Mul(x, f)")) == [
        "Shape", "Cast", "Mul",
    ]  # fmt: skip


def test_identities_and_idle_casts_vanish_also_before_an_output() -> None:
    assert _folded(_model("a = Identity(x) b = Cast<to = 1>(a) c = Relu(b) y = Identity(c)")) == ["Relu"]
    assert _folded(_model("y = Identity(x)")) == ["Identity"]


def test_a_large_result_is_not_stored() -> None:
    model = _model("big = Expand(one, shape) small = ReduceMax<keepdims = 0>(big) y = Mul(x, small)",
                   one=np.float32([1]), shape=np.array([1024, 1024], np.int64))  # fmt: skip
    assert _folded(model) == ["Expand", "ReduceMax", "Mul"]


def test_quantisation_of_a_constant_stays() -> None:
    model = _model("q = QuantizeLinear(w, s, z) d = DequantizeLinear(q, s, z) y = Mul(x, d)",
                   w=np.float32([1, 2]).reshape(2, 1, 1), s=np.float32(0.1), z=np.int8(0))  # fmt: skip
    assert _folded(model) == ["QuantizeLinear", "DequantizeLinear", "Mul"]


def test_no_pass_drops_or_touches_functions() -> None:
    body = [helper.make_node("Relu", ["irforge_a"], ["irforge_b"])]
    model = _model("k = Constant<value_float = 2.0>() r = Mul(x, k) y = Relu(r)")
    model.graph.node[2].CopyFrom(helper.make_node("Gate", ["r"], ["y"], domain="irforge", name="gate"))
    model.opset_import.append(helper.make_opsetid("irforge", 1))
    model.functions.append(
        helper.make_function("irforge", "Gate", ["irforge_a"], ["irforge_b"], body, [helper.make_opsetid("", 20)])
    )
    before = model.functions[0].SerializeToString()
    for target in ("tensorrt", "cpu"):
        run_passes(model, target)  # type: ignore[arg-type]
        onnx.checker.check_model(model, full_check=True)
        assert [function.SerializeToString() for function in model.functions] == [before]
        assert [node.op_type for node in model.graph.node] == ["Mul", "Gate"]
    assert Graph(model).dtype("r") == TensorProto.FLOAT
