"""Which nodes stay in FP32 when the rest of a graph goes to FP16, and why: by measured ranges, and by rules that hold
without any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from irforge.artifact import subgraphs
from irforge.calib.cast import FLOAT, HALF_MAX, has_half_form
from irforge.calib.ranges import TensorRange
from irforge.graph import STANDARD_DOMAINS, Graph, attribute, is_op
from irforge.ops import CUSTOM_OPS, DOMAIN

MARGIN = 8.0
"""Measured magnitudes may grow by this factor on frames never seen before FP16 overflows."""

# Subnormals are off by 2^-25 at most, which shows only in a tensor whose largest values are small as well.
SUBNORMAL_SHARE = 0.5
SMALL = 2.0**-8
LARGE_SUM = 1024

_AVERAGES = ("ReduceMean", "GlobalAveragePool", "AveragePool")
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceLogSum", "CumSum")
_NORMALIZERS = (
    "Softmax",
    "LogSoftmax",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
)
_POINTWISE_LAST = ("Sigmoid", "Softmax", "Identity", "Clip", "Mul", "Add")
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Island:
    """A node that stays in FP32: its first output's name, its operator, and the rule that keeps it."""

    node: str
    op: str
    reason: str


def fp32_islands(
    model: onnx.ModelProto,
    tensors: Mapping[str, TensorRange] | None = None,
    *,
    raw_counts: bool = False,
    decodes: bool = False,
    compares: bool = False,
) -> dict[str, Island]:
    """The nodes to keep in FP32, by first output.

    Args:
        model: an FP32 graph whose types can be inferred.
        tensors: measured ranges; without them only the static rules apply.
        raw_counts: the frames come in as counts of more than 8 bits (the contract's float32 door).
        decodes: the outputs are boxes: what follows the last convolutions computes in pixels and orders scores.
        compares: features are compared by their directions, as image encoders do: a score hangs on a cosine's third
            digit.

    Returns:
        For each node the first rule that holds, in this order: no FP16 form, raw counts at the door, the decoder, the
        comparison from its features' L2 norm on, a large sum or a normaliser, the value that leaves the graph, and with
        ranges: close to FP16's limit, or small and mostly below its normals.
    """
    graph = Graph(model)
    behind_door = _behind_float_door(graph) if raw_counts else set()
    decoder = _decoder(graph) if decodes else set()
    comparison = _comparison(graph) if compares else set()
    bodies = {(function.domain, function.name): function for function in model.functions}
    islands = {}
    for node in graph.nodes:
        if not any(graph.dtype(name) == FLOAT for name in (*node.input, *node.output)) or is_op(node, "Constant"):
            continue
        reason = (
            _without_half_form(node, graph, bodies)
            or ("raw counts need more than FP16's 11 bits" if node.output[0] in behind_door else "")
            or ("decodes: pixels need more than FP16's 11 bits" if node.output[0] in decoder else "")
            or ("compares: a cosine needs more than FP16's 11 bits" if node.output[0] in comparison else "")
            or _sums_much(node, graph, tensors)
            or _leaves(node, graph)
            or (_measured(node, tensors) if tensors else "")
        )
        if reason:
            islands[node.output[0]] = Island(node.output[0], node.op_type, reason)
    return islands


def _without_half_form(node: NodeProto, graph: Graph, bodies: Mapping[tuple[str, str], onnx.FunctionProto]) -> str:
    if any(True for _ in subgraphs([node])):
        return "holds a subgraph"
    if node.domain == DOMAIN and node.op_type in CUSTOM_OPS:
        # Ours take FP16 maps; where a body needs FP32 inside, it casts for itself.
        return ""
    if node.domain not in STANDARD_DOMAINS:
        body = bodies.get((node.domain, node.op_type))
        if body is None:
            return f"'{node.op_type}' has no body to judge"
        return "" if _is_generic(body) else f"the body of '{node.op_type}' is written for FP32"
    if is_op(node, "Cast") and attribute(node, "to") == FLOAT:
        source = graph.dtype(node.input[0])
        exact = (TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL, TensorProto.FLOAT16)
        return "" if source in exact else "whole numbers beyond 2048 need FP32"
    if any(graph.dtype(name) == TensorProto.DOUBLE for name in (*node.input, *node.output)):
        return "touches FP64"
    if graph.dtype(node.output[0]) == FLOAT and not has_half_form(node, graph.opset):
        return f"{node.op_type} has no FP16 form"
    weights = [array for name in node.input if (array := graph.array(name)) is not None and array.dtype == np.float32]
    if any(array.size and not np.abs(array).max() <= HALF_MAX for array in weights):
        return "a constant beyond FP16's limit"
    return ""


def _is_generic(body: onnx.FunctionProto) -> bool:
    """A body without float constants and casts computes in whatever type comes in."""
    if any(True for _ in subgraphs(body.node)):
        return False
    for node in body.node:
        if node.domain not in STANDARD_DOMAINS or is_op(node, "Cast", "ConstantOfShape", "Range"):
            return False
        if is_op(node, "Constant"):
            (value,) = node.attribute
            if value.name in ("value_float", "value_floats") or value.t.data_type in (FLOAT, TensorProto.DOUBLE):
                return False
    return True


def _behind_float_door(graph: Graph) -> set[str]:
    """First outputs of all nodes between a float32 door and the first convolution or matrix product."""
    reached = set(graph.inputs)
    found = set()
    for node in graph.nodes:
        if reached.intersection(node.input) and not is_op(node, *_PRODUCTS):
            reached.update(node.output)
            found.add(node.output[0])
    return found


def last_products(graph: Graph) -> set[str]:
    """First outputs of the convolutions and products with constant weights that no other one follows."""
    leading = _leading_to_products(graph)
    return {n.output[0] for n in graph.nodes if _has_weights(n, graph) and n.output[0] not in leading}


def _decoder(graph: Graph) -> set[str]:
    """First outputs of all nodes behind the last convolutions and products with constant weights."""
    leading = _leading_to_products(graph)
    return {n.output[0] for n in graph.nodes if not _has_weights(n, graph) and leading.isdisjoint(n.output)}


def _comparison(graph: Graph) -> set[str]:
    """First outputs of all nodes that make no features: their L2 norm, and whatever nothing takes it of; but for the
    product with the table, whose unit vectors FP16 holds well, and which Turing could not multiply in FP32."""
    leading = {node.input[0] for node in graph.of_type("ReduceL2", "LpNormalization")}
    for node in reversed(graph.nodes):
        if not leading.isdisjoint(node.output):
            leading.update(node.input)
    return {n.output[0] for n in graph.nodes if leading.isdisjoint(n.output) and not _has_weights(n, graph)}


def _leading_to_products(graph: Graph) -> set[str]:
    """All tensors from which some path leads to a convolution or product with constant weights."""
    leading: set[str] = set()
    for node in reversed(graph.nodes):
        if _has_weights(node, graph) or not leading.isdisjoint(node.output):
            leading.update(_features(node, graph))
    return leading


def _features(node: NodeProto, graph: Graph) -> list[str]:
    """What a node reads, but for what only says where: the boxes that a map is pooled from, and choices between maps.
    What makes those decodes, though convolutions follow."""
    if node.domain == DOMAIN and node.op_type in CUSTOM_OPS:
        op = CUSTOM_OPS[node.op_type]
        return [name for name, role in zip(node.input, op.inputs, strict=True) if role not in op.wide_inputs]
    return [name for name in node.input if graph.dtype(name) != TensorProto.BOOL]


def _has_weights(node: NodeProto, graph: Graph) -> bool:
    return is_op(node, *_PRODUCTS) and any(graph.array(name) is not None for name in node.input[:2])


def _sums_much(node: NodeProto, graph: Graph, tensors: Mapping[str, TensorRange] | None) -> str:
    if is_op(node, *_NORMALIZERS):
        return f"{node.op_type} sums and divides"
    if not is_op(node, *_AVERAGES, *_SUMS):
        return ""
    size = _reduced_size(node, graph)
    if size is None:
        return "sums over the whole map"
    measured = tensors.get(node.input[0]) if tensors else None
    if measured and measured.mean_abs * size > HALF_MAX / MARGIN:
        return f"a sum of {size} values of mean {measured.mean_abs:.3g}"
    return f"a sum of {size} values" if size >= LARGE_SUM else ""


def _reduced_size(node: NodeProto, graph: Graph) -> int | None:
    """How many values each result sums up; None for sizes known at run time only, and for whole maps."""
    shape = graph.shape(node.input[0])
    if is_op(node, "AveragePool"):
        return math.prod(int(side) for side in attribute(node, "kernel_shape", [0]))
    if is_op(node, "GlobalAveragePool") or not shape:
        return None
    if is_op(node, "CumSum"):
        return max((side for side in shape if isinstance(side, int)), default=None)
    axes = graph.array(node.input[1]) if len(node.input) > 1 and node.input[1] else attribute(node, "axes")
    if axes is None:
        return None
    chosen = [shape[int(axis)] for axis in np.ravel(axes)]
    # A map's mean is taken over another number of pixels for each size of frame: kept whatever the size now.
    if len(shape) == 4 and len(chosen) > 1:
        return None
    known = [side for side in chosen if isinstance(side, int)]
    return math.prod(known) if len(known) == len(chosen) else None


def _leaves(node: NodeProto, graph: Graph) -> str:
    floats = [name for name in node.output if name in graph.outputs and graph.dtype(name) == FLOAT]
    return "writes an output, which is float32" if floats and is_op(node, *_POINTWISE_LAST) else ""


def _measured(node: NodeProto, tensors: Mapping[str, TensorRange]) -> str:
    for name in (*node.output, *node.input):
        found = tensors.get(name)
        if found is None:
            continue
        if found.absmax > HALF_MAX / MARGIN:
            return f"|{name}| reaches {found.absmax:.4g}; FP16 ends at {HALF_MAX:.0f}"
        if name in node.output and found.subnormal > SUBNORMAL_SHARE and found.absmax < SMALL:
            return f"{found.subnormal:.0%} of '{name}' is below FP16's normal values"
    return ""
