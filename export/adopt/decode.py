"""The decode of a stranger's outputs as nodes: fixed shapes, no loop, no operator whose size depends on values.

All of it comes after the network's last layer, so that `irforge half` and `irforge quantize` keep it in FP32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from irforge.export.adopt.reading import Part, Peaks, Plane, Reading, Rows
from irforge.graph import Graph, attribute, is_op

NOTHING = -1e4
"""What stands where there is no peak: finite, since parsers refuse infinite constants, yet its sigmoid is 0."""
ROUNDS = 16
MOST_CANDIDATES = 3840
"""The longest list that TensorRT's TopK gives."""


@dataclass(frozen=True)
class Limits:
    """How many candidates are suppressed at which IoU, how many detections leave the graph."""

    candidates: int = 512
    iou: float = 0.7
    detections: int = 100


def add_decode(graph: Graph, reading: Reading, limits: Limits, height: int, width: int) -> None:
    """Put the decode behind the network and make its results the graph's only outputs.

    Boxes: `boxes` float32 N x k x 4 as xyxy in pixels of the input, `scores` float32 N x k, descending, 0 in empty
    slots, `classes` int64 N x k. A mask: `mask` float32 N x 1 x height x width.
    """
    nodes = _Nodes(graph)
    if isinstance(reading, Plane):
        made = {"mask": _plane(nodes, reading, height, width)}
    else:
        if isinstance(reading, Peaks):
            boxes, scores, classes = _peaks(nodes, reading, limits)
        else:
            boxes, scores, classes = _rows(nodes, reading, limits, height, width)
        some = nodes.cast(nodes("Greater", [scores, nodes.number(0.0)]), TensorProto.FLOAT)
        boxes = nodes("Mul", [boxes, nodes("Unsqueeze", [some, nodes.ints(2)])])
        made = {"boxes": boxes, "scores": scores, "classes": classes}
    batch, *_ = graph.shape(graph.inputs[0]) or (None,)
    shapes: dict[str, list[int | str | None]] = {"mask": [batch, 1, height, width]}
    if "scores" in made:
        k = (graph.shape(made["scores"]) or (None, None))[1]
        shapes = {"boxes": [batch, k, 4], "scores": [batch, k], "classes": [batch, k]}
    del graph.model.graph.output[:]
    for name, tensor in made.items():
        graph.model.graph.node.append(helper.make_node("Identity", [tensor], [name], name=f"decode_{name}"))
        kind = TensorProto.INT64 if name == "classes" else TensorProto.FLOAT
        graph.model.graph.output.append(helper.make_tensor_value_info(name, kind, shapes[name]))
    graph.touch()


class _Nodes:
    """Adds nodes and constants to a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        return self.graph.add(kind, inputs, f"decode_{kind.lower()}", **attributes)

    def several(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        names = [self.graph.fresh(f"decode_{kind.lower()}") for _ in range(count)]
        self.graph.extend([helper.make_node(kind, list(inputs), names, name=names[0], **attributes)])
        return names

    def ints(self, *values: int) -> str:
        return self.graph.add_array(np.asarray(values, np.int64), "decode_ints")

    def number(self, value: float) -> str:
        return self.graph.add_array(np.asarray(value, np.float32), "decode_number")

    def numbers(self, values: Any) -> str:
        return self.graph.add_array(np.asarray(values, np.float32), "decode_numbers")

    def cast(self, name: str, kind: int) -> str:
        return self("Cast", [name], to=kind)

    def floats(self, name: str) -> str:
        return name if self.graph.dtype(name) == TensorProto.FLOAT else self.cast(name, TensorProto.FLOAT)

    def best(self, scores: str, count: int, axis: int = 1) -> tuple[str, str]:
        """The highest scores N x count, descending, and where they were."""
        values, places = self.several("TopK", [scores, self.ints(count)], 2, axis=axis, largest=1, sorted=1)
        return values, places

    def rows_at(self, table: str, places: str, width: int) -> str:
        """N x rows x width at places N x k -> N x k x width."""
        index = self("Expand", [self("Unsqueeze", [places, self.ints(2)]), self.ints(1, 1, width)])
        return self("GatherElements", [table, index], axis=1)

    def columns_at(self, table: str, places: str, width: int) -> str:
        """N x width x rows at places N x k -> N x k x width."""
        index = self("Expand", [self("Unsqueeze", [places, self.ints(1)]), self.ints(1, width, 1)])
        return self("Transpose", [self("GatherElements", [table, index], axis=2)], perm=[0, 2, 1])

    def at(self, values: str, places: str) -> str:
        """N x rows at places N x k -> N x k."""
        return self("GatherElements", [values, places], axis=1)

    def slice(self, name: str, start: int, stop: int, axis: int) -> str:
        return self("Slice", [name, self.ints(start), self.ints(stop), self.ints(axis)])

    def divided(self, number: str, divisor: int) -> tuple[str, str]:
        """Quotient and rest of whole numbers that are held in floats, which exporters and compilers keep short."""
        by = self.number(float(divisor))
        quotient = self("Floor", [self("Div", [number, by])])
        return quotient, self("Sub", [number, self("Mul", [quotient, by])])


# ---- rows


def _rows(nodes: _Nodes, rows: Rows, limits: Limits, height: int, width: int) -> tuple[str, str, str]:
    scores = _scores(nodes, rows)
    first = rows.scores.first
    count = rows.class_count or 1
    wanted = limits.candidates if rows.suppress else limits.detections
    pairs = rows.rows * (count if rows.pick == "each" and not rows.labels else 1)
    k = min(wanted, pairs, MOST_CANDIDATES)
    if rows.labels or rows.scores.flat:
        best, places = nodes.best(_column(nodes, scores, rows.scores), k)
        labels = _column(nodes, _part(nodes, rows.labels), rows.labels)
        classes = nodes.cast(nodes.at(labels, places), TensorProto.INT64)
    elif rows.pick == "best":
        highest = nodes("ReduceMax", [scores, nodes.ints(1 if first else 2)], keepdims=0)
        best, places = nodes.best(highest, k)
        at = nodes.columns_at if first else nodes.rows_at
        classes = nodes("ArgMax", [at(scores, places, count)], axis=2, keepdims=0)
    else:
        best, flat = nodes.best(nodes("Reshape", [scores, nodes.ints(0, -1)]), k)
        number = nodes.cast(flat, TensorProto.FLOAT)
        quotient, rest = nodes.divided(number, rows.rows if first else count)
        row, label = (rest, quotient) if first else (quotient, rest)
        places, classes = nodes.cast(row, TensorProto.INT64), nodes.cast(label, TensorProto.INT64)
    if rows.activation == "sigmoid" and not rows.objectness:
        best = nodes("Sigmoid", [best])
    table = _part(nodes, rows.boxes)
    chosen = (nodes.columns_at if rows.boxes.first else nodes.rows_at)(table, places, 4)
    boxes = _corners(nodes, chosen, rows, height, width)
    if rows.suppress:
        boxes, best, classes = _suppressed(nodes, boxes, best, classes, k, limits)
    return boxes, best, classes


def _scores(nodes: _Nodes, rows: Rows) -> str:
    """Scores of all classes; sigmoids are left for those that are chosen, unless objectness is to be multiplied in."""
    axis = 1 if rows.scores.first else 2
    scores = _part(nodes, rows.scores)
    if rows.activation == "softmax":
        scores = nodes("Softmax", [scores], axis=axis)
    if rows.objectness:
        objectness = _part(nodes, rows.objectness)
        if rows.activation == "sigmoid":
            scores, objectness = nodes("Sigmoid", [scores]), nodes("Sigmoid", [objectness])
        scores = nodes("Mul", [scores, objectness])
    if rows.background is not None:
        width, place = rows.scores.width, rows.background
        kept = (1, width) if place == 0 else (0, width - 1)
        scores = nodes.slice(scores, *kept, axis)
    return scores


def _part(nodes: _Nodes, part: Part | None) -> str:
    assert part is not None
    name = nodes.floats(part.tensor)
    shape = nodes.graph.shape(part.tensor) or ()
    axis = 1 if part.first else 2
    whole = part.flat or (len(shape) == 3 and shape[axis] == part.width)
    return name if whole else nodes.slice(name, part.start, part.stop, axis)


def _column(nodes: _Nodes, name: str, part: Part | None) -> str:
    """N x rows of a part that is one feature wide."""
    assert part is not None
    return name if part.flat else nodes("Squeeze", [name, nodes.ints(1 if part.first else 2)])


def _corners(nodes: _Nodes, boxes: str, rows: Rows, height: int, width: int) -> str:
    """N x k x 4 -> xyxy in pixels of the input."""
    if rows.coordinates == "centre":
        middle, size = nodes.several("Split", [boxes, nodes.ints(2, 2)], 2, axis=2)
        half = nodes("Mul", [size, nodes.number(0.5)])
        boxes = nodes("Concat", [nodes("Sub", [middle, half]), nodes("Add", [middle, half])], axis=2)
    if rows.unit == "fraction":
        boxes = nodes("Mul", [boxes, nodes.numbers([[[width, height, width, height]]])])
    return boxes


def _suppressed(
    nodes: _Nodes, boxes: str, scores: str, classes: str, count: int, limits: Limits
) -> tuple[str, str, str]:
    """Greedy suppression within classes, without a loop: see `irforge.train.ops.nms.greedy_nms`, whose form this is.

    Kept boxes solve keep = 1 - max over higher scores of (overlaps * keep), whose solution is unique; it is iterated
    from "all kept". Chains of more than `ROUNDS` boxes that decide over each other may leave a box too many.
    """
    x0, y0, x1, y1 = nodes.several("Split", [boxes, nodes.ints(1, 1, 1, 1)], 4, axis=2)
    zero = nodes.number(0.0)

    def shared(low: str, high: str) -> str:
        ends = [nodes("Transpose", [side], perm=[0, 2, 1]) for side in (low, high)]
        span = nodes("Sub", [nodes("Min", [high, ends[1]]), nodes("Max", [low, ends[0]])])
        return nodes("Max", [span, zero])

    both = nodes("Mul", [shared(x0, x1), shared(y0, y1)])
    sides = [nodes("Max", [nodes("Sub", [high, low]), zero]) for low, high in ((x0, x1), (y0, y1))]
    area = nodes("Mul", sides)
    union = nodes("Sub", [nodes("Add", [area, nodes("Transpose", [area], perm=[0, 2, 1])]), both])
    iou = nodes("Div", [both, nodes("Max", [union, nodes.number(float(np.finfo(np.float32).tiny))])])
    overlap = nodes.cast(nodes("Greater", [iou, nodes.number(limits.iou)]), TensorProto.FLOAT)
    label = nodes("Unsqueeze", [nodes.cast(classes, TensorProto.FLOAT), nodes.ints(2)])
    same = nodes.cast(nodes("Equal", [label, nodes("Transpose", [label], perm=[0, 2, 1])]), TensorProto.FLOAT)
    # Row i suppresses column j only if it comes before it, and so scores higher.
    before = nodes.numbers(np.triu(np.ones((count, count), np.float32), 1)[None])
    overlap = nodes("Mul", [nodes("Mul", [overlap, same]), before])
    one, axis = nodes.number(1.0), nodes.ints(1)
    keep = nodes("Sub", [one, nodes("ReduceMax", [overlap, axis], keepdims=0)])
    for _ in range(ROUNDS - 1):
        kept = nodes("Mul", [overlap, nodes("Unsqueeze", [keep, nodes.ints(2)])])
        keep = nodes("Sub", [one, nodes("ReduceMax", [kept, axis], keepdims=0)])
    scores, order = nodes.best(nodes("Mul", [scores, keep]), min(limits.detections, count))
    return nodes.rows_at(boxes, order, 4), scores, nodes.at(classes, order)


# ---- maps


def _peaks(nodes: _Nodes, peaks: Peaks, limits: Limits) -> tuple[str, str, str]:
    heat = nodes.floats(peaks.heat)
    height, width = peaks.cells
    cells = height * width
    around = nodes("MaxPool", [heat], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    nothing = nodes.number(NOTHING if peaks.activation == "sigmoid" else 0.0)
    heights = nodes("Where", [nodes("Equal", [heat, around]), heat, nothing])
    k = min(limits.detections, cells * peaks.count, MOST_CANDIDATES)
    best, flat = nodes.best(nodes("Reshape", [heights, nodes.ints(0, -1)]), k)
    label, cell = nodes.divided(nodes.cast(flat, TensorProto.FLOAT), cells)
    row, column = nodes.divided(cell, width)
    place = nodes.cast(cell, TensorProto.INT64)
    corner = nodes("Concat", [nodes("Unsqueeze", [side, nodes.ints(2)]) for side in (column, row)], axis=2)
    size, *offset = (
        nodes.columns_at(nodes("Reshape", [nodes.floats(name), nodes.ints(0, 2, -1)]), place, 2)
        for name in (peaks.size, peaks.offset)
        if name
    )
    centre = nodes("Add", [corner, offset[0]]) if offset else corner
    half = nodes("Mul", [size, nodes.number(0.5)])
    boxes = nodes("Concat", [nodes("Sub", [centre, half]), nodes("Add", [centre, half])], axis=2)
    boxes = nodes("Mul", [boxes, nodes.number(float(peaks.stride))])
    scores = nodes("Sigmoid", [best]) if peaks.activation == "sigmoid" else best
    return boxes, scores, nodes.cast(label, TensorProto.INT64)


def _plane(nodes: _Nodes, plane: Plane, height: int, width: int) -> str:
    x = nodes.floats(plane.tensor)
    if plane.cells != (height, width):
        scale = height / plane.cells[0]
        scales = nodes.numbers([1, 1, scale, scale])
        x = nodes("Resize", [x, "", scales], mode="linear", coordinate_transformation_mode="half_pixel")
    if plane.activation == "softmax":
        x = nodes("Softmax", [x], axis=1)
    if plane.activation == "sigmoid":
        x = nodes("Sigmoid", [x])
    if plane.channels == 1:
        return x
    if len(plane.foreground) == 1:
        (place,) = plane.foreground
        return nodes.slice(x, place, place + 1, 1)
    chosen = nodes("Gather", [x, nodes.ints(*plane.foreground)], axis=1)
    return nodes("ReduceSum" if plane.exclusive else "ReduceMax", [chosen, nodes.ints(1)], keepdims=1)


# ---- inside a stranger's head


def expectations_as_sums(graph: Graph) -> int:
    """Write a 1x1 convolution to one channel behind a softmax as product and sum: the expectation of a distribution.

    So decodes the head of Generalized Focal Loss (Li et al., 2020), in YOLOv8 and later. As a convolution it would be
    cast to FP16 or INT8 with the rest; as arithmetic it counts as decode, and stays in FP32.

    Returns:
        Number of convolutions rewritten.
    """
    rewritten = 0
    for conv in graph.of_type("Conv"):
        weight = graph.array(conv.input[1])
        if weight is None or weight.shape[0] != 1 or weight.shape[2:] != (1, 1) or any(conv.input[2:]):
            continue
        maker = graph.producer(conv.input[0])
        while maker is not None and is_op(maker, "Transpose", "Reshape"):
            maker = graph.producer(maker.input[0])
        plain = not any(attribute(conv, "pads", [])) and set(attribute(conv, "strides", [1])) == {1}
        if maker is None or not is_op(maker, "Softmax") or not plain:
            continue
        product = graph.add("Mul", [conv.input[0], graph.add_array(weight, "distribution")], "weighted")
        axes = graph.add_array(np.array([1], np.int64), "channel_axis")
        graph.replace(conv, graph.add("ReduceSum", [product, axes], "expectation", keepdims=1))
        rewritten += 1
    return rewritten
