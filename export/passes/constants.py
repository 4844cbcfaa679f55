"""Evaluate at export what does not depend on the frame."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from irforge.graph import Array, Graph, attribute, is_op, reads

# A folded tensor that is larger than its operands by this much would grow the file for little.
_MAX_GROWTH_BYTES = 1 << 20
_NOT_FOLDED = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")


def fold_constants(graph: Graph) -> int:
    """Replace nodes whose inputs are all known by initializers, and drop Identity nodes and casts to the same type.

    `Shape` of a tensor with known sides is a known value. Q/DQ nodes and functions stay: they carry meaning.

    Returns:
        Number of nodes that went.
    """
    folded = 0
    for node in graph.nodes:
        if is_op(node, "Identity") or _is_idle_cast(graph, node):
            if node.output[0] not in graph.outputs or graph.producer(node.input[0]) is not None:
                graph.replace(node, node.input[0])
                folded += 1
            continue
        values = _known_values(graph, node)
        if values is None or any(name in graph.outputs for name in node.output):
            continue
        for name, value in zip(node.output, values, strict=True):
            if name:
                graph.reroute(name, graph.add_array(value, f"{name}_value"))
        graph.remove(node)
        folded += 1
    return folded


def _is_idle_cast(graph: Graph, node: NodeProto) -> bool:
    if is_op(node, "CastLike"):
        return graph.dtype(node.input[0]) == graph.dtype(node.input[1]) != TensorProto.UNDEFINED
    return is_op(node, "Cast") and attribute(node, "to") == graph.dtype(node.input[0])


def _known_values(graph: Graph, node: NodeProto) -> list[Array] | None:
    if is_op(node, "Shape"):
        shape = graph.shape(node.input[0])
        if shape is None:
            return None
        sides = shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))]
        if any(not isinstance(side, int) for side in sides):
            return None
        return [np.array(sides, np.int64)]
    foldable = is_op(node, node.op_type) and not is_op(node, *_NOT_FOLDED, "QuantizeLinear", "DequantizeLinear")
    known = {name: graph.array(name) for name in reads(node)}
    if not foldable or any(value is None for value in known.values()):
        return None
    if is_op(node, "Constant"):
        value = graph.array(node.output[0])
        return None if value is None else [value]
    values = [np.asarray(value) for value in ReferenceEvaluator(_alone(graph, node)).run(None, known)]
    grown = sum(value.nbytes for value in values) - sum(value.nbytes for value in known.values() if value is not None)
    return None if grown > _MAX_GROWTH_BYTES else values


def _alone(graph: Graph, node: NodeProto) -> ModelProto:
    """A model of one node, whose inputs and outputs are declared by name only."""
    inputs = [
        helper.make_value_info(name, helper.make_tensor_type_proto(graph.dtype(name), None)) for name in reads(node)
    ]
    outputs = [
        helper.make_value_info(name, helper.make_tensor_type_proto(graph.dtype(name), None)) for name in node.output
    ]
    body = helper.make_graph([node], "alone", inputs, outputs)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", graph.opset)])
