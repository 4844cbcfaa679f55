"""An ONNX graph that can be asked and edited: who makes a tensor, who reads it, its value, shape and type.

Edits go straight into the ModelProto; `tidy` drops what nothing reads and restores topological order afterwards.
Nodes inside functions and subgraphs are left alone, but what they read counts as read.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from irforge.artifact import subgraphs
from irforge.errors import ArtifactError

Array = npt.NDArray[Any]
Shape = tuple[int | str | None, ...]

STANDARD_DOMAINS = ("", "ai.onnx")
_WEIGHTED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu", "LSTM", "GRU"),
    *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
)
_PASSES_ON = ("QuantizeLinear", "DequantizeLinear", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")
# Weights larger than this play no part in shape inference; leaving them out makes it quick.
_SMALL_WEIGHT = 1024


class Graph:
    """A view on a model's main graph.

    Args:
        model: edited in place.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self._index: tuple[dict[str, NodeProto], dict[str, list[NodeProto]]] | None = None
        self._types: dict[str, tuple[int, Shape]] | None = None
        self._arrays = {tensor.name: tensor for tensor in model.graph.initializer}
        self._taken = set(self._arrays) | {value.name for value in model.graph.input}
        self._counters: dict[str, int] = {}
        for node in model.graph.node:
            self._taken.update((node.name, *node.output))

    # ---- asking

    @property
    def nodes(self) -> list[NodeProto]:
        """The nodes, in the order of the file."""
        return list(self.model.graph.node)

    @property
    def inputs(self) -> list[str]:
        """Names of the graph's inputs that are no initializers."""
        return [value.name for value in self.model.graph.input if value.name not in self._arrays]

    @property
    def outputs(self) -> list[str]:
        return [value.name for value in self.model.graph.output]

    @property
    def opset(self) -> int:
        """Version of the standard operator set."""
        return next((entry.version for entry in self.model.opset_import if entry.domain in STANDARD_DOMAINS), 0)

    def of_type(self, *kinds: str) -> list[NodeProto]:
        """All nodes of the given standard operators."""
        return [node for node in self.model.graph.node if is_op(node, *kinds)]

    def producer(self, name: str) -> NodeProto | None:
        """The node that makes a tensor; None for inputs and initializers."""
        return self._indices()[0].get(name)

    def consumers(self, name: str) -> list[NodeProto]:
        """The nodes that read a tensor, once each; a node whose subgraph reads it counts."""
        return list(self._indices()[1].get(name, ()))

    def sole_consumer(self, name: str) -> NodeProto | None:
        """The one node that reads a tensor, or None if there are several, none, or the tensor is an output too."""
        readers = self._indices()[1].get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def array(self, name: str) -> Array | None:
        """The value of an initializer or Constant node; None if the tensor is computed."""
        if name in self._arrays:
            return numpy_helper.to_array(self._arrays[name])
        maker = self.producer(name)
        if maker is None or not is_op(maker, "Constant"):
            return None
        (attribute,) = maker.attribute
        value = helper.get_attribute_value(attribute)
        if attribute.type == AttributeProto.TENSOR:
            return numpy_helper.to_array(value)
        dtype = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
        return np.asarray(value, dtype[attribute.name]) if attribute.name in dtype else None

    @property
    def initializers(self) -> dict[str, Array]:
        """All initializers as arrays."""
        return {name: numpy_helper.to_array(tensor) for name, tensor in self._arrays.items()}

    def shape(self, name: str) -> Shape | None:
        """Inferred shape: numbers, symbols, or None for an unknown side; None if nothing is known."""
        return self._inferred().get(name, (0, None))[1]

    def dtype(self, name: str) -> int:
        """Inferred element type as TensorProto.DataType; 0 if unknown."""
        return self._inferred().get(name, (0, None))[0]

    # ---- editing

    def fresh(self, hint: str) -> str:
        """A name that nothing in the graph has, made from `hint`."""
        name = hint
        while not name or name in self._taken:
            self._counters[hint] = self._counters.get(hint, 0) + 1
            name = f"{hint}_{self._counters[hint]}"
        self._taken.add(name)
        return name

    def add_array(self, array: Array, hint: str) -> str:
        """Add an initializer; returns its name."""
        name = self.fresh(hint)
        self._arrays[name] = self.model.graph.initializer.add()
        self._arrays[name].CopyFrom(numpy_helper.from_array(np.asarray(array, order="C"), name))
        self._forget()
        return name

    def add(self, kind: str, inputs: Sequence[str], hint: str = "", *, domain: str = "", **attributes: Any) -> str:
        """Append a node with one output; returns the output's name, which is also the node's."""
        name = self.fresh(hint or kind.lower())
        node = helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes)
        self.model.graph.node.append(node)
        self._forget()
        return name

    def extend(self, nodes: Iterable[NodeProto]) -> None:
        self.model.graph.node.extend(nodes)
        self._forget()

    def remove(self, *nodes: NodeProto) -> None:
        """Remove nodes; their outputs must have been rerouted."""
        gone = {tuple(node.output) for node in nodes}
        self._drop_nodes([place for place, node in enumerate(self.model.graph.node) if tuple(node.output) in gone])

    def reroute(self, old: str, new: str) -> None:
        """Let everything that reads `old` read `new`. A graph output keeps its name: `new`'s maker takes it over.

        Raises:
            ArtifactError: `old` is an output and `new` is one too, or is no node's result.
        """
        if old in self.outputs:
            maker = self.producer(new)
            if maker is None or new in self.outputs:
                raise ArtifactError(f"output '{old}' cannot be taken over by '{new}'")
            former = self.producer(old)
            if former is not None:
                former.output[list(former.output).index(old)] = self.fresh(f"{old}_before")
            maker.output[list(maker.output).index(new)] = old
            self._rename_reads(new, old)
        else:
            self._rename_reads(old, new)
        self._forget()

    def replace(self, node: NodeProto, name: str) -> None:
        """Put an existing tensor in the place of a node's only output, and remove the node."""
        (old,) = node.output
        self.reroute(old, name)
        self.remove(node)

    def touch(self) -> None:
        """To be called after nodes were edited directly."""
        self._arrays = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._forget()

    def tidy(self) -> None:
        """Sort the nodes; drop nodes, initializers and shape notes that no output needs. Held nodes stay valid."""
        graph = self.model.graph
        rank = {tuple(node.output): place for place, node in enumerate(topological_order(self.nodes))}
        graph.node.sort(key=lambda node: rank[tuple(node.output)])
        needed = set(self.outputs)
        dead = []
        for place, node in reversed(list(enumerate(graph.node))):
            if needed.intersection(node.output):
                needed.update(reads(node))
            else:
                dead.append(place)
        self._drop_nodes(dead[::-1])
        for parts in (graph.initializer, graph.value_info):
            for place in reversed([place for place, part in enumerate(parts) if part.name not in needed]):
                del parts[place]
        self.touch()

    # ---- inside

    def _forget(self) -> None:
        self._index = None
        self._types = None

    def _drop_nodes(self, places: Sequence[int]) -> None:
        # Deleting in place keeps the node objects that a caller holds; refilling the list would detach them.
        for place in reversed(places):
            del self.model.graph.node[place]
        self._forget()

    def _rename_reads(self, old: str, new: str) -> None:
        for node in self.consumers(old):
            for body in [node, *(inner for graph in subgraphs([node]) for inner in graph.node)]:
                for position, name in enumerate(body.input):
                    if name == old:
                        body.input[position] = new

    def _indices(self) -> tuple[dict[str, NodeProto], dict[str, list[NodeProto]]]:
        if self._index is None:
            makers: dict[str, NodeProto] = {}
            readers: dict[str, list[NodeProto]] = {}
            for node in self.model.graph.node:
                makers.update((name, node) for name in node.output if name)
                for name in reads(node):
                    readers.setdefault(name, []).append(node)
            self._index = makers, readers
        return self._index

    def _inferred(self) -> dict[str, tuple[int, Shape]]:
        if self._types is None:
            self._types = infer_types(self.model)
        return self._types


def is_op(node: NodeProto, *kinds: str) -> bool:
    """Whether a node is one of the given standard operators."""
    return node.domain in STANDARD_DOMAINS and node.op_type in kinds


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute, or the default."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    kept = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def reads(node: NodeProto) -> list[str]:
    """Names a node reads, once each: its inputs, and what its subgraphs take from outside."""
    names = dict.fromkeys(name for name in node.input if name)
    for graph in subgraphs([node]):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own.update(name for inner in graph.node for name in inner.output)
        names.update(dict.fromkeys(name for inner in graph.node for name in inner.input if name and name not in own))
    return list(names)


def topological_order(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes, each after those it reads from, otherwise in the given order.

    Raises:
        ArtifactError: the graph has a cycle.
    """
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    waits = [{makers[name] for name in reads(node) if name in makers} for node in nodes]
    followers: dict[int, list[int]] = {}
    for place, before in enumerate(waits):
        for maker in before:
            followers.setdefault(maker, []).append(place)
    ready = [place for place, before in enumerate(waits) if not before]
    order: list[NodeProto] = []
    while ready:
        place = heapq.heappop(ready)
        order.append(nodes[place])
        for follower in followers.get(place, ()):
            waits[follower].discard(place)
            if not waits[follower]:
                heapq.heappush(ready, follower)
    if len(order) < len(nodes):
        stuck = next(node for node, before in zip(nodes, waits, strict=True) if before)
        raise ArtifactError(f"the graph has a cycle through node '{stuck.name or stuck.output[0]}'")
    return order


def infer_types(model: ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, tuple[int, Shape]]:
    """Element type and shape of every tensor of the main graph, by ONNX shape inference.

    Args:
        model: not changed.
        shapes: sizes for graph inputs with free sides; everything behind them is inferred anew.

    Raises:
        ArtifactError: the shapes contradict each other.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
    order = topological_order(bare.graph.node)
    if any(now.output != then.output for now, then in zip(order, bare.graph.node, strict=True)):
        rank = {tuple(node.output): place for place, node in enumerate(order)}
        bare.graph.node.sort(key=lambda node: rank[tuple(node.output)])
    for tensor in bare.graph.initializer:
        if len(tensor.raw_data) > _SMALL_WEIGHT:
            tensor.ClearField("raw_data")
    if shapes:
        del bare.graph.value_info[:]
        for value in bare.graph.input:
            if value.name in shapes:
                kind = value.type.tensor_type.elem_type
                value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
        for value in bare.graph.output:
            value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=bool(shapes), data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ArtifactError(f"shapes do not fit: {str(error).strip().splitlines()[0]}") from None
    graph = inferred.graph
    found = {value.name: _type(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    found.update((tensor.name, (tensor.data_type, tuple(tensor.dims))) for tensor in graph.initializer)
    return found


def _type(value: ValueInfoProto) -> tuple[int, Shape]:
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(_side(side) for side in tensor.shape.dim)


def _side(side: onnx.TensorShapeProto.Dimension) -> int | str | None:
    # Shape inference invents names such as unk__3 for sides it cannot relate to any other.
    if side.HasField("dim_param") and not side.dim_param.startswith("unk__"):
        return side.dim_param or None
    return side.dim_value if side.HasField("dim_value") else None


def macs(model: ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, int]:
    """Multiply-accumulates of each Conv, ConvTranspose, Gemm and MatMul of the main graph, by its output's name.

    Args:
        shapes: sizes of inputs with free sides, as {"frames": (1, 1, 256, 256)}.

    Raises:
        ArtifactError: a shape stays unknown; give sizes.
    """
    types = infer_types(model, shapes)
    count: dict[str, int] = {}
    for node in model.graph.node:
        if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        data, weight, out = (types.get(name, (0, ()))[1] for name in (*node.input[:2], node.output[0]))
        # A transposed convolution spends a kernel on each input element, the others a reduction on each output element.
        if node.op_type == "ConvTranspose":
            sides = (*data, *weight[1:])
        elif node.op_type == "Conv":
            sides = (*out, *weight[1:])
        else:
            transposed = node.op_type == "Gemm" and attribute(node, "transA", 0)
            sides = (*out, data[0] if transposed else data[-1])
        known = [side for side in sides if isinstance(side, int)]
        if len(known) < len(sides) or not out:
            raise ArtifactError(f"the size of '{node.output[0]}' is not known; give the size of the inputs")
        count[node.output[0]] = math.prod(known)
    return count


def parameter_count(model: ModelProto) -> int:
    """Number of values in the floating-point and int8 initializers that layers, norms and custom operators read as
    weights, through quantisers and changes of shape too, or that are added or multiplied channel by channel.

    Tables of a decode, such as grids and the order of candidates, are none.
    """
    graph = Graph(model)
    counted = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8)
    total = 0
    for tensor in model.graph.initializer:
        by_channel = sum(side > 1 for side in tensor.dims) == 1
        if tensor.data_type in counted and _is_weight(graph, tensor.name, by_channel):
            total += math.prod(tensor.dims)
    return total


def _is_weight(graph: Graph, name: str, by_channel: bool) -> bool:
    for node in graph.consumers(name):
        if node.domain not in STANDARD_DOMAINS or node.op_type in _WEIGHTED:
            if name in node.input[1:] or node.op_type == "MatMul":
                return True
        elif node.op_type in _PASSES_ON:
            if name == node.input[0] and _is_weight(graph, node.output[0], by_channel):
                return True
        elif by_channel and node.op_type in ("Add", "Sub", "Mul", "Div"):
            return True
    return False
