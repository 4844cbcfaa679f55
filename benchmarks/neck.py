"""What NVIDIA's compiler makes of the GLMD neck: `python benchmarks/neck.py`. No GPU is needed.

The neck, with random weights, is exported by itself at the size of a res4 map of an 800 x 1216 frame and at a smaller
one, in FP32, FP16 and INT8 (ranges of two small random maps), with its two 3x3 convolutions apart and merged, and put
through the compile gate. TensorRT-RTX takes no plugin: for that form it compiles what is around the MutualGate, and the
gate's one kernel and its bytes are added. Kernels and bytes are of one map; TensorRT itself may choose others.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import run_command

if TYPE_CHECKING:
    from onnx import ModelProto

    from irforge.calib.ranges import TensorRange
    from irforge.runtime.plan import PlanReport
    from irforge.train.detectors.glmd.neck import GlmdNeck

    Shapes = dict[str, tuple[int, ...]]

SIZES = ((50, 76), (32, 40))
# Ranges are kept by tensor, and the tensors are the same at every size.
RANGES_SIZE = (12, 16)
PRECISIONS = ("fp32", "fp16", "int8")
TURING, OTHERS = ("7.5",), ("8.0", "8.6", "8.9", "12.0")
APART, MERGED, PLUGIN = "apart", "merged", "merged, plugin"
NAME = "features"


def random_neck(channels: int = 1024) -> GlmdNeck:
    """A neck in eval mode; its biases are random too, as a trained one's would be."""
    import torch

    from irforge.train.detectors.glmd.neck import GlmdNeck

    torch.manual_seed(0)
    neck = GlmdNeck(channels).eval()
    for name, parameter in neck.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return neck


def neck_onnx(neck: GlmdNeck, height: int, width: int, *, merged: bool = False) -> ModelProto:
    """The neck as an FP32 graph, N x C x `height` x `width` -> the same."""
    import torch

    from irforge.export.convert import onnx_from_part

    features = torch.rand(2, neck.global_conv.in_channels, height, width)
    free = ({0: torch.export.Dim("N")},)
    model, _ = onnx_from_part(neck, {NAME: features}, ["fused"], "glmd_neck", free=free)
    return merge(model) if merged else model


def merge(model: ModelProto) -> ModelProto:
    """A copy whose two 3x3 convolutions behind the gate are one."""
    from irforge.export.passes.gates import merge_gated_convolutions
    from irforge.graph import Graph

    copy = type(model)()
    copy.CopyFrom(model)
    graph = Graph(copy)
    merge_gated_convolutions(graph)
    graph.tidy()
    return copy


def fused(model: ModelProto) -> ModelProto:
    """The neck as `irforge fuse` rewrites it, in place."""
    from irforge.artifact import check_model
    from irforge.export.passes.gates import FOR_PLUGINS
    from irforge.graph import Graph

    graph = Graph(model)
    for rewrite in FOR_PLUGINS:
        rewrite(graph)
    graph.tidy()
    del model.graph.value_info[:]
    check_model(model, "the rewritten neck", shapes=True)
    return model


def cut_at_gate(model: ModelProto) -> tuple[Shapes, int]:
    """Take the MutualGate out of a fused neck, in place: what it reads become outputs, what it writes an input.

    Returns:
        The shapes of the inputs, and the bytes that the gate reads and writes.
    """
    from math import prod

    from onnx import helper

    from irforge.graph import infer_types
    from irforge.ops import MUTUAL_GATE, QUANTIZED_MUTUAL_GATE

    shapes: Shapes = {NAME: map_shape(model)}
    types = infer_types(model, shapes)
    (gate,) = (node for node in model.graph.node if node.op_type in (MUTUAL_GATE.name, QUANTIZED_MUTUAL_GATE.name))
    model.graph.node.remove(gate)
    values = {name: helper.make_tensor_value_info(name, *types[name]) for name in (*gate.input, *gate.output)}
    model.graph.output.extend(values[name] for name in gate.input)
    model.graph.input.extend(values[name] for name in gate.output)
    shapes |= {name: tuple(types[name][1]) for name in gate.output}
    moved = 0
    for name in values:
        kind, shape = types[name]
        moved += helper.tensor_dtype_to_np_dtype(kind).itemsize * prod(shape)
    return shapes, moved


def at_precision(model: ModelProto, precision: str, ranges: dict[str, TensorRange]) -> ModelProto:
    """A copy of the FP32 neck in another precision."""
    from irforge.calib.cast import cast_to_half
    from irforge.calib.floats import raise_opset
    from irforge.calib.islands import fp32_islands
    from irforge.calib.placement import place
    from irforge.calib.qdq import insert_qdq
    from irforge.graph import Graph

    copy = type(model)()
    copy.CopyFrom(model)
    if precision == "fp32":
        return copy
    raise_opset(copy, "the neck")
    islands = fp32_islands(copy, ranges)
    if precision == "int8":
        graph = Graph(copy)
        placement = place(graph, ranges, "minmax", sizes={NAME: map_shape(copy)})
        insert_qdq(graph, placement.convolutions, placement.points)
    cast_to_half(copy, islands)
    return copy


def map_shape(model: ModelProto) -> tuple[int, ...]:
    """The shape of one map, 1 x C x H x W."""
    (value,) = model.graph.input
    return 1, *(side.dim_value for side in value.type.tensor_type.shape.dim[1:])


def gate(
    model: ModelProto, targets: tuple[str, ...], shapes: Shapes | None = None
) -> tuple[PlanReport, dict[str, str]]:
    """The compiled plan of one map, or of inputs of these shapes, and why a target was skipped."""
    from irforge.artifact import save_model
    from irforge.runtime.parts import compile_part

    shapes = shapes or {NAME: map_shape(model)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "neck.onnx"
        save_model(path, model)
        return compile_part(path, {name: (shape, shape, shape) for name, shape in shapes.items()}, targets)


def on_turing(model: ModelProto) -> str:
    """'builds', or what the compiler says of SM 7.5."""
    from irforge.errors import BuildError

    try:
        gate(model, TURING)
    except BuildError as error:
        return error.what
    return "builds"


def ranges_of(model: ModelProto) -> dict[str, TensorRange]:
    """What each tensor does on two random maps of the model's size."""
    import numpy as np

    from irforge.calib.observe import Observer, Statistics, observe

    shape = map_shape(model)
    observer = Observer(model, shape)
    statistics: dict[str, Statistics] = {}
    rng = np.random.default_rng(0)
    for _ in range(2):
        # Behind a ReLU, as the backbone's maps are.
        features = np.maximum(rng.standard_normal(shape, np.float32), 0)
        observe(observer, features, "a random map", statistics)
        # A detector's own input are levels; a neck's is a feature map, which a convolution reads as such.
        statistics.setdefault(NAME, Statistics()).add(features)
    return {name: found.result(99.9999) for name, found in statistics.items()}


def neck(
    size: Annotated[list[str] | None, typer.Option(metavar="HxW", help="Of the map; default 50x76 and 32x40.")] = None,
) -> None:
    """Compile the GLMD neck in every precision and print kernels, bytes and what each target says."""
    from rich.console import Console
    from rich.table import Table

    from irforge.export.to_onnx import parse_size

    table = Table(
        "map", "3x3 convolutions", "precision", "kernels", "MB moved", "peak MB", "weighted layers read", "SM 7.5"
    )
    network = random_neck()
    for height, width in [parse_size(text) for text in size or ()] or SIZES:
        for form in (APART, MERGED, PLUGIN):
            merged = form != APART
            model = neck_onnx(network, height, width, merged=merged)
            ranges = ranges_of(neck_onnx(network, *RANGES_SIZE, merged=merged))
            for precision in PRECISIONS:
                cast = at_precision(model, precision, ranges)
                shapes, own, turing = None, 0, ""
                if form == PLUGIN:
                    shapes, own = cut_at_gate(fused(cast))
                else:
                    turing = on_turing(cast)
                report, _ = gate(cast, OTHERS, shapes)
                proof = report.proofs[0]
                moved = (proof.bytes_read or 0) + (proof.bytes_written or 0) + own
                table.add_row(
                    f"{height}x{width}",
                    form,
                    precision,
                    str(proof.kernels + (form == PLUGIN)),
                    f"{moved / 1e6:.1f}",
                    f"{(proof.peak_bytes or 0) / 1e6:.1f}",
                    proof.summary,
                    turing,
                )
    Console(width=150).print(table)


if __name__ == "__main__":
    run_command(neck)
