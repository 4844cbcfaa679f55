"""Convolutions that read the same map, or whose results are added up, as one: fewer kernels, and each map read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from irforge.export.passes.layers import (
    Layer,
    add_layer,
    block_diagonal,
    layer_of,
    repeat_factor,
    settings,
    split_channels,
)
from irforge.graph import Array, Graph, is_op

_ACTIVATIONS = ("Relu", "Mish", "Sigmoid", "Tanh")
# FP16 convolutions take channels by so many.
_GRANULE = 8


def merge_parallel_convolutions(graph: Graph) -> int:
    """Run convolutions of one map, alike in kernel and stride, as one, and split its result.

    If all of them go through the same activation into a 1x1 convolution each, these become one block-diagonal 1x1
    convolution, and only its result is split: dense heads read their features once. Else only where all results are
    merely enlarged: anything but arithmetic that reads a part of a map gets a copy of it first.

    Returns:
        Number of convolutions that went.
    """
    merged = 0
    for family in _families(graph):
        tails = [_tail(graph, layer) for layer in family]
        behind = [layer for _, layer in tails if layer is not None]
        if len({kind for kind, _ in tails}) == 1 and len(behind) == len(family):
            active = graph.add(tails[0][0], [_stacked(graph, family)])
            weight = block_diagonal([layer.weight for layer in behind])
            result = add_layer(graph, active, weight, *_biases_and_names(behind))
            merged += len(behind) - 1
        elif all(_is_enlarged(graph, layer) for layer in family):
            behind, result = family, _stacked(graph, family)
        else:
            continue
        parts = split_channels(graph, result, [layer.weight.shape[0] for layer in behind])
        for layer, part in zip(behind, parts, strict=True):
            graph.replace(layer.node, part)
        merged += len(family) - 1
    return merged


def _families(graph: Graph) -> list[list[Layer]]:
    """Convolutions without groups that read the same map with the same settings, two or more together."""
    families: dict[tuple[Any, ...], list[Layer]] = {}
    for node in graph.of_type("Conv"):
        layer = layer_of(graph, node)
        if layer is not None and layer.groups == 1 and not set(node.output).intersection(graph.outputs):
            key = (node.input[0], layer.weight.shape[1:], str(sorted(settings(node).items())))
            families.setdefault(key, []).append(layer)
    return [family for family in families.values() if len(family) > 1]


def _tail(graph: Graph, layer: Layer) -> tuple[str, Layer | None]:
    """The kind of activation and the 1x1 convolution behind it, if nothing else reads the results before it."""
    active = graph.sole_consumer(layer.node.output[0])
    if active is None or not is_op(active, *_ACTIVATIONS):
        return "", None
    after = layer_of(graph, graph.sole_consumer(active.output[0]))
    return active.op_type, after if after is not None and after.is_pointwise else None


def _is_enlarged(graph: Graph, layer: Layer) -> bool:
    reader = graph.sole_consumer(layer.node.output[0])
    return reader is not None and repeat_factor(graph, reader) > 0


def _stacked(graph: Graph, family: Sequence[Layer]) -> str:
    weight = np.concatenate([layer.weight for layer in family])
    first = family[0].node
    return add_layer(graph, first.input[0], weight, *_biases_and_names(family), **settings(first))


def _biases_and_names(layers: Sequence[Layer]) -> tuple[Array, list[str]]:
    return np.concatenate([layer.bias for layer in layers]), [layer.node.input[1] for layer in layers]


def merge_summed_convolutions(graph: Graph) -> int:
    """Run 1x1 convolutions whose results are added up as one over the concatenation of what they read.

    Only where convolutions make all that they read, each for this one reader: they then write into the concatenation,
    and no map is copied for it.

    Returns:
        Number of convolutions that went.
    """
    merged = 0
    gone: set[str] = set()
    for total in reversed(graph.of_type("Add")):
        if total.output[0] in gone:
            continue
        terms = _terms(graph, total, gone)
        layers = [layer for name, _ in terms if (layer := _summand(graph, name)) is not None]
        if len(layers) < 2:
            continue
        sources = graph.add("Concat", [layer.node.input[0] for layer in layers], axis=1)
        weight = np.concatenate([layer.weight for layer in layers], axis=1)
        bias, names = np.sum([layer.bias for layer in layers], axis=0), [layer.node.input[1] for layer in layers]
        # The sum is made anew: the terms that stay, and the one convolution.
        result = add_layer(graph, sources, weight, bias, names)
        ours = {layer.node.output[0] for layer in layers}
        for name in [name for name, _ in terms if name not in ours]:
            result = graph.add("Add", [name, result])
        graph.replace(total, result)
        merged += len(layers) - 1
    return merged


def _terms(graph: Graph, total: NodeProto, gone: set[str]) -> list[tuple[str, NodeProto]]:
    """What a tree of Adds sums up, each term with the Add that reads it; inner Adds are marked as gone."""
    found = []
    for name in total.input:
        maker = graph.producer(name)
        if maker is not None and is_op(maker, "Add") and graph.sole_consumer(name) is not None:
            gone.add(name)
            found += _terms(graph, maker, gone)
        else:
            found.append((name, total))
    return found


def _summand(graph: Graph, name: str) -> Layer | None:
    layer = layer_of(graph, graph.producer(name))
    if layer is None or not layer.is_pointwise or graph.sole_consumer(name) is None:
        return None
    source = layer.node.input[0]
    before = graph.producer(source)
    own = before is not None and is_op(before, "Conv") and graph.sole_consumer(source) is not None
    # One pixel might be added to all pixels of another map.
    return layer if own and 1 not in (graph.shape(name) or (1,))[2:] else None


def pad_hidden_channels(graph: Graph) -> int:
    """Give the map between two convolutions with a Relu a multiple of 8 channels, by channels that are always zero.

    For 7 of them TensorRT-RTX 1.7 copies an FP16 map into one of 8 first. Not where that would be many zeros.

    Returns:
        Number of maps widened.
    """
    padded = 0
    for node in graph.of_type("Conv"):
        active = graph.sole_consumer(node.output[0])
        if active is None or not is_op(active, "Relu"):
            continue
        first, second = layer_of(graph, node), layer_of(graph, graph.sole_consumer(active.output[0]))
        if first is None or second is None or first.groups != 1 or second.groups != 1:
            continue
        width = len(first.bias)
        missing = -width % _GRANULE
        if not 0 < missing <= width // 2:
            continue
        after = second.node
        node.input[1:] = [
            graph.add_array(np.pad(first.weight, [(0, missing), *[(0, 0)] * 3]), node.input[1]),
            graph.add_array(np.pad(first.bias, (0, missing)), f"{node.input[1]}.bias"),
        ]
        weight = np.pad(second.weight, [(0, 0), (0, missing), *[(0, 0)] * 2])
        after.input[1] = graph.add_array(weight, after.input[1])
        graph.touch()
        padded += 1
    return padded
