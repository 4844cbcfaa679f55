"""Fold per-channel scales and shifts around a convolution into its weights: batch norm, normalisation.

All arithmetic is done in float64 and rounded once, so that the folded network is closer to the exact one than either
order of float32 operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from irforge.graph import Array, Graph, attribute, is_op

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """x * scale + shift, one value a channel."""

    scale: Vector
    shift: Vector


def fold_affine_after(graph: Graph) -> int:
    """Fold BatchNormalization, and Mul, Div, Add and Sub with per-channel constants, into the convolution before them.

    Exact: convolution is linear, and nothing is padded after it.

    Returns:
        Number of nodes that went.
    """
    folded = 0
    for conv in graph.of_type("Conv"):
        while (follower := graph.sole_consumer(conv.output[0])) is not None:
            weight = graph.array(conv.input[1])
            affine = None if weight is None else _affine(graph, follower, conv.output[0], weight.shape[0])
            if weight is None or affine is None:
                break
            scaled = weight * affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
            _set_parameters(graph, conv, scaled, _bias(graph, conv, weight) * affine.scale + affine.shift, weight.dtype)
            graph.replace(follower, conv.output[0])
            folded += 1
    return folded


def fold_affine_before(graph: Graph) -> int:
    """Fold per-channel constants, and the replication of one channel to several, into the convolution behind them.

    A shift passes only a convolution without padding: a padded zero is a zero of the shifted map. Scales and
    replication always pass. A 1x1 stem takes in gray -> RGB -> /255 -> (x - mean) / std and becomes one-channel.

    Returns:
        Number of nodes that went.
    """
    folded = 0
    for conv in graph.of_type("Conv"):
        while (before := graph.producer(conv.input[0])) is not None:
            weight = graph.array(conv.input[1])
            if weight is None or attribute(conv, "group", 1) != 1 or graph.sole_consumer(conv.input[0]) is None:
                break
            if _replicates_one_channel(graph, before):
                _set_parameters(graph, conv, weight.sum(axis=1, keepdims=True, dtype=np.float64), None, weight.dtype)
                conv.input[0] = before.input[0]
            elif (step := _affine_of_any_input(graph, before, weight.shape[1])) is not None:
                source, affine = step
                if np.any(affine.shift) and not _is_unpadded(conv):
                    break
                scaled = weight * affine.scale.reshape(1, -1, *[1] * (weight.ndim - 2))
                moved = (weight.sum(axis=tuple(range(2, weight.ndim)), dtype=np.float64) * affine.shift).sum(axis=1)
                if _sides(graph, source)[1:2] == (1,):
                    # The constants were broadcast over one channel.
                    scaled = scaled.sum(axis=1, keepdims=True)
                _set_parameters(graph, conv, scaled, _bias(graph, conv, weight) + moved, weight.dtype)
                conv.input[0] = source
            else:
                break
            graph.touch()
            graph.remove(before)
            folded += 1
    return folded


def _affine_of_any_input(graph: Graph, node: NodeProto, channels: int) -> tuple[str, Affine] | None:
    for source in node.input[:2]:
        affine = _affine(graph, node, source, channels) if graph.array(source) is None else None
        if affine is not None:
            return source, affine
    return None


def _affine(graph: Graph, node: NodeProto, source: str, channels: int) -> Affine | None:
    """What a node does to `source` with `channels` channels, if that is one scale and shift a channel."""
    if is_op(node, "BatchNormalization") and node.input[0] == source and len(node.output) == 1:
        parameters = [graph.array(name) for name in node.input[1:5]]
        if attribute(node, "training_mode", 0) or any(value is None for value in parameters):
            return None
        gain, offset, mean, variance = (np.asarray(value, np.float64) for value in parameters)
        scale = gain / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        return Affine(scale, offset - mean * scale)
    if not is_op(node, "Mul", "Div", "Add", "Sub") or graph.dtype(source) != graph.dtype(node.output[0]):
        return None
    constant_first = node.input[0] != source
    value = _per_channel(graph.array(node.input[0 if constant_first else 1]), channels)
    if value is None or list(node.input).count(source) != 1 or (node.op_type == "Div" and constant_first):
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        return Affine(value, zero)
    if node.op_type == "Div":
        return Affine(one / value, zero)
    if node.op_type == "Add":
        return Affine(one, value)
    return Affine(-one, value) if constant_first else Affine(one, -value)


def _per_channel(value: Array | None, channels: int) -> Vector | None:
    """One number a channel from a constant that broadcasts over N x C x H x W, or None if it varies elsewhere."""
    if value is None or value.ndim > 4 or not np.issubdtype(value.dtype, np.floating):
        return None
    sides = (1,) * (4 - value.ndim) + value.shape
    if sides[0] != 1 or sides[2:] != (1, 1) or sides[1] not in (1, channels):
        return None
    return np.broadcast_to(value.astype(np.float64).ravel(), channels).copy()


def _replicates_one_channel(graph: Graph, node: NodeProto) -> bool:
    """Whether a node only repeats a one-channel map along the channels."""
    if is_op(node, "Concat"):
        return attribute(node, "axis") == 1 and len(set(node.input)) == 1 and _sides(graph, node.input[0])[1:2] == (1,)
    if not is_op(node, "Expand", "Tile"):
        return False
    before, after = _sides(graph, node.input[0]), _sides(graph, node.output[0])
    factors = graph.array(node.input[1])
    if len(before) != 4 or len(after) != 4 or factors is None or factors.size != 4 or before[1] != 1:
        return False
    expands = node.op_type == "Expand"
    return all(factors[axis] == 1 or (expands and factors[axis] == before[axis]) for axis in (0, 2, 3))


def _sides(graph: Graph, name: str) -> tuple[int | str | None, ...]:
    return graph.shape(name) or ()


def _is_unpadded(conv: NodeProto) -> bool:
    return attribute(conv, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and not any(attribute(conv, "pads", []))


def _bias(graph: Graph, conv: NodeProto, weight: Array) -> Vector:
    bias = graph.array(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else None
    return np.zeros(weight.shape[0]) if bias is None else bias.astype(np.float64)


def _set_parameters(
    graph: Graph, conv: NodeProto, weight: Vector, bias: Vector | None, dtype: np.dtype[np.generic]
) -> None:
    """Give a convolution its own new weights; old ones may be shared and go when nothing reads them."""
    base = conv.name or conv.output[0]
    names = [graph.add_array(weight.astype(dtype), f"{base}.weight")]
    if bias is not None:
        names.append(graph.add_array(bias.astype(dtype), f"{base}.bias"))
    conv.input[:] = [conv.input[0], *names, *conv.input[1 + len(names) :]]
    graph.touch()
