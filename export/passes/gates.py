"""Rewrites around the gates: convolutions merged behind one, and patterns of standard nodes written as one operator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import NodeProto

from irforge.graph import Array, Graph, attribute, is_op
from irforge.ops import CHANNEL_GATE, MUTUAL_GATE, QUANTIZED_MUTUAL_GATE, SPATIAL_GATE, CustomOp, add_bodies
from irforge.ops.base import DOMAIN
from irforge.ops.spatial_gate import LARGEST_WINDOW


def merge_gated_convolutions(graph: Graph) -> int:
    """Run the two convolutions behind the halves of a MutualGate as one on its whole output.

    conv(a, V) + conv(b, W) becomes conv([a ; b], [V | W]), with the biases added: no copy of the halves, one map
    written and none summed. Only where both have the same settings and nothing else reads a half. For plugins: a
    compiler that sees the gate's body reads its halves where they are, and adds in the second convolution's epilogue.

    Returns:
        Number of pairs merged.
    """
    merged = 0
    for total in graph.of_type("Add"):
        pair = [graph.producer(name) for name in total.input]
        if not all(conv is not None and is_op(conv, "Conv") and _sole(graph, conv) for conv in pair):
            continue
        left, right = (conv for conv in pair if conv is not None)
        source, first, second = _halves(graph, left.input[0], right.input[0])
        if not source or _settings(left) != _settings(right) or attribute(left, "group", 1) != 1:
            continue
        ordered = (left, right) if first == left.input[0] else (right, left)
        weights = _known(graph, [conv.input[1] for conv in ordered])
        biases = _known(graph, [name for conv in ordered for name in conv.input[2:] if name])
        if weights is None or biases is None or any(len(graph.consumers(half)) > 1 for half in (first, second)):
            continue
        if weights[0].shape != weights[1].shape:
            continue
        inputs = [source, graph.add_array(np.concatenate(weights, axis=1), "merged_weight")]
        if biases:
            inputs.append(graph.add_array(np.sum(biases, axis=0), "merged_bias"))
        graph.replace(total, graph.add("Conv", inputs, "merged_conv", **_settings(left)))
        merged += 1
    return merged


def _known(graph: Graph, names: list[str]) -> list[Array] | None:
    arrays = [array for name in names if (array := graph.array(name)) is not None]
    return arrays if len(arrays) == len(names) else None


def _sole(graph: Graph, node: NodeProto) -> bool:
    return graph.sole_consumer(node.output[0]) is not None


def _settings(conv: NodeProto) -> dict[str, Any]:
    return {entry.name: attribute(conv, entry.name) for entry in conv.attribute}


def _halves(graph: Graph, left: str, right: str) -> tuple[str, str, str]:
    """(a MutualGate's output, its first half, its second half) if `left` and `right` are these halves, else blanks."""
    for first, second in ((left, right), (right, left)):
        source = _slice_of_gate(graph, first, half=0)
        if source and source == _slice_of_gate(graph, second, half=1):
            return source, first, second
    return "", "", ""


def _slice_of_gate(graph: Graph, name: str, half: int) -> str:
    """The MutualGate's output of which `name` is the given half, by Split or by Slice; '' if it is none."""
    node = graph.producer(name)
    if node is None or not is_op(node, "Split", "Slice"):
        return ""
    source = node.input[0]
    gate = graph.producer(source)
    shape = graph.shape(source)
    if gate is None or not is_custom(gate, MUTUAL_GATE) or not shape or not isinstance(shape[1], int):
        return ""
    middle = shape[1] // 2
    if is_op(node, "Split"):
        sizes = graph.array(node.input[1]) if len(node.input) > 1 else None
        even = len(node.output) == 2 and (sizes is None or list(sizes) == [middle, middle])
        return source if even and attribute(node, "axis", 0) == 1 and node.output[half] == name else ""
    bounds = [graph.array(part) for part in node.input[1:]]
    if len(bounds) < 3 or any(bound is None or bound.size != 1 for bound in bounds):
        return ""
    start, end, axis, step = [int(bound.item()) for bound in bounds if bound is not None] + [1] * (4 - len(bounds))
    expected = (0, middle) if half == 0 else (middle, shape[1])
    return source if (start, min(end, shape[1])) == expected and (axis, step) == (1, 1) else ""


def quantize_in_gates(graph: Graph) -> int:
    """Let a MutualGate whose only reader is a quantiser with one scale write the int8 values itself.

    For plugins: one kernel writes a byte a value where two would write two and read them back. In a graph that runs
    its bodies nothing changes.

    Returns:
        Number of gates rewritten.
    """
    rewritten = 0
    for gate in [node for node in graph.nodes if is_custom(node, MUTUAL_GATE)]:
        quantizer = graph.sole_consumer(gate.output[0])
        if quantizer is None or not is_op(quantizer, "QuantizeLinear") or attribute(quantizer, "output_dtype", 3) != 3:
            continue
        scale = graph.array(quantizer.input[1])
        zero = graph.array(quantizer.input[2]) if len(quantizer.input) > 2 and quantizer.input[2] else None
        # Without a zero point the values are uint8, unless the node says otherwise.
        signed = zero is not None and zero.dtype == np.int8 and not zero.any()
        if scale is None or scale.size != 1 or not signed:
            continue
        step = float(scale.item())
        _insert(graph, QUANTIZED_MUTUAL_GATE, list(gate.input), quantizer, scale_g=step, scale_l=step)
        rewritten += 1
    return rewritten


def fuse_spatial_gates(graph: Graph) -> int:
    """Write x * sigmoid(conv([mean over channels of x ; max over channels of x])) as one SpatialGate.

    Returns:
        Number of gates found.
    """
    fused = 0
    for product, source, gate in _factors(graph):
        weight = _spatial_gate_weight(graph, source, gate)
        if weight:
            _insert(graph, SPATIAL_GATE, [source, weight], product)
            fused += 1
    return fused


def fuse_channel_gates(graph: Graph) -> int:
    """Write x * sigmoid(m(mean over the map) + m(max over the map)), m a perceptron of two layers, as one ChannelGate.

    The perceptron stands as `merge_shared_perceptrons` leaves it; the mean may be an FP32 island.

    Returns:
        Number of gates found.
    """
    fused = 0
    for product, source, gate in _factors(graph):
        layers = _channel_gate_layers(graph, source, gate)
        if layers is not None:
            names = (f"{product.output[0]}_squeeze", f"{product.output[0]}_excite")
            weights = [graph.add_array(layer, name) for layer, name in zip(layers, names, strict=True)]
            _insert(graph, CHANNEL_GATE, [source, *weights], product)
            fused += 1
    return fused


def _factors(graph: Graph) -> Iterator[tuple[NodeProto, str, str]]:
    """Each product with its factors, in both orders: either may be the gate. A fused product has none that match."""
    for product in graph.of_type("Mul"):
        left, right = product.input
        yield product, left, right
        yield product, right, left


def _channel_gate_layers(graph: Graph, source: str, gate: str) -> tuple[Array, Array] | None:
    """Both layers' weights of the perceptron that makes `gate` from the global mean and maximum of `source`."""
    sigmoid = _maker(graph, gate, "Sigmoid")
    found = _perceptron(graph, sigmoid.input[0]) if sigmoid is not None else None
    pooled = _maker(graph, found[0], "Concat") if found is not None else None
    if found is None or pooled is None or len(pooled.input) != 2 or attribute(pooled, "axis") != 1:
        return None
    if not (
        _pools_map(graph, pooled.input[0], "ReduceMean", source)
        and _pools_map(graph, pooled.input[1], "ReduceMax", source)
    ):
        return None
    (hidden, channels), (out_channels, _) = (layer.shape[:2] for layer in found[1:])
    first, second = found[1][: hidden // 2, : channels // 2], found[2][:, : hidden // 2]
    zeros = np.zeros_like(first[..., 0, 0])
    diagonal = np.block([[first[..., 0, 0], zeros], [zeros, first[..., 0, 0]]])
    shared = np.array_equal(found[1][..., 0, 0], diagonal) and np.array_equal(found[2], np.concatenate([second] * 2, 1))
    return (first, second) if shared and 2 * out_channels == channels else None


def _perceptron(graph: Graph, name: str) -> tuple[str, Array, Array] | None:
    """(input, first weight, second weight) of Conv1x1 -> Relu -> Conv1x1 without biases."""
    last = _maker(graph, name, "Conv")
    active = _maker(graph, last.input[0], "Relu") if last is not None else None
    first = _maker(graph, active.input[0], "Conv") if active is not None else None
    if first is None or last is None or any((*first.input[2:], *last.input[2:])):
        return None
    weights = _known(graph, [first.input[1], last.input[1]])
    if weights is None or any(weight.shape[2:] != (1, 1) for weight in weights):
        return None
    return first.input[0], weights[0], weights[1]


def _pools_map(graph: Graph, name: str, kind: str, source: str) -> bool:
    """Whether `name` is the mean or maximum over the map of `source`, with casts on the way or without."""
    node = graph.producer(name)
    if node is not None and is_op(node, "Cast"):
        node = graph.producer(node.input[0])
    if node is None or not is_op(node, kind) or not _reduces(graph, node, ([2, 3], [-2, -1])):
        return False
    before = graph.producer(node.input[0])
    return source in (node.input[0], before.input[0] if before is not None and is_op(before, "Cast") else "")


def _spatial_gate_weight(graph: Graph, source: str, gate: str) -> str:
    """The weight of the convolution that makes `gate` from the pooled channels of `source`; '' if it is not so made."""
    sigmoid = _maker(graph, gate, "Sigmoid")
    conv = _maker(graph, sigmoid.input[0], "Conv") if sigmoid is not None else None
    pooled = _maker(graph, conv.input[0], "Concat") if conv is not None else None
    if conv is None or pooled is None or len(pooled.input) != 2 or any(conv.input[2:]):
        return ""
    mean, peak = (
        _maker(graph, name, kind) for name, kind in zip(pooled.input, ("ReduceMean", "ReduceMax"), strict=True)
    )
    if mean is None or peak is None or not all(_over_channels(graph, node, source) for node in (mean, peak)):
        return ""
    shape = graph.shape(conv.input[1])
    if not shape or len(shape) != 4 or shape[:2] != (1, 2) or shape[2] != shape[3] or not isinstance(shape[2], int):
        return ""
    side = shape[2]
    centred = side % 2 == 1 and side <= LARGEST_WINDOW and list(attribute(conv, "pads", [0] * 4)) == [side // 2] * 4
    plain = all(set(attribute(conv, name, [1])) == {1} for name in ("strides", "dilations"))
    return conv.input[1] if centred and plain and attribute(conv, "group", 1) == 1 else ""


def _maker(graph: Graph, name: str, kind: str) -> NodeProto | None:
    """The node of a kind that makes a tensor which nothing else reads."""
    node = graph.producer(name)
    return node if node is not None and is_op(node, kind) and graph.sole_consumer(name) is not None else None


def _over_channels(graph: Graph, reduction: NodeProto, source: str) -> bool:
    return reduction.input[0] == source and _reduces(graph, reduction, ([1], [-3]))


def _reduces(graph: Graph, reduction: NodeProto, forms: tuple[list[int], ...]) -> bool:
    """Whether a reduction keeps its dimensions and goes over the axes given in one of the forms."""
    axes = graph.array(reduction.input[1]) if len(reduction.input) > 1 else attribute(reduction, "axes")
    return attribute(reduction, "keepdims", 1) == 1 and axes is not None and list(np.ravel(axes)) in forms


def _insert(graph: Graph, op: CustomOp, inputs: list[str], instead: NodeProto, **attributes: Any) -> None:
    name = graph.fresh(f"{op.name.lower()}_{instead.output[0]}")
    graph.extend([op.node(inputs, name, **attributes)])
    # Types behind the node are inferred through its body.
    add_bodies(graph.model)
    graph.replace(instead, name)


def is_custom(node: NodeProto, op: CustomOp) -> bool:
    """Whether a node is the given custom operator."""
    return node.domain == DOMAIN and node.op_type == op.name


FOR_PLUGINS = (merge_gated_convolutions, quantize_in_gates, fuse_channel_gates, fuse_spatial_gates)
"""What `irforge fuse` runs, in this order: rewrites that win where native code runs the custom operators."""
