"""The form that compilers make the fewest kernels of: what they generate code for, spelled out; for engines only.

TensorRT's compiler fuses pointwise arithmetic, slices, reshapes and reductions into kernels that it generates, as many
as hang together, and leaves convolutions, pools and Resize nodes to kernels that it keeps, with copies where their
layouts differ. In a network of many small maps, spelling the small ones out pays: they vanish in their neighbours.
ONNX Runtime runs node by node, and slower for it; so this comes last, after calibration, right before the engine.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from irforge.export.passes.layers import Layer, block_window, integers, layer_of, pair, repeat_factor
from irforge.graph import Graph, attribute, is_op


def repeat_by_broadcast(graph: Graph) -> int:
    """Write map + enlarged map, and map * enlarged map, as arithmetic between blocks of pixels and one value a block.

    For maps enlarged by repeating pixels, of known sides: N x C x H x W is seen as N x C x h x k x w x k, the small map
    as N x C x h x 1 x w x 1. No enlarged map is written.

    Returns:
        Number of Resize nodes that went.
    """
    found = [(node, sides) for node in graph.of_type("Resize") if (sides := _sides_of_repeated(graph, node))]
    for resize, (channels, height, width) in found:
        factor = repeat_factor(graph, resize)
        reader = graph.sole_consumer(resize.output[0])
        assert reader is not None
        blocks = integers(graph, [-1, channels, height, factor, width, factor])
        values = integers(graph, [-1, channels, height, 1, width, 1])
        whole = integers(graph, [-1, channels, height * factor, width * factor])
        small = graph.add("Reshape", [resize.input[0], values])
        other = next(name for name in reader.input if name != resize.output[0])
        result = graph.add(reader.op_type, [graph.add("Reshape", [other, blocks]), small])
        graph.replace(reader, graph.add("Reshape", [result, whole]))
    return len(found)


def _sides_of_repeated(graph: Graph, resize: NodeProto) -> tuple[int, int, int] | None:
    """Channels and sides of the small map, if only an Add or Mul with another map of its size reads the large one."""
    factor = repeat_factor(graph, resize)
    reader = graph.sole_consumer(resize.output[0])
    if not factor or reader is None or not is_op(reader, "Add", "Mul"):
        return None
    other = [name for name in reader.input if name != resize.output[0]]
    sides = _known_sides(graph, resize.input[0])
    if len(other) != 1 or sides is None:
        return None
    channels, height, width = sides
    fits = _known_sides(graph, other[0]) == (channels, height * factor, width * factor)
    return sides if fits else None


def _known_sides(graph: Graph, name: str) -> tuple[int, int, int] | None:
    """(C, H, W) of a batch of maps, if they are known."""
    match graph.shape(name):
        case (_, int(channels), int(height), int(width)):
            return channels, height, width
    return None


def pool_by_reduction(graph: Graph) -> int:
    """Write the average over blocks of k x k pixels as a mean over two axes of N x C x h x k x w x k.

    A generated kernel then averages what it computes; a pool reads the map back. For maps whose sides are known and
    whole numbers of blocks.

    Returns:
        Number of pools that went.
    """
    found = [
        (node, sides)
        for node in graph.of_type("AveragePool")
        if (window := block_window(node))
        and (sides := _known_sides(graph, node.input[0]))
        and not (sides[1] % window or sides[2] % window)
    ]
    for pool, (channels, height, width) in found:
        window = block_window(pool)
        shape = integers(graph, [-1, channels, height // window, window, width // window, window])
        blocks = graph.add("Reshape", [pool.input[0], shape])
        graph.replace(pool, graph.add("ReduceMean", [blocks, integers(graph, [3, 5])], keepdims=0))
    return len(found)


def filter_by_taps(graph: Graph) -> int:
    """Write a depthwise convolution of a gated map as a sum of shifted maps, each times one weight a channel.

    A convolution needs the product of map and gate in memory; the sum is computed together with it.

    Returns:
        Number of convolutions that went.
    """
    found = [
        layer
        for node in graph.of_type("Conv")
        if (layer := layer_of(graph, node)) is not None and layer.is_depthwise and layer.keeps_size
        if pair(node, "dilations") == [1, 1] and _is_product(graph, node.input[0])
    ]
    for layer in found:
        graph.replace(layer.node, _sum_of_taps(graph, layer))
    return len(found)


def _is_product(graph: Graph, name: str) -> bool:
    maker = graph.producer(name)
    if maker is not None and is_op(maker, "Reshape") and graph.sole_consumer(maker.input[0]) is not None:
        maker = graph.producer(maker.input[0])
    return maker is not None and is_op(maker, "Mul") and graph.sole_consumer(name) is not None


def _sum_of_taps(graph: Graph, layer: Layer) -> str:
    top, left, bottom, right = attribute(layer.node, "pads", [0] * 4)
    padded = graph.add("Pad", [layer.node.input[0], integers(graph, [0, 0, top, left, 0, 0, bottom, right])])
    rows, columns = layer.weight.shape[2:]
    axes = integers(graph, [2, 3])
    name = layer.node.input[1]
    total = graph.add_array(layer.bias.reshape(1, -1, 1, 1), f"{name}.bias")
    for row in range(rows):
        for column in range(columns):
            # Ends are counted from the far side, whatever the size: 0 would mean the start.
            ends = [place + 1 - side or np.iinfo(np.int64).max for place, side in ((row, rows), (column, columns))]
            shifted = graph.add("Slice", [padded, integers(graph, [row, column]), integers(graph, ends), axes])
            weight = graph.add_array(layer.weight[:, 0, row, column].reshape(1, -1, 1, 1), f"{name}.tap")
            total = graph.add("Add", [total, graph.add("Mul", [shifted, weight])])
    return total
