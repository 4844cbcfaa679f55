"""MutualGate: the fusion of two feature maps of which each gates the other (GLMD-CA's mutual distillation fusion)."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from irforge.ops.base import CustomOp, set_output, sides

Context = onnx.shape_inference.InferenceContext


def _infer(context: Context, elem_type: int | None = None) -> None:
    shape = sides(context, 0)
    if shape is not None and len(shape) > 1:
        channels = onnx.TensorShapeProto.Dimension()
        if shape[1].HasField("dim_value"):
            channels.dim_value = 2 * shape[1].dim_value
        shape[1] = channels
    set_output(context, shape, elem_type)


def _infer_int8(context: Context) -> None:
    _infer(context, TensorProto.INT8)


_GATES = """
    gate_of_g = Sigmoid (l)
    gate_of_l = Sigmoid (g)
    gated_g = Mul (g, gate_of_g)
    gated_l = Mul (l, gate_of_l)
"""

MUTUAL_GATE = CustomOp(
    name="MutualGate",
    summary="y = concat over channels of [g * sigmoid(l) ; l * sigmoid(g)]; N x C x H x W twice -> N x 2C x H x W",
    inputs=("g", "l"),
    output="y",
    body=_GATES + "y = Concat <axis = 1> (gated_g, gated_l)",
    infer=_infer,
)

QUANTIZED_MUTUAL_GATE = CustomOp(
    name="QuantizedMutualGate",
    summary="MutualGate with int8 halves: round(g * sigmoid(l) / scale_g), round(l * sigmoid(g) / scale_l)",
    inputs=("g", "l"),
    output="y",
    body=_GATES
    + """
    step_g = Constant <value_float: float = @scale_g> ()
    step_l = Constant <value_float: float = @scale_l> ()
    typed_step_g = CastLike (step_g, g)
    typed_step_l = CastLike (step_l, l)
    zero = Constant <value: tensor = int8 {0}> ()
    levels_g = QuantizeLinear (gated_g, typed_step_g, zero)
    levels_l = QuantizeLinear (gated_l, typed_step_l, zero)
    y = Concat <axis = 1> (levels_g, levels_l)
    """,
    infer=_infer_int8,
    attributes={"scale_g": float, "scale_l": float},
    output_type="tensor(int8)",
)
