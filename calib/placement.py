"""Where int8 begins and ends: which convolutions are quantised, and at which tensors their values become int8.

A quantised tensor is a *point*: it gets one Q/DQ pair, and everything that read it reads the DQ. Placement follows what
TensorRT fuses: a convolution that reads a DQ and is followed by bias, ReLU and Q is one int8 kernel; pools and concats
between points of one scale move int8 bytes; element-wise chains between points are one kernel that reads and writes
int8 and computes in FP16.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from onnx import NodeProto

from irforge.calib.ranges import TensorRange
from irforge.calib.tables import Kept
from irforge.graph import Graph, attribute, infer_types, is_op, macs

_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip", "PRelu")
# What int8 passes through without a new scale.
_MOVES = ("MaxPool",)
# What a path to the next quantised convolution may lead through. Not Transpose, Reshape or Slice: decoders use those.
_CARRIES = (*_ACTIVATIONS, *_MOVES, "Concat", "Add", "Mul", "Resize", "Sigmoid", "AveragePool")


@dataclass(frozen=True)
class Rules:
    """What a compiler or runtime does well in int8.

    fewest_channels: a convolution with fewer input or output channels stays as it is: int8 kernels take channels by 16
        or 32 and would mostly multiply padding.
    fuses_residual: a convolution adds an int8 residual inside its own kernel, before its Q.
    gated_maps: a map times an attention gate, written to memory because reductions read it too, is a point.
    matrix_products: a product with a constant matrix is quantised as a convolution is.
    """

    fewest_channels: int
    fuses_residual: bool
    gated_maps: bool
    matrix_products: bool


TENSORRT = Rules(fewest_channels=8, fuses_residual=True, gated_maps=True, matrix_products=True)
CPU = Rules(fewest_channels=8, fuses_residual=False, gated_maps=False, matrix_products=False)


@dataclass(frozen=True)
class Span:
    """The values a point keeps: everything beyond is clipped. `reach` is the larger magnitude of the two."""

    low: float
    high: float

    @property
    def reach(self) -> float:
        return max(-self.low, self.high)


@dataclass
class Placement:
    """The decision: convolutions, and matrix products, to quantise by their output's name, points with the span of
    each, what was kept with the reason, and the share of all MACs that is quantised."""

    convolutions: list[str] = field(default_factory=list)
    points: dict[str, Span] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    share: float = 0.0


def place(
    graph: Graph,
    tensors: Mapping[str, TensorRange],
    method: str,
    rules: Rules = TENSORRT,
    *,
    keep: Sequence[str] = (),
    apart: Mapping[str, str] | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> Placement:
    """Decide for one FP32 graph.

    Args:
        tensors: measured ranges of its tensors.
        method: which threshold becomes a point's range.
        rules: of the compiler it is placed for.
        keep: patterns (`encoder_0*`) of node, output or weight names; what matches stays in FP16.
        apart: first outputs of nodes that are not to be quantised, each with the reason.
        sizes: input sizes to count MACs at, if the graph leaves them free.
    """
    counts = macs(graph.model, sizes)
    shapes = {name: shape for name, (_, shape) in infer_types(graph.model, sizes).items()}
    total = sum(counts.values())
    placement = Placement()
    chosen: list[NodeProto] = []
    for node in graph.of_type("Conv", "ConvTranspose", "Gemm", "MatMul"):
        reason = _reason_to_keep(node, graph, tensors, shapes, rules, keep, apart or {})
        if reason:
            kept = Kept(node.output[0], counts[node.output[0]] / total, reason, node.input[1])
            placement.kept.append(kept)
        else:
            chosen.append(node)
    placement.convolutions = [node.output[0] for node in chosen]
    placement.share = sum(counts[name] for name in placement.convolutions) / total
    for group in _shared_scales(graph, _points(graph, chosen, rules)):
        reach = max(tensors[name].thresholds[method] for name in group)
        low, high = min(tensors[name].min for name in group), max(tensors[name].max for name in group)
        span = Span(max(low, -reach), min(high, reach))
        placement.points.update(dict.fromkeys(group, span))
    return placement


def _reason_to_keep(
    node: NodeProto,
    graph: Graph,
    tensors: Mapping[str, TensorRange],
    shapes: Mapping[str, Sequence[int | str | None]],
    rules: Rules,
    keep: Sequence[str],
    apart: Mapping[str, str],
) -> str:
    names = (node.name, node.output[0], *node.input[1:2])
    pattern = next((pattern for pattern in keep for name in names if fnmatchcase(name, pattern)), None)
    weight = graph.array(node.input[1])
    if pattern is not None:
        return f"kept by '{pattern}'"
    if node.output[0] in apart:
        return apart[node.output[0]]
    if not is_op(node, "Conv") and not (is_op(node, "MatMul") and rules.matrix_products):
        return f"a {node.op_type}: only convolutions are quantised"
    if weight is None:
        return "its weights are computed"
    if is_op(node, "MatMul") and weight.ndim != 2:
        return "a product of more than one matrix"
    out_channels, in_channels = weight.shape[:2]
    if min(out_channels, in_channels) < rules.fewest_channels:
        return f"fewer than {rules.fewest_channels} channels{' a group' if attribute(node, 'group', 1) > 1 else ''}"
    if is_op(node, "Conv") and all(side == 1 for side in shapes.get(node.output[0], ())[2:]):
        return "one pixel: a squeeze, not a map"
    unseen = [name for name in (node.input[0], node.output[0]) if name not in tensors]
    if unseen:
        return f"'{unseen[0]}' has no measured range"
    if tensors[node.input[0]].absmax == 0 or tensors[node.output[0]].absmax == 0:
        return "always zero on the calibration frames"
    return ""


def _points(graph: Graph, chosen: Sequence[NodeProto], rules: Rules) -> list[str]:
    """Inputs of the quantised convolutions; their results, where a path leads on to another of them; and what concats
    and pools between points need to stay int8."""
    convolutions = {node.output[0] for node in chosen}
    points = dict.fromkeys(node.input[0] for node in chosen)
    leads_on = _leads_to(graph, convolutions)
    for node in chosen:
        if is_op(node, "MatMul"):
            # Its bias is a node of its own behind it, which the product's kernel adds.
            continue
        result = _after_activation(graph, node.output[0])
        fused = rules.fuses_residual and _fuses_with_residual(graph, result, convolutions, points)
        if result in leads_on and not fused:
            points[result] = None
    for node in graph.of_type("Mul") if rules.gated_maps else []:
        if node.output[0] in leads_on and _is_gated_map(graph, node, points):
            points[node.output[0]] = None
    settled = 0
    while settled < len(points):
        settled = len(points)
        for name in list(points):
            maker = graph.producer(name)
            if maker is not None and is_op(maker, "Concat", *_MOVES):
                points.update(dict.fromkeys(source for source in maker.input if source))
    return [name for name in points if graph.array(name) is None]


def _after_activation(graph: Graph, name: str) -> str:
    reader = graph.sole_consumer(name)
    return reader.output[0] if reader is not None and is_op(reader, *_ACTIVATIONS) else name


def _fuses_with_residual(graph: Graph, name: str, convolutions: set[str], points: Collection[str]) -> bool:
    """A convolution whose result is only added to an int8 tensor adds it in its own kernel, before its Q."""
    reader = graph.sole_consumer(name)
    if reader is None or not is_op(reader, "Add") or name not in convolutions:
        return False
    (other,) = [source for source in reader.input if source != name] or [name]
    return other in points and other not in convolutions


def _is_gated_map(graph: Graph, node: NodeProto, points: Collection[str]) -> bool:
    """A point times a gate, read by reductions too and so written to memory: one byte a value is half of FP16's."""
    readers = graph.consumers(node.output[0])
    reduced = any(is_op(reader, "ReduceMean", "ReduceMax", "ReduceSum") for reader in readers)
    return reduced and any(source in points for source in node.input)


def _leads_to(graph: Graph, convolutions: set[str]) -> set[str]:
    """All tensors from which a path of maps leads to a quantised convolution."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        carries = is_op(node, *_CARRIES) and any(name in found for name in node.output)
        if node.output[0] in convolutions:
            found.add(node.input[0])
        elif carries:
            found.update(name for name in node.input if name)
    return found


def _shared_scales(graph: Graph, points: Sequence[str]) -> list[list[str]]:
    """Points grouped by scale: a concat's inputs and result share one, and so do a pool's."""
    parent = {name: name for name in points}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for name in points:
        maker = graph.producer(name)
        if maker is not None and is_op(maker, "Concat", *_MOVES):
            for source in maker.input:
                if source in parent:
                    parent[root(source)] = root(name)
    groups: dict[str, list[str]] = {}
    for name in points:
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())
