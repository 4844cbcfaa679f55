"""A corpus of bad graphs: each is named by the rule it breaks, and a good graph by none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irforge.lint import JETPACK_6, TENSORRT_11, LintTarget, lint

Edit = Callable[[onnx.ModelProto], None]


def _model(body: str, door: str = "uint8[N, 1, 32, 32]", opset: int = 20, **weights: np.ndarray) -> onnx.ModelProto:
    """Textual nodes over `frames`, read as the float map `x`, that end in `y`."""
    text = f"""<ir_version: 10, opset_import: ["": {opset}]> bad ({door} frames) => (y) {{
        x = Cast<to = 1>(frames) {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def _floats(*shape: int) -> np.ndarray:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def _rules(model: onnx.ModelProto, target: LintTarget | None = None) -> dict[str, str]:
    findings = lint(model, target)
    for finding in findings:
        assert finding.where
        assert finding.what
        assert finding.mend
        assert "\n" not in finding.what
    return {finding.rule: finding.level for finding in findings}


GOOD = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
    e = DequantizeLinear<axis = 0>(w8, ws, wz) c = Conv<pads = [1, 1, 1, 1]>(d, e, b)
    m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c) y = Resize<mode = "linear">(m, , scales)"""


def _good(scale: np.ndarray | None = None, body: str = GOOD, **changes: np.ndarray) -> onnx.ModelProto:
    weights = {
        "s": np.float32(0.1) if scale is None else scale,
        "z": np.int8(0),
        "w8": np.arange(-18, 18, dtype=np.int8).reshape(4, 1, 3, 3),
        "ws": np.float32([0.1, 0.2, 0.3, 0.4]),
        "wz": np.zeros(4, np.int8),
        "b": _floats(4),
        "scales": np.float32([1, 1, 2, 2]),
    } | changes
    return _model(body, **{name: np.asarray(value) for name, value in weights.items()})


def test_a_good_quantised_graph_has_no_findings() -> None:
    for target in (None, JETPACK_6, TENSORRT_11, LintTarget("RTX", (11, 0), "7.5", is_rtx=True)):
        assert lint(_good(), target) == []


@pytest.mark.parametrize(
    ("rule", "model"),
    [
        ("operator", _model("n = NonZero(x) y = Cast<to = 1>(n)")),
        ("operator", _model("i = Cast<to = 7>(batch) y = RoiAlign(x, rois, i)", rois=_floats(2, 4), batch=_floats(2))),
        ("operator", _model("y = NonMaxSuppression(boxes, scores)", boxes=_floats(1, 6, 4), scores=_floats(1, 1, 6))),
        ("window", _model("y = MaxPool<kernel_shape = [320, 320]>(x)", "uint8[N, 1, 320, 320]")),
        ("door", _model("y = Relu(x)", "uint16[N, 1, 32, 32]")),
        ("door", _model("y = Relu(x)", "uint32[N, 1, 32, 32]")),
        ("double", _model("y = Relu(x)", "double[N, 1, 32, 32]")),
        ("double", _model("d = Cast<to = 11>(x) e = Relu(d) y = Cast<to = 1>(e)")),
        ("string", _model("t = Cast<to = 8>(x) y = Cast<to = 1>(t)")),
        ("shape", _model("y = Relu(x)", "uint8[N, 1, 0, 32]")),
        ("shape", _model("y = Relu(x)", f"uint8[N, 1, {2**40}, 32]")),
        ("not-finite", _good(b=np.float32([1, np.nan, 0, 0]))),
        ("not-finite", _model("h = Cast<to = 10>(x) k = Mul(h, w) y = Cast<to = 1>(k)", w=np.float16([np.inf]))),
        ("channels", _model("y = Conv(x, w)", w=_floats(4, 2, 3, 3))),
        ("qdq-scale", _good(np.float32(0))),
        ("qdq-scale", _good(np.float32(-0.1))),
        ("qdq-scale", _good(np.float32(np.nan))),
        ("qdq-scale", _good(ws=np.float32([0.1, 0.2, 0, 0.4]))),
        ("qdq-zero-point", _good(z=np.int8(3))),
        ("qdq-type", _good(z=np.uint8(0))),
        (
            "int32-bias",
            _good(body=GOOD.replace("e, b)", "e, bd)").replace("c = Conv", "bd = DequantizeLinear(b32, bs) c = Conv"),
                  b32=np.arange(4, dtype=np.int32), bs=np.float32(0.01)),
        ),
        (
            "shared-weight",
            _good(body=GOOD.replace("m = MaxPool", "c2 = Conv<pads = [1, 1, 1, 1]>(d, e) c3 = Add(c, c2) m = MaxPool")
                  .replace("strides = [2, 2]>(c)", "strides = [2, 2]>(c3)")),
        ),
        ("fixed-size", _model("y = Resize<mode = 'nearest'>(x, , , sizes)".replace("'", '"'), "uint8[N, 1, H, W]",
                              sizes=np.array([1, 1, 64, 64], np.int64))),
        ("fixed-size", _model("y = MaxPool<kernel_shape = [32, 32]>(x)", "uint8[N, 1, H, W]")),
        ("fixed-size", _model("y = Reshape(x, shape)", "uint8[N, 1, H, W]", shape=np.array([1, 1, 1024]))),
    ],
)  # fmt: skip
def test_what_tensorrt_refuses_or_serves_wrongly_is_an_error(rule: str, model: onnx.ModelProto) -> None:
    assert _rules(model).get(rule) == "error"


def test_a_negative_dimension_is_an_error() -> None:
    model = _good()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -4
    assert any(rule in _rules(model) for rule in ("shape", "graph"))


def test_a_graph_without_inputs_is_an_error() -> None:
    model = _good()
    frames = numpy_helper.from_array(np.zeros((1, 1, 32, 32), np.uint8), "frames")
    del model.graph.input[:]
    model.graph.initializer.append(frames)
    assert _rules(model)["no-inputs"] == "error"


def test_unsorted_nodes_are_an_error_and_a_cycle_is_named() -> None:
    model = _good()
    model.graph.node.sort(key=lambda node: node.op_type)
    assert _rules(model)["order"] == "error"
    model.graph.node[0].input[0] = "y"
    assert _rules(model)["graph"] == "error"


def test_a_second_quantiser_of_a_shared_weight_is_found() -> None:
    model = _model(
        """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        a = QuantizeLinear<axis = 0>(w, ws, wz) b = DequantizeLinear<axis = 0>(a, ws, wz)
        e = QuantizeLinear<axis = 0>(w, ws, wz) f = DequantizeLinear<axis = 0>(e, ws, wz)
        g = Conv(d, b) h = Conv(d, f) y = Add(g, h)""",
        w=_floats(4, 1, 3, 3), s=np.float32(0.1), z=np.array(0, np.int8), ws=np.full(4, 0.1, np.float32),
        wz=np.zeros(4, np.int8),
    )  # fmt: skip
    assert _rules(model)["shared-weight"] == "error"


def test_a_shared_weight_is_fine_as_long_as_nothing_is_quantised() -> None:
    assert lint(_model("a = Conv(x, w) b = Conv(x, w) y = Add(a, b)", w=_floats(4, 1, 3, 3))) == []


def test_jetpack_6_reads_opset_20_and_ir_10() -> None:
    model = _good()
    model.opset_import[0].version = 21
    model.ir_version = 11
    expected = {"opset": "error", "ir-version": "error"}
    assert _rules(model, JETPACK_6) == expected
    assert _rules(model) == dict.fromkeys(expected, "warning")
    assert _rules(model, TENSORRT_11) == {}


def test_mixed_scale_trap_is_an_error_on_orin_only() -> None:
    body = """q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, h, z) f = Cast<to = 1>(d) y = Relu(f)"""
    model = _model(body, s=np.float32(0.1), h=np.float16(0.1), z=np.array(0, np.int8))
    assert _rules(model, JETPACK_6)["mixed-scale"] == "error"
    assert _rules(model)["mixed-scale"] == "warning"
    assert "mixed-scale" not in _rules(model, LintTarget("Thor", (10, 13), "11.0"))


def test_fp32_products_are_an_error_for_turing_only() -> None:
    model = _model("f = Flatten(x) y = MatMul(f, w)", w=_floats(1024, 3))
    turing = LintTarget("TensorRT-RTX, SM 7.5", (11, 0), "7.5", is_rtx=True)
    assert _rules(model, turing) == {"fp32-gemm": "error"}
    assert _rules(model) == {"fp32-gemm": "warning"}
    assert _rules(model, LintTarget("TensorRT-RTX, SM 8.9", (11, 0), "8.9", is_rtx=True)) == {}


def test_int64_doors_are_a_warning() -> None:
    assert _rules(_model("y = Relu(x)", "int64[N, 1, 32, 32]")) == {"int64": "warning"}


def test_a_list_of_class_numbers_may_be_int64() -> None:
    text = "agraph (float[1, 8] x) => (int64[1, 8] y) {{ y = Cast<to = 7>(x) }}"
    assert not lint(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text.format()}'))


def _with_function(inner: str, domain: str = "irforge") -> onnx.ModelProto:
    model = _model("r = Relu(x) y = Abs(r)")
    model.graph.node[2].CopyFrom(helper.make_node("Gate", ["r"], ["y"], domain="irforge"))
    model.opset_import.append(helper.make_opsetid("irforge", 1))
    body = [helper.make_node("Relu", [inner], ["gate_out"])]
    model.functions.append(
        helper.make_function(domain, "Gate", [inner], ["gate_out"], body, [helper.make_opsetid("", 20)])
    )
    return model


def test_function_bodies_with_names_of_their_own_are_fine_and_others_an_error() -> None:
    assert lint(_with_function("gate_in")) == []
    assert _rules(_with_function("r"))["function-names"] == "error"


def test_functions_are_told_apart_by_name_not_by_domain() -> None:
    model = _with_function("gate_in")
    other = _with_function("gate_in", domain="other").functions[0]
    model.functions.append(other)
    assert _rules(model)["function-names"] == "error"


def test_an_operator_of_nobody_is_an_error() -> None:
    model = _with_function("gate_in")
    del model.functions[:]
    assert _rules(model)["operator"] == "error"


def test_findings_name_the_node_and_errors_come_first() -> None:
    model = _good(np.float32(0))
    model.opset_import[0].version = 21
    model.graph.node[1].name = "door_quantizer"
    levels = [finding.level for finding in lint(model)]
    assert levels == sorted(levels)
    assert "QuantizeLinear 'door_quantizer'" in [finding.where for finding in lint(model)]


def test_strings_are_no_weights() -> None:
    model = _good()
    names = helper.make_tensor("names", TensorProto.STRING, [2], [b"a", b"b"])
    model.graph.initializer.append(names)
    assert _rules(model)["string"] == "error"
