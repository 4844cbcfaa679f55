"""What TensorRT would refuse or serve wrongly, in words, before any compiler is asked.

onnx.checker, ONNX Runtime and NVIDIA's parser disagree about bad graphs: a scale of zero passes the first two, a NaN
weight all three. Each rule here was tried against them (research notes: parser behaviour by TensorRT version).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from irforge.errors import ArtifactError
from irforge.graph import STANDARD_DOMAINS, Graph, attribute, infer_types, is_op, topological_order

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class LintTarget:
    """A TensorRT release and a device. `sm` is the compute capability, as "8.7"; empty for any."""

    name: str
    tensorrt: tuple[int, int]
    sm: str = ""
    is_rtx: bool = False


JETPACK_6 = LintTarget("JetPack 6 (TensorRT 10.3, Orin)", (10, 3), "8.7")
TENSORRT_11 = LintTarget("TensorRT 11", (11, 0))


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `level` 'error': refused or wrong; 'warning': refused or wrong on some targets only."""

    level: Level
    rule: str
    where: str
    what: str
    mend: str


def lint(model: ModelProto, target: LintTarget | None = None) -> list[Finding]:
    """Check a loaded model.

    Args:
        target: where it will be built. None means anywhere: what only some releases or devices refuse is a warning.

    Returns:
        Findings, errors first; an empty list for a graph that should build and serve as it is.
    """
    try:
        graph = Graph(model)
        topological_order(graph.nodes)
        infer_types(model)
    except ArtifactError as error:
        return [Finding("error", "graph", model.graph.name or "the graph", error.what, "Export the model again")]
    context = _Context(graph, target)
    findings = [finding for rule in _RULES for finding in rule(context)]
    return sorted(findings, key=lambda finding: finding.level)


@dataclass(frozen=True)
class _Context:
    graph: Graph
    target: LintTarget | None

    def level_where(self, concerns: Callable[[LintTarget], bool]) -> Level | None:
        """For what only some targets refuse: an error on such a target, a warning if no target is given."""
        if self.target is None:
            return "warning"
        return "error" if concerns(self.target) else None


_Rule = Callable[[_Context], Iterator[Finding]]

_REFUSED = {
    "NonZero": "its output size depends on pixel values",
    "NonMaxSuppression": "its output size depends on pixel values",
    "RoiAlign": "it needs NVIDIA's plugin library",
    "DeformConv": "it needs NVIDIA's plugin library",
    "Unique": "its output size depends on pixel values",
    "Compress": "its output size depends on pixel values",
}
_DOORS = (
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.BOOL,
)
_LARGEST_WINDOW = 100_000
_LARGEST_TENSOR = 2**31 - 1
_LARGE_WINDOW = 1024
_QDQ = ("QuantizeLinear", "DequantizeLinear")
_PRODUCT = ("MatMul", "Gemm")


def _name(node: NodeProto) -> str:
    return f"{node.op_type} '{node.name or (node.output[0] if node.output else '?')}'"


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _versions(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    level = context.level_where(lambda target: target.tensorrt <= (10, 3))
    if level and graph.opset > 20:
        what = f"opset {graph.opset}; TensorRT 10.3 (JetPack 6) reads up to 20"
        yield Finding(level, "opset", "opset_import", what, "Export with --opset 20")
    if level and graph.model.ir_version > 10:
        what = f"IR version {graph.model.ir_version}; TensorRT 10.3 (JetPack 6) reads up to 10"
        yield Finding(level, "ir-version", "ir_version", what, "Save the model with ir_version 10")


def _operators(context: _Context) -> Iterator[Finding]:
    bodies = {(function.domain, function.name) for function in context.graph.model.functions}
    for node in context.graph.nodes:
        if is_op(node, *_REFUSED):
            mend = "Choose a fixed number of candidates with TopK, and leave selection to the host"
            yield Finding(
                "error", "operator", _name(node), f"TensorRT has no {node.op_type}: {_REFUSED[node.op_type]}", mend
            )
        elif node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in bodies:
            what = f"operator {node.domain}::{node.op_type} has no function body in the file"
            yield Finding(
                "error", "operator", _name(node), what, "Export it with its body, or without runtime-only fusions"
            )


def _doors(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    if not graph.inputs:
        yield Finding("error", "no-inputs", "the graph", "it has no input, so nothing can be fed", "Export it again")
    for side, names in (("input", graph.inputs), ("output", graph.outputs)):
        for name in names:
            kind = graph.dtype(name)
            if kind == TensorProto.INT64:
                if side == "output" and len(graph.shape(name) or ()) < 3:
                    continue  # class numbers of a list of boxes, not a map of labels
                what = f"{side} is int64, a type for shapes, with twice the bytes of int32"
                yield Finding("warning", "int64", name, what, "Cast it to int32 in the graph")
            elif kind not in _DOORS and kind != TensorProto.DOUBLE:
                what = f"{side} is {_type_name(kind)}, which TensorRT has no door for"
                mend = "Use uint8 levels, or float32 raw counts with the gain control in the graph"
                yield Finding("error", "door", name, what, mend)


def _types(context: _Context) -> Iterator[Finding]:
    for name, (kind, shape) in infer_types(context.graph.model).items():
        if kind == TensorProto.DOUBLE:
            what = "a double tensor; TensorRT computes in float instead"
            yield Finding("error", "double", name, what, "Cast to float32 before the export")
        elif kind == TensorProto.STRING:
            yield Finding(
                "error", "string", name, "a string tensor, which TensorRT refuses", "Remove it from the graph"
            )
        sides = [side for side in shape if isinstance(side, int)]
        is_constant = context.graph.array(name) is not None
        if any(side < 0 for side in sides) or (0 in sides and not is_constant) or math.prod(sides) > _LARGEST_TENSOR:
            what = f"shape {list(shape)}, which no tensor can have, though parsers take it"
            yield Finding("error", "shape", name, what, "Declare real sizes, or a symbol for a free side")


def _values(context: _Context) -> Iterator[Finding]:
    for name, array in context.graph.initializers.items():
        if array.dtype.kind in "fV" and not np.all(np.isfinite(array.astype(np.float32))):
            what = "weights with NaN or infinity, which every parser takes"
            yield Finding("error", "not-finite", name, what, "Take an earlier checkpoint, or keep this layer in FP32")


def _order(context: _Context) -> Iterator[Finding]:
    made = {*context.graph.inputs, *context.graph.initializers}
    makers = {name for node in context.graph.nodes for name in node.output}
    for node in context.graph.nodes:
        late = [name for name in node.input if name in makers and name not in made]
        if late:
            what = f"it stands before the node that makes '{late[0]}'"
            yield Finding("error", "order", _name(node), what, "Sort the nodes (irforge.graph.Graph(model).tidy())")
        made.update(node.output)


def _windows(context: _Context) -> Iterator[Finding]:
    for node in context.graph.of_type("MaxPool", "AveragePool", "LpPool"):
        window = math.prod(attribute(node, "kernel_shape"))
        if window > _LARGEST_WINDOW:
            what = f"a window of {window} elements; TensorRT takes at most {_LARGEST_WINDOW}"
            yield Finding("error", "window", _name(node), what, "Write global pooling as ReduceMax or ReduceMean")


def _convolutions(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    for node in graph.of_type("Conv"):
        data, weight = graph.shape(node.input[0]), graph.shape(node.input[1])
        if not data or not weight or not isinstance(data[1], int) or not isinstance(weight[1], int):
            continue
        expected = weight[1] * attribute(node, "group", 1)
        if data[1] != expected:
            what = (
                f"it gets {data[1]} channels, its weights are for {expected}; ONNX Runtime finds out only when it runs"
            )
            yield Finding("error", "channels", _name(node), what, "Export it again")


def _quantization(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    for node in graph.of_type(*_QDQ):
        where = _name(node)
        kind = graph.dtype(node.output[0] if node.op_type == "QuantizeLinear" else node.input[0])
        if kind == TensorProto.INT32:
            mend = "Leave biases unquantised (ONNX Runtime: QuantizeBias=False)"
            yield Finding("error", "int32-bias", where, "TensorRT does not dequantise int32", mend)
            continue
        if kind in (TensorProto.UINT8, TensorProto.UINT16, TensorProto.INT16):
            mend = "Quantise to int8 (irforge quantize)"
            yield Finding("error", "qdq-type", where, f"{_type_name(kind)} values; TensorRT takes int8", mend)
        scale = graph.array(node.input[1])
        if scale is not None and not (np.isfinite(scale.astype(np.float32)).all() and (scale > 0).all()):
            mend = "Calibrate again with frames that reach this tensor; a range of zero gives a scale of zero"
            yield Finding("error", "qdq-scale", where, "a scale that is zero, negative or not finite", mend)
        point = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if point is not None and np.any(point.astype(np.float32) != 0):
            mend = "Quantise symmetrically (irforge quantize; ONNX Runtime: ActivationSymmetric=True)"
            yield Finding("error", "qdq-zero-point", where, "a zero point other than 0; TensorRT is symmetric", mend)


def _mixed_precision(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    level = context.level_where(lambda target: target.sm == "8.7")
    for node in graph.of_type("QuantizeLinear") if level else []:
        data, scale = graph.dtype(node.input[0]), graph.dtype(node.input[1])
        readers = [reader for reader in graph.consumers(node.output[0]) if is_op(reader, "DequantizeLinear")]
        mixed = {graph.dtype(reader.input[1]) for reader in readers} | {scale}
        if level and data == TensorProto.FLOAT and TensorProto.FLOAT16 in mixed:
            what = (
                "an FP32 activation meets int8 Q/DQ with an FP16 scale: builds on Thor, fails on Orin (TensorRT#4832)"
            )
            yield Finding(
                level, "mixed-scale", _name(node), what, "Cast the activation to FP16 first, or use FP32 scales"
            )


def _shared_weights(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    users: dict[str, list[bool]] = {}
    for node in graph.of_type("Conv", "ConvTranspose"):
        root, maker = node.input[1], graph.producer(node.input[1])
        quantised = maker is not None and is_op(maker, *_QDQ)
        while maker is not None and is_op(maker, *_QDQ):
            root, maker = maker.input[0], graph.producer(maker.input[0])
        users.setdefault(root, []).append(quantised)
    for name, convolutions in users.items():
        if len(convolutions) > 1 and any(convolutions):
            what = (
                f"quantised and shared by {len(convolutions)} convolutions, which TensorRT fuses with only one of them"
            )
            yield Finding("error", "shared-weight", name, what, "Give each convolution its own copy")


def _products(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    level = context.level_where(lambda target: target.is_rtx and target.sm == "7.5")
    for node in graph.of_type(*_PRODUCT) if level else []:
        if level and graph.dtype(node.input[0]) == TensorProto.FLOAT:
            what = "an FP32 matrix product, which TensorRT-RTX cannot build for SM 7.5"
            yield Finding(
                level, "fp32-gemm", _name(node), what, "Write it as a 1x1 convolution, or build the FP16 model"
            )


def _dynamic_size(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    shapes = [graph.shape(name) or () for name in graph.inputs]
    if not any(len(shape) == 4 and not all(isinstance(side, int) for side in shape[2:]) for shape in shapes):
        return
    mend = "Export with a fixed --size, or compute the size from the input's shape"
    for node in graph.of_type("Resize"):
        if len(node.input) > 3 and graph.array(node.input[3]) is not None:
            yield Finding(
                "error", "fixed-size", _name(node), "it resizes to a fixed size in a graph of free size", mend
            )
    for node in graph.of_type("MaxPool", "AveragePool"):
        if math.prod(attribute(node, "kernel_shape")) >= _LARGE_WINDOW:
            what = "its window is as large as the map was at export, and the size is free"
            yield Finding("error", "fixed-size", _name(node), what, mend)
    for node in graph.of_type("Reshape"):
        shape = graph.array(node.input[1])
        if shape is not None and shape.size > 2 and np.all(shape > 0) and graph.array(node.input[0]) is None:
            yield Finding(
                "error", "fixed-size", _name(node), "it reshapes to fixed sides in a graph of free size", mend
            )


def _functions(context: _Context) -> Iterator[Finding]:
    graph = context.graph
    outer = {*graph.inputs, *graph.initializers, *(name for node in graph.nodes for name in node.output)}
    seen: dict[str, str] = {}
    for function in graph.model.functions:
        where = f"function {function.domain}::{function.name}"
        inner = {*function.input, *(name for node in function.node for name in node.output)}
        if clash := sorted(inner & outer):
            what = (
                f"its inner name '{clash[0]}' is also a tensor of the graph, which NVIDIA's parser would take instead"
            )
            yield Finding("error", "function-names", where, what, "Prefix the names inside the body")
        if seen.setdefault(function.name, function.domain) != function.domain:
            what = "another domain has a function of the same name; NVIDIA's parser goes by the name alone"
            yield Finding("error", "function-names", where, what, "Rename one of them")


_RULES: tuple[_Rule, ...] = (
    _order,
    _versions,
    _operators,
    _doors,
    _types,
    _values,
    _windows,
    _convolutions,
    _quantization,
    _mixed_precision,
    _shared_weights,
    _products,
    _dynamic_size,
    _functions,
)
