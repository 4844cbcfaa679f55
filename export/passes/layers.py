"""What the passes over convolutions share: a convolution with its parameters, and nodes made from several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from irforge.graph import Array, Graph, attribute, is_op


@dataclass(frozen=True)
class Layer:
    """A 2-D convolution whose parameters are known: weight K x C/groups x kernel, bias K (zeros where it has none)."""

    node: NodeProto
    weight: Array
    bias: Array

    @property
    def groups(self) -> int:
        return int(attribute(self.node, "group", 1))

    @property
    def is_pointwise(self) -> bool:
        """Whether every pixel is a product with one matrix."""
        plain = not any(attribute(self.node, "pads", [])) and pair(self.node, "strides") == [1, 1]
        return self.weight.shape[2:] == (1, 1) and self.groups == 1 and plain

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is filtered by itself."""
        return bool(self.groups == self.weight.shape[0] and self.weight.shape[1] == 1)

    @property
    def keeps_size(self) -> bool:
        """Whether its result has the sides of what it reads."""
        window = [
            1 + (side - 1) * gap for side, gap in zip(self.weight.shape[2:], pair(self.node, "dilations"), strict=True)
        ]
        pads = attribute(self.node, "pads", [0] * 4)
        same = all(pads[axis] + pads[axis + 2] == side - 1 for axis, side in enumerate(window))
        return same and pair(self.node, "strides") == [1, 1]


def layer_of(graph: Graph, node: NodeProto | None) -> Layer | None:
    """A node as a layer; None if it is no 2-D convolution, or its parameters are computed."""
    if node is None or not is_op(node, "Conv") or attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    weight = graph.array(node.input[1])
    if weight is None or weight.ndim != 4:
        return None
    if len(node.input) < 3 or not node.input[2]:
        return Layer(node, weight, np.zeros(weight.shape[0], weight.dtype))
    bias = graph.array(node.input[2])
    return None if bias is None else Layer(node, weight, bias)


def pair(node: NodeProto, name: str) -> list[int]:
    """An attribute of a 2-D convolution or pool that is 1, 1 unless it says otherwise."""
    return list(attribute(node, name, [1, 1]))


def settings(conv: NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {entry.name: attribute(conv, entry.name) for entry in conv.attribute}


def block_diagonal(weights: Sequence[Array]) -> Array:
    """1x1 kernels K x C x 1 x 1 on the diagonal of one that is zero elsewhere."""
    rows, columns = (np.cumsum([0, *(weight.shape[axis] for weight in weights)]) for axis in (0, 1))
    whole = np.zeros((rows[-1], columns[-1], 1, 1), weights[0].dtype)
    for place, weight in enumerate(weights):
        whole[rows[place] : rows[place + 1], columns[place] : columns[place + 1]] = weight
    return whole


def add_layer(graph: Graph, source: str, weight: Array, bias: Array, names: Sequence[str], **attributes: Any) -> str:
    """Append a convolution that stands for several; its parameters are named after theirs, which rules may go by."""
    name = "+".join(dict.fromkeys(names))
    inputs = [source, graph.add_array(weight, name)]
    if bias.any():
        inputs.append(graph.add_array(bias, f"{name}.bias"))
    return graph.add("Conv", inputs, **({"kernel_shape": list(weight.shape[2:])} | attributes))


def split_channels(graph: Graph, name: str, widths: Sequence[int]) -> list[str]:
    """Append a Split along the channels; returns the names of its outputs."""
    parts = [graph.fresh(f"{name}_part") for _ in widths]
    inputs = [name, integers(graph, widths)]
    graph.extend([helper.make_node("Split", inputs, parts, name=graph.fresh(f"{name}_split"), axis=1)])
    return parts


def integers(graph: Graph, values: Sequence[int]) -> str:
    """Add an int64 vector; returns its name."""
    return graph.add_array(np.array(values, np.int64), "sizes")


def repeat_factor(graph: Graph, resize: NodeProto) -> int:
    """The factor of a Resize that repeats every pixel of a map as often in both directions; 0 if it is no such node."""
    scales = graph.array(resize.input[2]) if is_op(resize, "Resize") and len(resize.input) == 3 else None
    if scales is None or scales.size != 4 or attribute(resize, "mode", b"nearest") != b"nearest":
        return 0
    form = (attribute(resize, "coordinate_transformation_mode"), attribute(resize, "nearest_mode"))
    factor = int(scales[2])
    return factor if form == (b"asymmetric", b"floor") and scales.tolist() == [1, 1, factor, factor] else 0


def block_window(pool: NodeProto) -> int:
    """The side of the square blocks that an AveragePool averages, each pixel in one block; 0 if it is no such pool."""
    if not is_op(pool, "AveragePool") or attribute(pool, "ceil_mode", 0) or any(attribute(pool, "pads", [])):
        return 0
    window = list(attribute(pool, "kernel_shape"))
    blocks = len(window) == 2 and window[0] == window[1] and window == pair(pool, "strides")
    plain = attribute(pool, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and pair(pool, "dilations") == [1, 1]
    return int(window[0]) if blocks and plain else 0
