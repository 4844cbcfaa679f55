"""FP32 graph -> FP16 graph with FP32 islands. The door and the outputs keep their types, as the contract says.

Works from operator schemas: an input goes to FP16 where the operator's type constraint allows it, so that the scales of
a Resize or the limits of a Range stay what they are.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from irforge.graph import Graph, attribute, is_op, set_attribute
from irforge.ops import CUSTOM_OPS, DOMAIN, VERSION

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
HALF_MAX = float(np.finfo(np.float16).max)
HALF_NORMAL = float(np.finfo(np.float16).smallest_normal)

Schema = onnx.defs.OpSchema


@dataclass(frozen=True)
class CastCount:
    """What a cast did: nodes now in FP16, nodes left in FP32, casts inserted between the two."""

    half: int
    kept: int
    casts: int


def cast_to_half(model: onnx.ModelProto, keep: Collection[str]) -> CastCount:
    """Cast a model's main graph to FP16, in place.

    Args:
        model: types must be inferable; topologically sorted or not.
        keep: names of first outputs of the nodes that stay in FP32.

    Returns:
        The count of nodes and casts. The graph is sorted and holds nothing unused.
    """
    graph = Graph(model)
    _constants_to_initializers(graph)
    caster = _Caster(graph, keep)
    for node in graph.nodes:
        caster.visit(node)
    caster.restore_outputs()
    del model.graph.value_info[:]
    graph.touch()
    graph.tidy()
    return caster.count


class _Caster:
    def __init__(self, graph: Graph, keep: Collection[str]) -> None:
        self.graph, self.keep = graph, keep
        self.types = {name: graph.dtype(name) for node in graph.nodes for name in (*node.input, *node.output)}
        self.arrays = graph.initializers
        self.now_half: set[str] = set()
        self.twins: dict[tuple[str, int], str] = {}
        self.halves = self.kept = self.casts = 0

    @property
    def count(self) -> CastCount:
        return CastCount(self.halves, self.kept, self.casts)

    def visit(self, node: NodeProto) -> None:
        reads_or_writes_float = any(self.types.get(name) == FLOAT for name in (*node.input, *node.output))
        half = reads_or_writes_float and node.output[0] not in self.keep
        schema = _schema(node, self.graph.opset) if half else None
        for place, name in enumerate(node.input):
            if self.types.get(name) == FLOAT:
                wanted = HALF if half and _allows_half(schema, place, "inputs") else FLOAT
                node.input[place] = self.as_type(name, wanted)
        if half:
            _retype(node)
            self.now_half.update(
                name
                for place, name in enumerate(node.output)
                if self.types.get(name) == FLOAT and _allows_half(schema, place, "outputs")
            )
        self.halves += half
        self.kept += reads_or_writes_float and not half

    def as_type(self, name: str, wanted: int) -> str:
        """`name`, or its twin of the wanted type: a converted weight, or a cast that all readers share."""
        if wanted == (HALF if name in self.now_half else FLOAT):
            return name
        if (name, wanted) not in self.twins:
            if name in self.arrays:
                self.twins[name, wanted] = self.graph.add_array(self.arrays[name].astype(np.float16), f"{name}_half")
            else:
                suffix = "half" if wanted == HALF else "float"
                self.twins[name, wanted] = self.graph.add("Cast", [name], f"{name}_{suffix}", to=wanted)
                self.casts += 1
        return self.twins[name, wanted]

    def restore_outputs(self) -> None:
        for name in self.graph.outputs:
            if name in self.now_half:
                twin = self.as_type(name, FLOAT)
                # The cast took a name of its own; the output's readers inside the graph go on reading FP16.
                inner = self.graph.fresh(f"{name}_half")
                for node in self.graph.nodes:
                    for names in (node.input, node.output):
                        for place, other in enumerate(names):
                            if other == name:
                                names[place] = inner
                            elif other == twin:
                                names[place] = name
                self.graph.touch()


def _constants_to_initializers(graph: Graph) -> None:
    for node in graph.of_type("Constant"):
        array = graph.array(node.output[0])
        if array is not None:
            name = node.output[0]
            graph.remove(node)
            graph.model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
            graph.touch()


def _retype(node: NodeProto) -> None:
    """Attributes that name a type follow the node into FP16."""
    if is_op(node, "Cast") and attribute(node, "to") == FLOAT:
        set_attribute(node, "to", HALF)
    elif is_op(node, "ConstantOfShape"):
        value = attribute(node, "value")
        array = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
        if array.dtype == np.float32:
            set_attribute(node, "value", numpy_helper.from_array(array.astype(np.float16)))
    elif attribute(node, "dtype") == FLOAT:
        set_attribute(node, "dtype", HALF)


def has_half_form(node: NodeProto, opset: int) -> bool:
    """Whether a standard operator can compute in FP16: its first output's type may be FP16."""
    return not node.domain and _allows_half(_schema(node, opset), 0, "outputs")


def _schema(node: NodeProto, opset: int) -> Schema | None:
    """None for an operator of the file's own."""
    if node.domain == DOMAIN and node.op_type in CUSTOM_OPS:
        return onnx.defs.get_schema(node.op_type, VERSION, node.domain)
    return None if node.domain else onnx.defs.get_schema(node.op_type, opset, node.domain)


def _allows_half(schema: Schema | None, place: int, side: str) -> bool:
    # Operators of a file's own have generic bodies when they are cast at all.
    if schema is None:
        return True
    parameters = getattr(schema, side)
    parameter = parameters[min(place, len(parameters) - 1)]
    return "tensor(float16)" in parameter.types
