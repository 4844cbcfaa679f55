"""Writing Q/DQ pairs into a graph as TensorRT wants them: symmetric int8, zero point 0, no quantised bias, scales that
FP16 holds exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from irforge.calib.cast import HALF_NORMAL
from irforge.calib.histogram import LEVELS
from irforge.calib.placement import Span
from irforge.graph import Graph, is_op

Floats = npt.NDArray[np.float32]
ChannelScales = Literal["factored", "axis"]
"""How a weight's per-channel scales are written.

`axis`: one DequantizeLinear with a scale for each output channel. `factored`: one scale for the whole weight, and after
the convolution a BatchNormalization that multiplies each channel by the rest of its scale and adds the bias; the same
numbers in another order. TensorRT fuses both (a quantised convolution and the batch normalisation behind it are one
kernel). The ahead-of-time compiler of TensorRT-RTX 1.7 lets convolutions with scales on an axis write FP32 maps, and
with one scale FP16 maps.
"""


# FP16 holds larger factors, but a channel this far below the loudest one needs no finer steps.
_LARGEST_FACTOR = 2.0**12


@dataclass(frozen=True)
class QuantizedWeight:
    """int8 values of a convolution's weight and the scale of each output channel (float32)."""

    values: npt.NDArray[np.int8]
    scales: Floats


def half_scale(reach: npt.ArrayLike) -> Floats:
    """The smallest FP16 scale, as float32, with which `LEVELS` steps reach `reach`; at least FP16's smallest normal.

    Rounding up keeps the largest value inside the range: a scale rounded down would clip it.
    """
    exact = np.maximum(np.asarray(reach, np.float32) / np.float32(LEVELS), np.float32(HALF_NORMAL))
    rounded = exact.astype(np.float16)
    up = np.nextafter(rounded, np.float16(np.inf))
    scale: Floats = np.where(rounded.astype(np.float32) < exact, up, rounded).astype(np.float32)
    return scale


def quantize_weight(weight: Floats, scales: Floats) -> QuantizedWeight:
    """Round a weight [O, ...] to int8 with one scale for each of its O output channels, ties to even."""
    steps = weight / scales.reshape(-1, *[1] * (weight.ndim - 1))
    return QuantizedWeight(np.clip(np.rint(steps), -LEVELS, LEVELS).astype(np.int8), scales)


def channel_reach(weight: Floats) -> Floats:
    """Largest magnitude of each output channel."""
    reach: Floats = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1)
    return reach


def insert_qdq(
    graph: Graph, convolutions: Sequence[str], points: Mapping[str, Span], channel_scales: ChannelScales = "factored"
) -> None:
    """Quantise the weights of convolutions and put a Q/DQ pair behind each point, in place; FP32 with FP16 scales.

    Args:
        convolutions: by their output's name; their inputs are points.
        points: what each tensor to be int8 keeps.
    """
    by_output = {node.output[0]: node for node in graph.nodes}
    nodes = [by_output[name] for name in convolutions]
    for name, span in points.items():
        insert_point(graph, name, half_scale(span.reach), np.int8(0))
    for node in nodes:
        if is_op(node, "MatMul"):
            _on_columns(graph, node)
        else:
            (_factored if channel_scales == "factored" else _on_axis)(graph, node)
    graph.tidy()


def insert_point(graph: Graph, name: str, scale: Any, zero_point: Any) -> None:
    """Put QuantizeLinear and DequantizeLinear behind a tensor; whatever read it reads what comes out."""
    readers = graph.consumers(name)
    parameters = [
        graph.add_array(np.asarray(scale), f"{name}_scale"),
        graph.add_array(np.asarray(zero_point), f"{name}_zero"),
    ]
    quantized = graph.add("QuantizeLinear", [name, *parameters], f"{name}_quantized")
    restored = graph.add("DequantizeLinear", [quantized, *parameters], f"{name}_dequantized")
    for reader in readers:
        for place, source in enumerate(reader.input):
            if source == name:
                reader.input[place] = restored
    graph.touch()


def _on_axis(graph: Graph, node: NodeProto) -> None:
    weight = weight_of(graph, node)
    quantized = quantize_weight(weight, half_scale(channel_reach(weight)))
    dequantized_weight(graph, node, quantized.values, quantized.scales)


def _on_columns(graph: Graph, node: NodeProto) -> None:
    # A scale for each output, which are the columns of a matrix product's weight.
    rows = weight_of(graph, node).T
    quantized = quantize_weight(rows, half_scale(channel_reach(rows)))
    dequantized_weight(graph, node, np.ascontiguousarray(quantized.values.T), quantized.scales, axis=1)


def _factored(graph: Graph, node: NodeProto) -> None:
    weight = weight_of(graph, node)
    reach = channel_reach(weight)
    # From the smallest channel up, so that no factor is below 1 and the convolution's own result never exceeds what
    # the batch normalisation makes of it.
    smallest = reach[reach > 0].min() if np.any(reach > 0) else 0.0
    base = float(half_scale(max(smallest, reach.max() / _LARGEST_FACTOR)))
    factors = half_scale(np.maximum(reach / np.float32(base), LEVELS))
    quantized = quantize_weight(weight, factors * np.float32(base))
    dequantized_weight(graph, node, quantized.values, np.float32(base))
    bias = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    del node.input[2:]
    result = node.output[0]
    node.output[0] = graph.fresh(f"{result}_raw")
    channels = len(factors)
    parameters = {
        "factor": factors,
        "bias": np.zeros(channels, np.float32) if bias is None else bias.astype(np.float32),
        "mean": np.zeros(channels, np.float32),
        "variance": np.ones(channels, np.float32),
    }
    inputs = [graph.add_array(array, f"{result}_{role}") for role, array in parameters.items()]
    normalised = graph.add("BatchNormalization", [node.output[0], *inputs], f"{result}_scaled", epsilon=0.0)
    maker = graph.producer(normalised)
    assert maker is not None
    maker.output[0] = result
    graph.touch()


def dequantized_weight(graph: Graph, node: NodeProto, values: npt.NDArray[np.int8], scales: Any, axis: int = 0) -> None:
    # Every convolution gets a DQ and a weight of its own: TensorRT fuses a shared one with a single reader.
    name = node.input[1]
    scales = np.asarray(scales, np.float32)
    parameters = [
        graph.add_array(values, f"{name}_int8"),
        graph.add_array(scales, f"{name}_scale"),
        graph.add_array(np.zeros(scales.shape, np.int8), f"{name}_zero"),
    ]
    along: dict[str, Any] = {"axis": axis} if scales.ndim else {}
    node.input[1] = graph.add("DequantizeLinear", parameters, f"{name}_dequantized", **along)
    graph.touch()


def weight_of(graph: Graph, node: NodeProto) -> Floats:
    weight = graph.array(node.input[1])
    assert weight is not None
    return weight.astype(np.float32)
