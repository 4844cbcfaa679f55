"""Q/DQ as ONNX Runtime's CPU kernels want it: unsigned activations with a zero point, int8 weights with a scale for
each output channel, int32 biases; everything else in FP32. TensorRT refuses all of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto

from irforge.calib.placement import Span
from irforge.calib.qdq import channel_reach, dequantized_weight, insert_point, quantize_weight, weight_of
from irforge.graph import Graph

_UNSIGNED_LEVELS = 255
# Seven bits: x86 kernels without VNNI add two products of u8 and s8 in 16 bits, which eight would saturate.
_WEIGHT_LEVELS = 63


def unsigned_scale(span: Span) -> tuple[np.float32, np.uint8]:
    """Scale and zero point with which 256 levels cover a span, zero exactly included."""
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    scale = np.float32(max((high - low) / _UNSIGNED_LEVELS, float(np.finfo(np.float32).tiny)))
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, _UNSIGNED_LEVELS))


def insert_unsigned_qdq(graph: Graph, convolutions: Sequence[str], points: Mapping[str, Span]) -> None:
    """Quantise convolutions and put a Q/DQ pair behind each point, in place.

    Args:
        convolutions: by their output's name; their inputs are points.
        points: what each tensor to be quantised keeps.
    """
    by_output = {node.output[0]: node for node in graph.nodes}
    nodes = [by_output[name] for name in convolutions]
    scales = {name: unsigned_scale(span) for name, span in points.items()}
    for node in nodes:
        _quantize_parameters(graph, node, scales[node.input[0]][0])
    for name, (scale, zero_point) in scales.items():
        insert_point(graph, name, scale, zero_point)
    graph.tidy()


def _quantize_parameters(graph: Graph, node: NodeProto, input_scale: np.float32) -> None:
    weight = weight_of(graph, node)
    tiny = np.float32(np.finfo(np.float32).tiny)
    scales = np.maximum(channel_reach(weight) / np.float32(_WEIGHT_LEVELS), tiny)
    quantized = quantize_weight(weight, scales)
    dequantized_weight(graph, node, quantized.values, scales)
    bias = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if bias is None:
        return
    steps = np.float64(input_scale) * scales
    limit = np.iinfo(np.int32).max
    name = node.input[2]
    parameters = [
        graph.add_array(np.clip(np.rint(bias / steps), -limit, limit).astype(np.int32), f"{name}_int32"),
        graph.add_array(steps.astype(np.float32), f"{name}_scale"),
        graph.add_array(np.zeros(len(bias), np.int32), f"{name}_zero"),
    ]
    node.input[2] = graph.add("DequantizeLinear", parameters, f"{name}_dequantized", axis=0)
    graph.touch()
