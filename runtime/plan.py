"""Reads a compiled TensorRT-RTX plan: what every kernel computes in, and what a frame costs in memory and traffic.

The format is undocumented, so the version is pinned, and whatever does not read as expected makes the report
unavailable, with the reason, instead of wrong.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from irforge.runtime.program import (
    TYPE_BYTES,
    Operation,
    Program,
    Tensor,
    UnknownProgramError,
    parse_program,
    program_texts,
    resolve_sizes,
)
from irforge.runtime.proof import ConvolutionGroup, PrecisionProof

KNOWN_VERSION = "1.7.1"
_TYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "bf16": "bf16", "int8": "int8", "uint8": "uint8"}
_NO_LAUNCH = {"signal", "wait", "shape_call", "assert"}
_CONVOLUTIONS = {"corrltn", "deconvolution"}
_MATRIX_PRODUCT = "fully_connected"


@dataclass(frozen=True)
class Kernel:
    """One launch: its kind, the ONNX nodes it stands for, types as 'fp32', 'fp16', 'int8', and its traffic in bytes.

    `weights` and `macs` are set for convolutions and matrix products with weights. None where sizes are free and no
    shapes were given.
    """

    kind: str
    layers: tuple[str, ...]
    reads: str
    writes: str
    weights: str | None
    macs: int | None
    bytes_read: int | None
    bytes_written: int | None


@dataclass(frozen=True)
class PlanReport:
    """What a plan says about itself: one proof and one kernel list for each group of GPUs that share a program."""

    proofs: tuple[PrecisionProof, ...]
    kernels: tuple[tuple[Kernel, ...], ...]
    reason: str = ""

    @classmethod
    def unavailable(cls, reason: str) -> PlanReport:
        return cls((), (), reason)

    @property
    def available(self) -> bool:
        return bool(self.proofs)

    def for_target(self, compute_capability: str) -> PrecisionProof | None:
        """The proof for one GPU, such as '8.9'; None if the plan was not built for it."""
        return next((p for p in self.proofs if compute_capability in p.compute_capabilities), None)


def read_plan(
    source: str | os.PathLike[str] | bytes, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> PlanReport:
    """Read a TensorRT-RTX plan; never raises for what the plan holds, see `PlanReport.reason`.

    Args:
        source: a `*.rtx.engine` file or its content.
        shapes: shape by name of input, for plans whose sizes are free; figures in bytes and MACs hold for them.

    Raises:
        OSError: the file cannot be read.
    """
    plan = source if isinstance(source, bytes) else Path(source).read_bytes()
    version = plan_version(plan)
    if version is None:
        return PlanReport.unavailable("this is no TensorRT-RTX plan")
    if not version.startswith(f"{KNOWN_VERSION}."):
        return PlanReport.unavailable(f"the reader knows plans of TensorRT-RTX {KNOWN_VERSION}, this one is {version}")
    try:
        programs = [parse_program(text) for text in program_texts(plan)]
        groups: dict[tuple[str, ...], list[Program]] = defaultdict(list)
        for program in programs:
            if not program.is_fused_kernel:
                groups[program.accelerators].append(program)
        if not groups:
            return PlanReport.unavailable("the plan holds no program text")
        fused = [program for program in programs if program.is_fused_kernel]
        reports = [_report(group, fused, dict(shapes or {}), version) for group in groups.values()]
    except UnknownProgramError as error:
        return PlanReport.unavailable(f"the plan's program text is not as known: {error}")
    return PlanReport(tuple(proof for proof, _ in reports), tuple(kernels for _, kernels in reports))


def plan_version(plan: bytes) -> str | None:
    """The TensorRT-RTX version that wrote a plan, such as '1.7.1.116'; None if it is no plan."""
    if plan[:4] != b"vtrt" or len(plan) < 32:
        return None
    return ".".join(str(part) for part in plan[24:28])


def _report(
    programs: list[Program], fused: list[Program], shapes: dict[str, tuple[int, ...]], version: str
) -> tuple[PrecisionProof, tuple[Kernel, ...]]:
    kernels: list[Kernel] = []
    constants: dict[str, int] = defaultdict(int)
    input_shapes: dict[str, list[int]] = {}
    for program in programs:
        sizes = resolve_sizes(program, shapes)
        kernels += [
            _kernel(program, operation, fused, sizes) for operation in program.body if _launches(program, operation)
        ]
        for kind, size in _constant_bytes(program).items():
            constants[kind] += size
        for name in program.inputs:
            tensor = program.tensors.get(name)
            dims = _dims(tensor, sizes) if tensor else None
            # Free sizes arrive as inputs of their own, which no user knows of.
            if dims is not None and "_shapeInput" not in name:
                input_shapes[name.removesuffix(".1")] = list(dims)
    groups: dict[tuple[str, str, str], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        if kernel.weights is not None:
            groups[kernel.reads, kernel.weights, kernel.writes].append(kernel)
    proof = PrecisionProof(
        source="plan text",
        tool=f"TensorRT-RTX {version}",
        compute_capabilities=[_capability(name) for name in programs[0].accelerators],
        shapes=input_shapes,
        tf32=any(program.tf32 for program in programs),
        kernels=len(kernels),
        convolutions=[
            ConvolutionGroup(reads=r, weights=w, writes=o, count=len(group), macs=total(k.macs for k in group) or 0)
            for (r, w, o), group in sorted(groups.items())
        ],
        constant_bytes=dict(sorted(constants.items())),
        bytes_read=total(kernel.bytes_read for kernel in kernels),
        bytes_written=total(kernel.bytes_written for kernel in kernels),
        peak_bytes=sum(r.size for program in programs for r in program.regions.values() if r.arena),
        scratch_bytes=max((_size(t, {}) or 0 for p in programs for t in p.tensors.values() if t.scratch), default=0),
    )
    return proof, tuple(kernels)


def _launches(program: Program, operation: Operation) -> bool:
    if operation.kind in _NO_LAUNCH:
        return False
    places = [program.regions.get(program.tensors[n].region) for n in operation.outputs if n in program.tensors]
    return not places or any(region is None or not region.host for region in places)


def _kernel(program: Program, operation: Operation, fused: list[Program], sizes: dict[str, int]) -> Kernel:
    read = [program.tensors[name] for name in dict.fromkeys(operation.inputs) if _on_device(program, name)]
    written = [program.tensors[name] for name in dict.fromkeys(operation.outputs) if _on_device(program, name)]
    reads = _type(read[0]) if read else ""
    weights = macs = None
    for inside, step in _steps(program, operation, fused):
        if step.kind in _CONVOLUTIONS:
            data, kernel = (inside.tensors[name] for name in step.inputs[:2])
            weights, reads = _type(kernel), _type(data)
            macs = _macs(step, kernel, data, inside.tensors[step.outputs[0]], sizes)
        elif step.kind == _MATRIX_PRODUCT and (found := _weighted(program, step)):
            data, kernel = (inside.tensors[name] for name in found)
            weights, reads = _type(kernel), _type(data)
            macs = _product_macs(step, inside, sizes)
    return Kernel(
        kind=operation.kind,
        layers=operation.layers,
        reads=reads,
        writes=_type(written[0]) if written else "",
        weights=weights,
        macs=macs,
        bytes_read=total(_size(tensor, sizes) for tensor in read),
        bytes_written=total(_size(tensor, sizes) for tensor in written),
    )


def _weighted(program: Program, product: Operation) -> tuple[str, str] | None:
    """(data, weights) of a matrix product with weights, in whichever order; None for a product of two activations.

    Asked of the program that launches the kernel: a fused kernel's own text does not say which operands are constant.
    """
    left, right = product.inputs[:2]
    for data, weights in ((left, right), (right, left)):
        if weights in program.tensors and program.tensors[weights].payload:
            return data, weights
    return None


def _product_macs(product: Operation, inside: Program, sizes: dict[str, int]) -> int | None:
    left, written = _dims(inside.tensors[product.inputs[0]], sizes), _dims(inside.tensors[product.outputs[0]], sizes)
    if left is None or written is None:
        return None
    return math.prod(written) * left[-2 if product.fields.get("trA") == "true" else -1]


def _steps(program: Program, operation: Operation, fused: list[Program]) -> list[tuple[Program, Operation]]:
    """The operation itself, or the steps of the fused kernel that it launches, found by their ONNX nodes."""
    if not operation.kind.startswith("runtime_"):
        return [(program, operation)]
    for inside in fused:
        names = {name for step in inside.body for name in step.layers}
        if names and names <= set(operation.layers):
            return [(inside, step) for step in inside.body]
    raise UnknownProgramError(f"the fused kernel '{operation.name}' has no program")


def _macs(step: Operation, weights: Tensor, read: Tensor, written: Tensor, sizes: dict[str, int]) -> int | None:
    # Weights are K x C/groups x kernel for a convolution and C x K/groups x kernel for a transposed one: each element
    # of the side that is not reduced over meets all but the first of these dimensions.
    dims = _dims(read if step.kind == "deconvolution" else written, sizes)
    taps = _dims(weights, sizes)
    return None if dims is None or taps is None else math.prod(dims) * math.prod(taps[1:])


def _on_device(program: Program, name: str) -> bool:
    tensor = program.tensors.get(name)
    if tensor is None:
        return False
    region = program.regions.get(tensor.region)
    return region is None or not region.host


def _constant_bytes(program: Program) -> dict[str, int]:
    sizes: dict[tuple[str, int], Tensor] = {}
    for tensor in program.tensors.values():
        if tensor.payload:
            sizes.setdefault((tensor.region, tensor.offset), tensor)
    total: dict[str, int] = defaultdict(int)
    for tensor in sizes.values():
        total[_type(tensor)] += tensor.payload
    return total


def _dims(tensor: Tensor, sizes: dict[str, int]) -> tuple[int, ...] | None:
    dims = [d if isinstance(d, int) else sizes.get(d) for d in tensor.dims]
    return None if None in dims else tuple(d for d in dims if d is not None)


def _size(tensor: Tensor, sizes: dict[str, int]) -> int | None:
    dims = _dims(tensor, sizes)
    return None if dims is None else math.prod(dims) * TYPE_BYTES[tensor.type]


def _type(tensor: Tensor) -> str:
    return _TYPES.get(tensor.type, tensor.type)


def total(values: Iterable[int | None]) -> int | None:
    """The sum, or None if one of the values is not known."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _capability(accelerator: str) -> str:
    digits = accelerator.removeprefix("sm")
    return f"{digits[:-1]}.{digits[-1]}" if digits.isdigit() else accelerator
