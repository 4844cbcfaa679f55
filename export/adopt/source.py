"""A stranger's ONNX file, loaded safely and brought to the form that the rest works on; what cannot be is refused here.

Afterwards the model has one image input of known size, opset 18 to 20, only standard operators and FP32 weights.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, inliner, numpy_helper, version_converter

from irforge.artifact import check_model, load_model, strip_annotations, subgraphs
from irforge.errors import ExportError, UsageError
from irforge.graph import STANDARD_DOMAINS, Graph, Shape, is_op

OLDEST_OPSET, OPSETS, MAX_IR_VERSION = 11, (18, 20), 10
ULTRALYTICS = "Ultralytics"

_DOORS: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.UINT8: "uint8"}


@dataclass(frozen=True)
class Source:
    """A stranger's model and what its file says of itself.

    model: see the module. opset: as found in the file. door: dtype of its input, `float32` or `uint8`. outputs: name
    -> shape, in the file's order. classes: names from its metadata, if there are. levels: what its own first nodes do
    to a pixel, see `_own_scaling`.
    """

    path: Path
    model: ModelProto
    opset: int
    input: str
    door: str
    channels_last: bool
    channels: int
    height: int
    width: int
    outputs: dict[str, Shape]
    metadata: dict[str, str]
    classes: tuple[str, ...]
    levels: str

    @property
    def framework(self) -> str:
        return ULTRALYTICS if self.metadata.get("author") == ULTRALYTICS else ""

    @property
    def title(self) -> str:
        """What the file calls itself: the part of Ultralytics' description that names the network, else its stem."""
        words = self.metadata.get("description", "").split()
        return words[1] if self.framework and len(words) > 1 else self.path.stem


def load_source(path: Path, size: tuple[int, int] | None = None) -> Source:
    """Load and normalise a stranger's model.

    Args:
        size: (height, width), for a model that leaves them free; its batch then becomes 1, so that shapes are known.

    Raises:
        ArtifactError: the file, or its external data, is damaged, unsafe or missing; or it has a contract already.
        ExportError: plugins, an opset that cannot be converted, FP16 or quantised weights, or no image input.
        UsageError: a size is needed, or the graph has another one.
    """
    model = load_model(path, check=False)
    _refuse_plugins(model, path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    check_model(model, str(path), shapes=False)
    opset = Graph(model).opset
    model = _at_opset(model, opset, path)
    _refuse_other_types(model, path)
    value, kind = _image_input(model, path)
    sides = _sides(value)
    last = sides[1] not in (1, 3) and sides[3] in (1, 3)
    channels, height, width = (sides[3], sides[1], sides[2]) if last else sides[1:]
    if channels not in (1, 3):
        raise ExportError(
            f"input '{value.name}' of '{path}' has shape {_text(sides)}, and frames have 1 or 3 channels",
            "Export the detector with 1 or 3 input channels",
        )
    height, width = _fixed(value, path, last, (height, width), size)
    del model.graph.value_info[:]
    strip_annotations(model)
    _constants_to_initializers(model)
    graph = Graph(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Source(
        path=path,
        model=model,
        opset=opset,
        input=value.name,
        door=_DOORS[kind],
        channels_last=last,
        channels=channels,
        height=height,
        width=width,
        outputs={name: graph.shape(name) or () for name in graph.outputs},
        metadata=metadata,
        classes=_class_names(metadata.get("names", "")),
        levels="levels" if kind == TensorProto.UINT8 else _own_scaling(graph, value.name),
    )


def _refuse_plugins(model: ModelProto, path: Path) -> None:
    bodies = {(function.domain, function.name) for function in model.functions}
    graphs = [model.graph, *subgraphs(model.graph.node)]
    for node in (node for graph in graphs for node in graph.node):
        standard = node.domain in STANDARD_DOMAINS
        if (node.domain, node.op_type) in bodies or (standard and onnx.defs.has(node.op_type)):
            continue
        name = node.op_type if standard else f"{node.domain}::{node.op_type}"
        if "NMS" in node.op_type.upper():
            mend = "Export without NMS; 'irforge adopt' adds one that needs no plugin"
        elif node.domain == "com.microsoft":
            mend = "Take the file from before ONNX Runtime optimised it"
        else:
            mend = "Export with standard operators, or with the operator's function body in the file"
        raise ExportError(f"'{path}' needs the plugin operator {name}, which this file does not define", mend)
    selects = next((node for node in model.graph.node if is_op(node, "NonMaxSuppression")), None)
    if selects is not None:
        raise ExportError(
            f"'{path}' selects boxes by NonMaxSuppression, whose result has no fixed size, which TensorRT cannot hold",
            "Export without NMS (Ultralytics: nms=False); 'irforge adopt' adds one of a fixed size",
        )


def _at_opset(model: ModelProto, opset: int, path: Path) -> ModelProto:
    oldest, newest = OPSETS
    mend = f"Export it again with opset {newest}"
    if opset < OLDEST_OPSET:
        raise ExportError(f"'{path}' has opset {opset}, and opsets before {OLDEST_OPSET} are not read", mend)
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    if not oldest <= opset <= newest:
        target = oldest if opset < oldest else newest
        try:
            model = version_converter.convert_version(model, target)
        except Exception as error:  # noqa: BLE001 - the converter's C++ side raises plain RuntimeError and others
            cause = str(error).strip().splitlines()[-1][:200]
            raise ExportError(f"'{path}' has opset {opset} and cannot be brought to {target}: {cause}", mend) from None
        model.ir_version = max(8, min(model.ir_version, MAX_IR_VERSION))
    return model


def _refuse_other_types(model: ModelProto, path: Path) -> None:
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise ExportError(f"'{path}' is quantised already", "Give the FP32 export; 'irforge quantize' comes after")
    if any(tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16) for tensor in model.graph.initializer):
        raise ExportError(f"'{path}' is in half precision", "Give the FP32 export; 'irforge half' comes after")


def _image_input(model: ModelProto, path: Path) -> tuple[ValueInfoProto, int]:
    weights = {tensor.name for tensor in model.graph.initializer}
    found = [value for value in model.graph.input if value.name not in weights]
    images = [value for value in found if len(value.type.tensor_type.shape.dim) == 4]
    others = [value.name for value in found if value not in images]
    if len(images) != 1 or others:
        takes = ", ".join(f"'{value.name}' {_text(_sides(value))}" for value in found) or "nothing"
        mend = (
            "Export the network alone, without its postprocessing" if others else "Export one image input N x C x H x W"
        )
        raise ExportError(f"'{path}' takes {takes}; a deployable takes frames and nothing else", mend)
    kind = images[0].type.tensor_type.elem_type
    if kind not in _DOORS:
        name = TensorProto.DataType.Name(kind).lower()
        raise ExportError(f"input '{images[0].name}' of '{path}' is {name}", "Export it with a float32 input")
    return images[0], kind


def _fixed(
    value: ValueInfoProto,
    path: Path,
    last: bool,
    sides: tuple[int | str | None, int | str | None],
    size: tuple[int, int] | None,
) -> tuple[int, int]:
    """The input's size; where the graph leaves it free, it is written into the graph."""
    height, width = sides
    dims = value.type.tensor_type.shape.dim
    if isinstance(height, int) and isinstance(width, int):
        if size not in (None, (height, width)):
            raise UsageError(f"'{path}' is fixed at {height}x{width}", "Leave out --size, or export it at another size")
        if not isinstance(_side(dims[0]), int):
            dims[0].dim_param = "N"
        return height, width
    if size is None:
        raise UsageError(
            f"input '{value.name}' of '{path}' leaves its size free: {_text(_sides(value))}",
            "Choose one with --size HxW (--size 512x640 for a 640x512 camera)",
        )
    for position, side in zip((0, *((1, 2) if last else (2, 3))), (1, *size), strict=True):
        dims[position].dim_value = side
    return size


def _constants_to_initializers(model: ModelProto) -> None:
    """In one sweep: folding them one by one takes minutes in a transformer's export."""
    graph = Graph(model)
    rest = []
    for node in graph.nodes:
        value = graph.array(node.output[0]) if is_op(node, "Constant") and node.output[0] not in graph.outputs else None
        if value is None:
            rest.append(node)
        else:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), node.output[0]))
    # Copies: clearing the list would take the nodes with it.
    copies = [NodeProto.FromString(node.SerializeToString()) for node in rest]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _own_scaling(graph: Graph, name: str) -> str:
    """How pixels must come in, as the graph's own first nodes show: `levels` (0..255), `unit` (0..1), '' (unknown).

    A mean or divisor beyond 8 bits is one of raw counts, whose depth the graph does not tell.
    """
    before = ("Cast", "Transpose", "Identity", "Sub", "Add", "Mul", "Div", "Slice", "Gather")
    node = graph.sole_consumer(name)
    while node is not None and is_op(node, *before):
        constants = [array for part in node.input if (array := graph.array(part)) is not None]
        if is_op(node, "Sub", "Div", "Mul") and constants and constants[0].dtype.kind == "f":
            value = float(abs(constants[0]).max())
            level = value if node.op_type != "Mul" else 1 / value if value else 0.0
            if level > 10:
                return "levels" if level < 2**8 + 1 else ""
            if node.op_type == "Sub" and 0 < value < 1:
                return "unit"
        node = graph.sole_consumer(node.output[0])
    return ""


def _class_names(text: str) -> tuple[str, ...]:
    """Ultralytics' metadata: "{0: 'bird', 1: 'drone'}"."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        return tuple(str(names[number]) for number in range(len(names)))
    return ()


def origin(graph: Graph, name: str) -> str:
    """The operator that makes a tensor's values, behind those that only move them; '' for what several make."""
    moves = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Identity", "Flatten", "Cast", "Gather")
    node = graph.producer(name)
    while node is not None and is_op(node, *moves):
        node = graph.producer(node.input[0])
    return node.op_type if node is not None else ""


def _sides(value: ValueInfoProto) -> Shape:
    return tuple(_side(dim) for dim in value.type.tensor_type.shape.dim)


def _side(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or None


def _text(shape: Shape) -> str:
    return " x ".join("?" if side is None else str(side) for side in shape) or "scalar"
