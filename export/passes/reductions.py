"""Global pooling and the shared perceptrons behind it, in the form that every backend runs best."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from irforge.graph import Array, Graph, attribute, is_op


def global_max_as_reduction(graph: Graph) -> int:
    """Write a MaxPool whose window is the whole map as ReduceMax, which is also right at other sizes.

    Exporters write global max pooling as such a window; TensorRT refuses windows above 100,000 elements (317 x 317).

    Returns:
        Number of nodes rewritten.
    """
    pools = [node for node in graph.of_type("MaxPool") if _covers_map(graph, node)]
    for pool in pools:
        graph.replace(pool, _reduce(graph, "ReduceMax", pool.input[0], [2, 3]))
    return len(pools)


def _covers_map(graph: Graph, pool: NodeProto) -> bool:
    shape = graph.shape(pool.input[0])
    window = list(attribute(pool, "kernel_shape"))
    return (
        shape is not None
        and len(pool.output) == 1
        and list(shape[2:]) == window
        and not any(attribute(pool, "pads", []))
        and attribute(pool, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    )


def _reduce(graph: Graph, kind: str, name: str, axes: list[int]) -> str:
    if graph.opset >= 18:
        return graph.add(kind, [name, graph.add_array(np.array(axes, np.int64), "axes")], keepdims=1)
    return graph.add(kind, [name], axes=axes, keepdims=1)


def merge_shared_perceptrons(graph: Graph) -> int:
    """Run a two-layer perceptron that is shared by two pooled vectors once, on both.

    W2 relu(W1 a) + W2 relu(W1 b) becomes [W2 W2] relu(diag(W1, W1) [a; b]): two convolutions instead of four and no sum
    (238 -> 210 kernels for MSHNet in TensorRT-RTX 1.7's FP16 plan), and no weight is shared by two convolutions, which
    Q/DQ placement does not bear. The zeros of the block-diagonal matrix cost nothing that shows: the maps are 1x1.

    Returns:
        Number of perceptron pairs merged.
    """
    merged = 0
    for total in graph.of_type("Add"):
        left, right = (_perceptron(graph, name) for name in total.input)
        if left is None or right is None or left[1:] != right[1:]:
            continue
        (a, first, second), b = left, right[0]
        inner, outer = graph.array(first), graph.array(second)
        if inner is None or outer is None:
            continue
        stacked = graph.add("Concat", [a, b], axis=1)
        hidden = graph.add("Conv", [stacked, graph.add_array(_diagonal(inner), f"{first}_twice")], kernel_shape=[1, 1])
        active = graph.add("Relu", [hidden])
        weight = graph.add_array(np.concatenate([outer, outer], axis=1), f"{second}_twice")
        graph.replace(total, graph.add("Conv", [active, weight], kernel_shape=[1, 1]))
        merged += 1
    return merged


def _diagonal(weight: Array) -> Array:
    zeros = np.zeros_like(weight)
    upper, lower = np.concatenate([weight, zeros], axis=1), np.concatenate([zeros, weight], axis=1)
    return np.concatenate([upper, lower], axis=0)


def _perceptron(graph: Graph, name: str) -> tuple[str, str, str] | None:
    """(input, first weight, second weight) of Conv1x1 -> Relu -> Conv1x1 without biases on an N x C x 1 x 1 vector."""
    layers = []
    for kind in ("Conv", "Relu", "Conv"):
        node = graph.producer(name)
        if node is None or not is_op(node, kind) or graph.sole_consumer(name) is None:
            return None
        if kind == "Conv" and (len(node.input) > 2 or not _is_plain_pointwise(graph, node)):
            return None
        layers.append(node)
        name = node.input[0]
    shape = graph.shape(name)
    if shape is None or shape[2:] != (1, 1):
        return None
    return name, layers[2].input[1], layers[0].input[1]


def _is_plain_pointwise(graph: Graph, conv: NodeProto) -> bool:
    weight = graph.array(conv.input[1])
    strides = attribute(conv, "strides", [1, 1])
    return (
        weight is not None
        and weight.shape[2:] == (1, 1)
        and attribute(conv, "group", 1) == 1
        and not any(attribute(conv, "pads", []))
        and list(strides) == [1, 1]
    )
