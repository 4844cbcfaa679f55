"""Rewrites that ONNX Runtime's CPU kernels reward, and that TensorRT's fusions would not: for `--for cpu` only.

ONNX Runtime computes convolutions in a channel-blocked layout of 16 (8 without AVX-512) and everything that has no such
kernel in plain NCHW; between the two it copies. So what matters is how often a map changes layout, how many channels of
a block are padding, and which reductions have a fast kernel. Measured figures: benchmarks/cpu.py.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from irforge.graph import Array, Graph, attribute, is_op, set_attribute

BLOCK = 16
# Above this width a residual sum is cheaper than the identity convolution that keeps it in the blocked layout.
_WIDEST_RESIDUAL = 64
_PHASES = 4


def split_concatenations(graph: Graph) -> int:
    """A convolution over concatenated maps becomes a sum of convolutions, one a map; the concatenation is not made.

    ONNX Runtime adds up inside the second convolution. Only for maps of whole channel blocks.

    Returns:
        Number of convolutions split.
    """
    split = 0
    for concat in graph.of_type("Concat"):
        parts = [(name, _channels(graph, name)) for name in concat.input]
        shape = graph.shape(concat.output[0]) or ()
        if (
            attribute(concat, "axis") != 1
            or any(not width or width % BLOCK for _, width in parts)
            or shape[2:] == (1, 1)
        ):
            continue
        for conv in graph.consumers(concat.output[0]):
            weight = graph.array(conv.input[1]) if is_op(conv, "Conv") else None
            if weight is None or conv.input[0] != concat.output[0] or attribute(conv, "group", 1) != 1:
                continue
            start, total = 0, ""
            for name, width in parts:
                piece = NodeProto()
                piece.CopyFrom(conv)
                inputs = [name, graph.add_array(weight[:, start : start + width], f"{conv.input[1]}_part")]
                # The bias belongs to the sum, so to one of its terms.
                piece.input[:] = [*inputs, *([] if total else conv.input[2:])]
                piece.output[0] = piece.name = graph.fresh(f"{conv.output[0]}_part")
                graph.extend([piece])
                total = graph.add("Add", [total, piece.output[0]]) if total else piece.output[0]
                start += width
            graph.replace(conv, total)
            split += 1
    return split


def blocked_residuals(graph: Graph) -> int:
    """Relu(a * b + r) gets an identity 1x1 convolution on the product.

    Products that broadcast exist in NCHW only, and would pull the residual and everything behind it into NCHW too. The
    convolution takes its input to the blocked layout, adds the residual and applies Relu in one pass. Exact: every
    output is its input times one plus zeros.

    Returns:
        Number of residual sums rewritten.
    """
    rewritten = 0
    for relu in graph.of_type("Relu"):
        total = graph.producer(relu.input[0])
        if total is None or not is_op(total, "Add") or graph.sole_consumer(total.output[0]) is None:
            continue
        width = _channels(graph, total.output[0])
        products = [place for place, name in enumerate(total.input) if _is_product(graph, name)]
        if len(products) != 1 or not width or width % BLOCK or width > _WIDEST_RESIDUAL:
            continue
        identity = graph.add_array(np.eye(width, dtype=np.float32).reshape(width, width, 1, 1), f"identity_{width}")
        product = total.input[products[0]]
        total.input[products[0]] = graph.add("Conv", [product, identity], kernel_shape=[1, 1])
        graph.touch()
        rewritten += 1
    return rewritten


def _is_product(graph: Graph, name: str) -> bool:
    maker = graph.producer(name)
    return maker is not None and is_op(maker, "Mul") and graph.sole_consumer(name) is not None


def strided_single_outputs(graph: Graph) -> int:
    """A convolution with one output channel computes 4x4 output pixels as 16 channels, then unfolds them.

    In the blocked layout one output channel costs as much as 16; the strided kernel of size k + 3 fills the block with
    neighbouring pixels instead: (k + 3)^2 in place of 16 k^2 multiplications a pixel, the same sums. Needs known sides,
    multiples of 4.

    Returns:
        Number of convolutions rewritten.
    """
    rewritten = 0
    for conv in graph.of_type("Conv"):
        weight = graph.array(conv.input[1])
        if weight is None or not _is_single_output(graph, conv, weight):
            continue
        size = weight.shape[2]
        phases = np.zeros((_PHASES**2, weight.shape[1], size + _PHASES - 1, size + _PHASES - 1), weight.dtype)
        for row in range(_PHASES):
            for column in range(_PHASES):
                phases[row * _PHASES + column, :, row : row + size, column : column + size] = weight[0]
        conv.input[1] = graph.add_array(phases, f"{conv.input[1]}_phases")
        if len(conv.input) > 2:
            bias = graph.array(conv.input[2])
            conv.input[2] = graph.add_array(np.repeat(np.asarray(bias), _PHASES**2), f"{conv.input[2]}_phases")
        set_attribute(conv, "kernel_shape", list(phases.shape[2:]))
        set_attribute(conv, "strides", [_PHASES, _PHASES])
        graph.touch()
        # An activation works on the packed map as well as on the unfolded one, and ONNX Runtime fuses it there.
        last = graph.sole_consumer(conv.output[0])
        last = last if last is not None and is_op(last, "Sigmoid", "Relu") else conv
        packed, name = graph.fresh(f"{last.output[0]}_packed"), last.output[0]
        unfold = graph.add("DepthToSpace", [packed], blocksize=_PHASES)
        graph.reroute(name, unfold)
        last.output[0] = packed
        graph.touch()
        rewritten += 1
    return rewritten


def _is_single_output(graph: Graph, conv: NodeProto, weight: Array) -> bool:
    sides = (graph.shape(conv.output[0]) or ())[2:]
    pads = list(attribute(conv, "pads", [0, 0, 0, 0]))
    return (
        weight.shape[0] == 1
        and weight.shape[1] < BLOCK
        and weight.shape[2] == weight.shape[3] >= 3
        and pads == [weight.shape[2] // 2] * 4
        and weight.shape[2] % 2 == 1
        and len(sides) == 2
        and all(isinstance(side, int) and side % _PHASES == 0 for side in sides)
        and list(attribute(conv, "strides", [1, 1])) == [1, 1]
        and list(attribute(conv, "dilations", [1, 1])) == [1, 1]
    )


def gated_means_as_products(graph: Graph) -> int:
    """The channel mean of a gated map, mean(g * u) with one gate a channel, becomes the matrix product (g / C) u.

    Returns:
        Number of means rewritten.
    """
    rewritten = 0
    for mean in graph.of_type("ReduceMean"):
        axes = graph.array(mean.input[1]) if len(mean.input) > 1 else None
        product = graph.producer(mean.input[0])
        if axes is None or axes.tolist() != [1] or not attribute(mean, "keepdims", 1) or product is None:
            continue
        shapes = {name: graph.shape(name) or () for name in product.input}
        gates = [name for name, shape in shapes.items() if len(shape) == 4 and shape[2:] == (1, 1)]
        maps = [name for name, shape in shapes.items() if len(shape) == 4 and name not in gates]
        if not is_op(product, "Mul") or len(gates) != 1 or len(maps) != 1:
            continue
        width, *sides = [side for side in shapes[maps[0]][1:] if isinstance(side, int)] or [0]
        if len(sides) != 2 or shapes[gates[0]][1] != width:
            continue
        row = graph.add("Reshape", [gates[0], _sizes(graph, [0, 1, -1])])
        share = graph.add("Mul", [row, graph.add_array(np.array(1 / width, np.float32), "channel_share")])
        flat = graph.add("Reshape", [maps[0], _sizes(graph, [0, width, -1])])
        total = graph.add("MatMul", [share, flat])
        graph.replace(mean, graph.add("Reshape", [total, _sizes(graph, [0, 1, *sides])]))
        rewritten += 1
    return rewritten


def _sizes(graph: Graph, sides: list[int]) -> str:
    return graph.add_array(np.array(sides, np.int64), "sides")


def _channels(graph: Graph, name: str) -> int:
    shape = graph.shape(name)
    return shape[1] if shape is not None and len(shape) == 4 and isinstance(shape[1], int) else 0


def declare_upsampled_shapes(graph: Graph) -> int:
    """Write down the shape of maps that a Resize with constant scales makes.

    Shape inference loses the symbol of a free batch at Resize, and ONNX Runtime then takes maps of the same shape for
    different ones and adds them up outside of the convolutions.

    Returns:
        Number of shapes declared.
    """
    declared = 0
    for resize in graph.of_type("Resize"):
        shape, scales = graph.shape(resize.input[0]), graph.array(resize.input[2]) if len(resize.input) == 3 else None
        if shape is None or scales is None or len(shape) != len(scales):
            continue
        sides = [_scaled(side, float(scale)) for side, scale in zip(shape, scales, strict=True)]
        value = helper.make_tensor_value_info(resize.output[0], graph.dtype(resize.input[0]), sides)
        graph.model.graph.value_info.append(value)
        graph.touch()
        declared += 1
    return declared


def _scaled(side: int | str | None, scale: float) -> int | str | None:
    if scale == 1:
        return side
    return int(side * scale) if isinstance(side, int) else None


def upsampled_planes_as_products(graph: Graph) -> int:
    """Bilinear Resize (align_corners) of a one-channel map becomes R x C^T with two constant matrices.

    A plane in the blocked layout is fifteen parts padding, and Resize computes the padding too. Needs known sides.

    Returns:
        Number of nodes rewritten.
    """
    rewritten = 0
    for resize in graph.of_type("Resize"):
        before, after = (graph.shape(name) or () for name in (resize.input[0], resize.output[0]))
        mode = (attribute(resize, "mode"), attribute(resize, "coordinate_transformation_mode"))
        sides = [side for side in (*before[2:], *after[2:]) if isinstance(side, int)]
        if mode != (b"linear", b"align_corners") or len(sides) != 4 or before[1:2] != (1,) or min(sides) < 2:
            continue
        rows = graph.add_array(_interpolation(sides[0], sides[2]), "row_weights")
        columns = graph.add_array(_interpolation(sides[1], sides[3]).T, "column_weights")
        wide = graph.add("MatMul", [resize.input[0], columns])
        graph.replace(resize, graph.add("MatMul", [rows, wide]))
        rewritten += 1
    return rewritten


def _interpolation(source: int, target: int) -> Array:
    """float32 [target, source]: row i holds the two weights of the pixels around i (source - 1) / (target - 1)."""
    places = np.arange(target) * (source - 1) / (target - 1)
    left = np.minimum(places.astype(int), source - 2)
    weights = np.zeros((target, source))
    weights[np.arange(target), left] = 1 - (places - left)
    weights[np.arange(target), left + 1] = places - left
    return weights.astype(np.float32)
