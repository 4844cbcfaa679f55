"""A deployable torch module to an ONNX model with its contract inside: export, exact rewrites, checks."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from onnx import ModelProto, TensorProto, helper
from torch import nn

from irforge import __version__
from irforge.artifact import check_model, embed_contract, strip_annotations
from irforge.contract import Contract, InputSpec, Letterbox, PadToMultiple, Range, Squash, TensorSpec
from irforge.errors import ExportError, UsageError
from irforge.export.passes import Target, run_passes
from irforge.export.translations import translations
from irforge.graph import infer_types
from irforge.lint import lint
from irforge.ops import add_bodies

OPSETS = (18, 19, 20)
"""What the exporter writes and TensorRT 10.3 (JetPack 6) reads."""
MAX_IR_VERSION = 10

FITS = ("squash", "letterbox", "pad-to-multiple")
SMALLEST_SIDE = 32
LARGEST_SIZE = (1024, 1280)

_DOORS = {"uint8": torch.uint8, "float32": torch.float32}


def contract_for(
    contract: Contract,
    stride: int,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    dynamic_size: bool = False,
    smallest: int = 1,
) -> Contract:
    """The contract of an export at another size than the detector was trained at.

    Args:
        contract: the checkpoint's.
        stride: sides must be multiples of it.
        size: (height, width); with `dynamic_size` the size that engines are tuned for. None keeps the contract's.
        fit: `squash`, `letterbox` or `pad-to-multiple`; None keeps the contract's at its own size, and means
            `pad-to-multiple` (nothing is resized) at another one.
        dynamic_size: any multiple of `stride` from 32 pixels to 1024 x 1280, or to `size` where that is larger.
        smallest: no side may be shorter.

    Raises:
        UsageError: a side is no multiple of `stride` or too short, or the fit does not go with a dynamic size.
    """
    if fit is not None and fit not in FITS:
        raise UsageError(f"there is no fit '{fit}'", f"Fits: {', '.join(FITS)}")
    if dynamic_size and fit not in (None, "pad-to-multiple"):
        raise UsageError(f"fit '{fit}' needs a fixed size", "Leave out --dynamic-size or --fit")
    height, width = size or contract.input.size
    if height % stride or width % stride or min(height, width) < max(stride, smallest):
        least = f", at least {smallest}" if smallest > stride else ""
        what = f"size {height}x{width} does not suit this detector"
        raise UsageError(what, f"Both sides: multiples of {stride}{least}")
    if size is None and fit is None and not dynamic_size:
        return contract
    kinds = {"squash": Squash(), "letterbox": Letterbox(), "pad-to-multiple": PadToMultiple(multiple=stride)}
    changes: dict[str, Any] = {"height": height, "width": width, "fit": kinds[fit or "pad-to-multiple"]}
    if dynamic_size:
        shortest = -(-max(SMALLEST_SIDE, smallest) // stride) * stride
        for name, tuned, largest in (("height", height, LARGEST_SIZE[0]), ("width", width, LARGEST_SIZE[1])):
            limit = max(tuned, largest // stride * stride)
            changes[name] = Range(min=min(shortest, tuned), opt=tuned, max=limit, multiple=stride)
    return contract.with_input(**changes)


def onnx_from_torch(
    deployable: nn.Module, contract: Contract, *, opset: int = 20, target: Target | None = "tensorrt"
) -> tuple[ModelProto, dict[str, int]]:
    """Export a deployable as its contract says, rewrite it exactly for a target, check it and embed the contract.

    Args:
        deployable: frames N x C x H x W of the contract's door dtype -> the contract's output tensors; in eval mode.
        contract: input size and door, output names. Its output shapes are replaced by the graph's.
        opset: one of `OPSETS`.
        target: None leaves what torch's exporter wrote, for comparisons.

    Returns:
        The model and how many rewrites each pass made.

    Raises:
        UsageError: an opset that is not written.
        ExportError: torch cannot export the module, or TensorRT would refuse the result.
    """
    _check_opset(opset)
    model = trace(deployable, contract, opset)
    _name_sides(model, contract)
    counts = finish(model, contract.provenance.detector, target)
    embed_contract(model, _with_output_shapes(contract, model))
    return model, counts


def onnx_from_part(
    part: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    name: str,
    *,
    free: tuple[dict[int, Any], ...] | None = None,
    opset: int = 20,
    target: Target = "tensorrt",
) -> tuple[ModelProto, dict[str, int]]:
    """Export a part of a detector, such as a neck, by itself and without a contract: to measure and compile it alone.

    Args:
        part: in eval mode; takes and gives tensors.
        inputs, outputs, free: see `trace_module`.
        name: the graph's.

    Returns:
        The model and how many rewrites each pass made.

    Raises:
        UsageError, ExportError: as `onnx_from_torch`.
    """
    _check_opset(opset)
    model = trace_module(part, inputs, outputs, free, opset, f"part '{name}'")
    return model, finish(model, name, target)


def finish(model: ModelProto, name: str, target: Target | None) -> dict[str, int]:
    """Rewrite what the exporter wrote for a target, name it, and hold it to ONNX's checker and to lint, in place.

    Returns:
        How many rewrites each pass made.

    Raises:
        ExportError: TensorRT would refuse the graph.
    """
    strip_annotations(model)
    del model.graph.value_info[:]
    counts = run_passes(model, target) if target is not None else {}
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    model.producer_name, model.producer_version = "irforge", __version__
    model.graph.name = name
    check_model(model, "the exported graph", shapes=True)
    errors = [finding for finding in lint(model) if finding.level == "error"]
    if errors:
        raise ExportError(f"TensorRT would refuse the graph at {errors[0].where}: {errors[0].what}", errors[0].mend)
    return counts


def _check_opset(opset: int) -> None:
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} is not written", f"Opsets: {', '.join(map(str, OPSETS))}")


def trace(deployable: nn.Module, contract: Contract, opset: int = 20) -> ModelProto:
    """What torch's exporter makes of a module, before any rewrite of ours; batch and, if so, sides are free.

    Raises:
        ExportError: the exporter gives up; the message says why.
    """
    spec = contract.input
    height, width = spec.size
    # Two frames: the exporter would take a batch of one for a constant.
    frames = torch.zeros(2, spec.channels, height, width, dtype=_DOORS[spec.door])
    shape: dict[int, Any] = {0: torch.export.Dim("N")}
    if isinstance(spec.height, Range) and isinstance(spec.width, Range):
        for axis, name, side in ((2, "h", spec.height), (3, "w", spec.width)):
            steps = torch.export.Dim(name, min=side.min // side.multiple, max=side.max // side.multiple)
            shape[axis] = side.multiple * steps
    outputs = [tensor.name for tensor in contract.output.tensors]
    what = f"detector '{contract.provenance.detector}'"
    return trace_module(deployable, {spec.name: frames}, outputs, (shape,), opset, what)


def trace_module(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    outputs: Sequence[str],
    free: tuple[dict[int, Any], ...] | None,
    opset: int,
    what: str,
) -> ModelProto:
    """What torch's exporter makes of any module, custom operators as nodes of their own with their bodies in the file.

    Args:
        inputs: example tensors by the names they get, in the order of `forward`.
        outputs: names of the outputs.
        free: for each input the sides that stay free, as torch.export wants them; None fixes all.
        what: what to call the module in errors.

    Raises:
        ExportError: the exporter gives up; the message says why.
    """
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                tuple(inputs.values()),
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=free,
                custom_translation_table=translations(),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        if isinstance(error.__cause__, ExportError):
            raise error.__cause__ from None
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportError(
            f"torch cannot export {what}: {cause}",
            "'--debug' shows where; control flow and shapes in forward() must not depend on pixel values",
        ) from error
    assert program is not None
    model: ModelProto = program.model_proto
    add_bodies(model)
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter reports on packages that are not needed, and torch on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_sides(model: ModelProto, contract: Contract) -> None:
    """Give free sides the contract's symbols in place of the exporter's expressions such as `16*h`."""
    spec = contract.input
    names: dict[str, str] = {}
    for value in model.graph.input:
        if value.name != spec.name:
            continue
        for side, symbol in zip(value.type.tensor_type.shape.dim, ("N", "C", "H", "W"), strict=True):
            if side.dim_param:
                names[side.dim_param] = symbol
    for value in (*model.graph.input, *model.graph.output):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in names:
                side.dim_param = names[side.dim_param]


def _with_output_shapes(contract: Contract, model: ModelProto) -> Contract:
    types = infer_types(model)
    tensors = []
    for spec in contract.output.tensors:
        kind, shape = types.get(spec.name, (TensorProto.UNDEFINED, ()))
        if kind == TensorProto.UNDEFINED:
            raise ExportError(f"the graph has no output '{spec.name}', which the contract names")
        dtype = helper.tensor_dtype_to_np_dtype(kind).name
        sides = [side if isinstance(side, int | str) else "?" for side in shape]
        fields = {name: getattr(spec, name) for name in TensorSpec.model_fields}
        tensors.append(TensorSpec(**fields | {"dtype": dtype, "shape": sides}))
    return contract.model_copy(update={"output": contract.output.model_copy(update={"tensors": tensors})})


def input_size(spec: InputSpec) -> str:
    """For people: `256 x 256`, or `32..1024 x 32..1280 (tuned for 512 x 640)`."""
    if isinstance(spec.height, Range) and isinstance(spec.width, Range):
        tuned = f"tuned for {spec.height.opt} x {spec.width.opt}, multiples of {spec.height.multiple}"
        return f"{spec.height.min}..{spec.height.max} x {spec.width.min}..{spec.width.max} ({tuned})"
    return f"{spec.height} x {spec.width}"
