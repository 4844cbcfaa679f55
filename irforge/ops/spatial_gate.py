"""SpatialGate: one gate a pixel from the mean and maximum over channels (CBAM's spatial attention, as in MSHNet)."""

from __future__ import annotations

import onnx

from irforge.ops.base import CustomOp, set_output, sides

LARGEST_WINDOW = 15
"""Side of the largest convolution that native code computes; the body has no such limit."""


def _infer(context: onnx.shape_inference.InferenceContext) -> None:
    set_output(context, sides(context, 0))


SPATIAL_GATE = CustomOp(
    name="SpatialGate",
    summary="y = x * sigmoid(conv([mean over channels of x ; max over channels of x], w)); w is 1 x 2 x k x k, k odd",
    inputs=("x", "w"),
    output="y",
    body="""
    channels = Constant <value_ints: ints = [1]> ()
    mean = ReduceMean <keepdims = 1> (x, channels)
    peak = ReduceMax <keepdims = 1> (x, channels)
    pooled = Concat <axis = 1> (mean, peak)
    logits = Conv <auto_pad: string = "SAME_UPPER"> (pooled, w)
    gate = Sigmoid (logits)
    y = Mul (x, gate)
    """,
    infer=_infer,
)
