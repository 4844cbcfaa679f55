"""ChannelGate: one gate a channel from its global mean and maximum (CBAM's channel attention, as in MSHNet and GLMD).

The mean is taken in FP32: over a whole map, FP16 would lose digits or overflow.
"""

from __future__ import annotations

import onnx

from irforge.ops.base import CustomOp, set_output, sides


def _infer(context: onnx.shape_inference.InferenceContext) -> None:
    set_output(context, sides(context, 0))


CHANNEL_GATE = CustomOp(
    name="ChannelGate",
    summary="y = x * sigmoid(m(mean over the map) + m(max over the map)), m(v) = w2 relu(w1 v);"
    " w1 is h x C x 1 x 1, w2 C x h x 1 x 1",
    inputs=("x", "w1", "w2"),
    output="y",
    body="""
    map = Constant <value_ints: ints = [2, 3]> ()
    wide = Cast <to: int = 1> (x)
    wide_mean = ReduceMean <keepdims = 1> (wide, map)
    mean = CastLike (wide_mean, x)
    peak = ReduceMax <keepdims = 1> (x, map)
    pooled = Concat <axis = 1> (mean, peak)
    first = Concat <axis = 0> (w1, w1)
    second = Concat <axis = 1> (w2, w2)
    hidden = Conv <group = 2> (pooled, first)
    active = Relu (hidden)
    logits = Conv (active, second)
    gate = Sigmoid (logits)
    y = Mul (x, gate)
    """,
    infer=_infer,
)
