"""Gates and pools of networks that keep several scales side by side: less work, in fewer and larger pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from irforge.export.passes.layers import (
    Layer,
    add_layer,
    block_diagonal,
    block_window,
    integers,
    layer_of,
    repeat_factor,
    split_channels,
)
from irforge.graph import Graph, attribute, is_op


@dataclass(frozen=True)
class _ChannelGate:
    """sigmoid(outer relu(inner mean(y))) of a map `scale` times as large as the coarsest of its family."""

    source: str
    scale: int
    inner: Layer
    outer: Layer
    gate: NodeProto


def merge_channel_gates(graph: Graph) -> int:
    """Compute the channel gates of one step on all scales together.

    The family: parts of one Split, each enlarged to its scale and multiplied into a map, a convolution behind it, and a
    gate made from the mean of that by two layers. Every map is averaged down to the coarsest scale (the mean of equal
    blocks' means is the mean), and all of them go through one mean and two block-diagonal layers. On maps of 1x1 their
    zeros cost nothing that shows; a kernel for each layer of each gate does.

    Returns:
        Number of gates that were merged.
    """
    merged = 0
    for split in graph.of_type("Split"):
        family = [gate for part in split.output for gate in _channel_gates(graph, part)]
        # A gate of one pixel would say nothing about the size of its map.
        if attribute(split, "axis", 0) != 1 or len(family) < 2 or 1 in (graph.shape(split.input[0]) or ())[2:]:
            continue
        pooled = [gate.source if gate.scale == 1 else average_pool(graph, gate.source, gate.scale) for gate in family]
        mean = graph.add("ReduceMean", [graph.add("Concat", pooled, axis=1), integers(graph, [2, 3])], keepdims=1)
        hidden = _together(graph, mean, [gate.inner for gate in family])
        gates = _together(graph, graph.add("Relu", [hidden]), [gate.outer for gate in family])
        widths = [gate.outer.weight.shape[0] for gate in family]
        parts = split_channels(graph, graph.add("Sigmoid", [gates]), widths)
        for gate, part in zip(family, parts, strict=True):
            graph.replace(gate.gate, part)
        merged += len(family)
    return merged


def _channel_gates(graph: Graph, part: str) -> Iterator[_ChannelGate]:
    """The gate behind a part of a split: enlarged, multiplied, convolved, averaged, two layers, sigmoid."""
    reader = graph.sole_consumer(part)
    scale = repeat_factor(graph, reader) if reader is not None else 0
    if reader is not None and scale:
        reader = graph.sole_consumer(reader.output[0])
    conv = graph.sole_consumer(reader.output[0]) if reader is not None and is_op(reader, "Mul") else None
    filtered = layer_of(graph, conv)
    if filtered is None or not filtered.keeps_size:
        return
    source = filtered.node.output[0]
    means = [node for node in graph.consumers(source) if _is_global_mean(graph, node)]
    inner = layer_of(graph, graph.sole_consumer(means[0].output[0])) if len(means) == 1 else None
    active = graph.sole_consumer(inner.node.output[0]) if inner is not None else None
    outer = layer_of(graph, graph.sole_consumer(active.output[0])) if active is not None else None
    gate = graph.sole_consumer(outer.node.output[0]) if outer is not None else None
    if inner is None or active is None or outer is None or gate is None:
        return
    if is_op(active, "Relu") and is_op(gate, "Sigmoid") and inner.is_pointwise and outer.is_pointwise:
        yield _ChannelGate(source, max(scale, 1), inner, outer, gate)


def _together(graph: Graph, source: str, layers: Sequence[Layer]) -> str:
    weight = block_diagonal([layer.weight for layer in layers])
    bias = np.concatenate([layer.bias for layer in layers])
    return add_layer(graph, source, weight, bias, [layer.node.input[1] for layer in layers])


def _is_global_mean(graph: Graph, node: NodeProto) -> bool:
    axes = graph.array(node.input[1]) if is_op(node, "ReduceMean") and len(node.input) > 1 else None
    return axes is not None and axes.tolist() in ([2, 3], [-2, -1]) and attribute(node, "keepdims", 1) == 1


def average_pool(graph: Graph, name: str, window: int) -> str:
    """The tensor averaged over blocks of window x window pixels; an equal pool that is there already is taken."""
    for reader in graph.consumers(name):
        if block_window(reader) == window:
            return str(reader.output[0])
    sides = [window, window]
    return graph.add("AveragePool", [name], f"{name}_pool{window}", kernel_shape=sides, strides=sides)


def pool_before_moves(graph: Graph) -> int:
    """Average a map before its channels are split, interleaved or scaled, in place of afterwards.

    Pooling treats every channel alike, so the order does not matter: pools then read maps that are in memory anyway,
    several of them become one, and no part of a map is written for its pool alone.

    Returns:
        Number of pools moved.
    """
    moves = _Moves(graph)
    moved = 0
    for pool in graph.of_type("AveragePool"):
        window = block_window(pool)
        if window and moves.made(pool.input[0]):
            graph.replace(pool, moves.pooled(pool.input[0], window))
            moved += 1
    return moved


class _Moves:
    """The tensors of a graph that hold channels of other maps, in another order or scaled."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.splits = {
            part: node for node in graph.of_type("Split") if attribute(node, "axis", 0) == 1 for part in node.output
        }
        self.interleaved = {
            node.output[0]: halves for node in graph.of_type("Reshape") if (halves := interleaved_halves(graph, node))
        }
        self.scaled = {node.output[0]: pair for node in graph.of_type("Mul") if (pair := _map_and_scale(graph, node))}
        self.widths = {name: channels_of(graph, name) for pair in self.interleaved.values() for name in pair}

    def made(self, name: str) -> bool:
        return name in self.splits or name in self.interleaved or name in self.scaled

    def pooled(self, name: str, window: int) -> str:
        """A tensor averaged over blocks of window x window pixels, the averages taken before all moves."""
        graph = self.graph
        if name in self.splits:
            split = self.splits[name]
            parts = self._split_again(split, self.pooled(split.input[0], window))
            return parts[list(split.output).index(name)]
        if name in self.interleaved:
            halves = [self.pooled(half, window) for half in self.interleaved[name]]
            width = self.widths[self.interleaved[name][0]]
            order = np.arange(2 * width).reshape(2, width).T.ravel()
            whole = graph.add("Concat", halves, axis=1)
            return graph.add("Gather", [whole, graph.add_array(order, "order")], axis=1)
        if name in self.scaled:
            source, scale = self.scaled[name]
            return graph.add("Mul", [self.pooled(source, window), scale])
        return average_pool(graph, name, window)

    def _split_again(self, split: NodeProto, source: str) -> list[str]:
        # A Gather of the wanted channels would be shorter, but keeps TensorRT-RTX from fusing (323 kernels, not 295).
        for reader in self.graph.consumers(source):
            if is_op(reader, "Split") and reader.input[1:] == split.input[1:]:
                return list(reader.output)
        copy = NodeProto()
        copy.CopyFrom(split)
        copy.input[0] = source
        copy.output[:] = [self.graph.fresh(f"{part}_pooled") for part in split.output]
        copy.name = self.graph.fresh(f"{split.name}_pooled")
        self.graph.extend([copy])
        return list(copy.output)


def interleaved_halves(graph: Graph, reshape: NodeProto) -> tuple[str, str] | None:
    """(a, b) if a Reshape's result holds the channels of two maps in turn: a0, b0, a1, b1, ..."""
    stack = graph.producer(reshape.input[0])
    if stack is None or not is_op(stack, "Concat") or len(stack.input) != 2 or attribute(stack, "axis") != 2:
        return None
    halves = []
    for name in stack.input:
        maker = graph.producer(name)
        axes = graph.array(maker.input[1]) if maker is not None and is_op(maker, "Unsqueeze") else None
        if maker is None or axes is None or axes.tolist() != [2]:
            return None
        halves.append(maker.input[0])
    before, after = graph.shape(halves[0]) or (), graph.shape(reshape.output[0]) or ()
    channels = channels_of(graph, halves[0])
    fits = len(before) == len(after) == 4 and before[2:] == after[2:] and channels > 0
    return (halves[0], halves[1]) if fits and after[1] == 2 * channels else None


def channels_of(graph: Graph, name: str) -> int:
    """The known number of a tensor's channels; 0 where it is not known."""
    match graph.shape(name):
        case (_, int(channels), *_):
            return channels
    return 0


def _map_and_scale(graph: Graph, product: NodeProto) -> tuple[str, str] | None:
    """(map, scale) of a Mul of a map by one value a channel of each image."""
    for source, scale in (product.input, product.input[::-1]):
        sides, ones = graph.shape(source) or (), graph.shape(scale) or ()
        if len(sides) == len(ones) == 4 and ones[2:] == (1, 1) and sides[2:] != (1, 1) and sides[1] == ones[1]:
            return source, scale
    return None
