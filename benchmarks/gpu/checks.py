"""Every kernel against float64, through the C ABI; a margin around each output shows what was written beyond."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gpu.library import DTYPES, KernelLibrary, Op, from_layout
from benchmarks.gpu.ops import OPS
from benchmarks.gpu.records import KernelCheck, picked
from benchmarks.gpu.steps import Run
from irforge.errors import CheckFailed, EnvironmentFault

# Elements on either side of an output; a multiple of what any layout wants as alignment.
MARGIN = 64
# Bits of the fraction, and the exponent below which units no longer shrink.
_FORMATS = {"float32": (23, -126), "float16": (10, -14)}


def run(run: Run) -> None:
    library = built_library(run)
    for op in OPS:
        if not library.has(op.symbol):
            run.skip(f"the library has no {op.__name__}")
            continue
        for case in op.cases():
            if run.has_time(f"{op.__name__}, {case.variant}, {list(case.shape)}", 5):
                run.add("checks", check(case, library))
        made = picked(run.report.checks, op=op.__name__)
        passed = sum(not entry.failure for entry in made)
        print(f"  {op.__name__}: {passed} of {len(made)} problems agree with float64", flush=True)


def built_library(run: Run) -> KernelLibrary:
    path = run.build / "lib" / "libirforge_kernels.so"
    if not path.is_file():
        raise EnvironmentFault("the kernels were not built")
    if not torch.cuda.is_available():
        raise EnvironmentFault(f"torch {torch.__version__} sees no GPU here")
    return KernelLibrary(path, "cuda")


def check(case: Op, library: KernelLibrary) -> KernelCheck:
    """Compute one problem and compare; a refusal is a failure."""
    limit = tolerance(case.tolerance, case.output)
    worst, failure = None, ""
    try:
        generator = torch.Generator(device=library.device).manual_seed(0)
        inputs = case.inputs(generator)
        values = computed(case, library, inputs)
        worst = float(errors(values, case.reference(inputs), case.output).max())
        if not worst <= limit:
            failure = f"differs from float64 by {worst:.3g} units in the last place, limit {limit:.3g}"
    except (CheckFailed, RuntimeError) as error:
        failure = " ".join(str(error).split())[:300] or type(error).__name__
    name = type(case).__name__
    return KernelCheck(
        op=name, variant=case.variant, shape=list(case.shape), max_error=worst, limit=limit, failure=failure
    )


def computed(case: Op, library: KernelLibrary, inputs: list[Tensor]) -> Tensor:
    """Y, N x C x H x W, as the library computes it.

    Raises:
        CheckFailed: the library refuses the problem or fails, or it writes beyond Y.
    """
    if refusal := library.refusal(case.symbol, case.problem):
        raise CheckFailed(f"refused: {refusal}")
    batch, channels, height, width = case.output_shape
    count = batch * channels * height * width
    packed = [_moved(x, case.offset) for x in case.pack(inputs)]
    memory = torch.full((count + 2 * MARGIN,), 77, dtype=DTYPES[case.output], device=library.device)
    first = MARGIN + case.offset
    output = memory[first : first + count]
    case.bind(library, packed, output)()
    if library.on_gpu:
        torch.cuda.synchronize()
    if not (memory[:first] == 77).all() or not (memory[first + count :] == 77).all():
        raise CheckFailed("wrote outside its output")
    return from_layout(output, case.output_shape, case.layouts[1])


def errors(values: Tensor, reference: Tensor, kind: str) -> Tensor:
    """|values - reference| in units in the last place of `kind`; for int8 in steps, the reference saturated."""
    if kind == "int8":
        return (values.double() - reference.clamp(-128, 127)).abs()
    bits, least = _FORMATS[kind]
    # frexp gives zero the exponent of 0.5.
    exponent = (torch.frexp(reference).exponent - 1).masked_fill(reference == 0, least).clamp(min=least)
    unit = torch.exp2((exponent - bits).double())
    if kind == "float32":
        # A sigmoid below the least normal number may be zero, and what it gates is some 100 here.
        unit = unit.clamp(min=2.0 ** (least + 4))
    difference = (values.double() - reference).abs() / unit
    return difference.nan_to_num(nan=torch.inf)


def tolerance(float32_units: float, kind: str) -> float:
    """What an error of `float32_units` comes to after the rounding to `kind`, half a unit."""
    if kind == "float32":
        return float32_units
    # A unit of float32 is 2^-13 of float16's; at 128, the largest int8, it is 2^-16 of a step.
    return 0.5 + float32_units * (2.0**-13 if kind == "float16" else 2.0**-16)


def _moved(x: Tensor, offset: int) -> Tensor:
    memory = torch.empty(x.numel() + offset, dtype=x.dtype, device=x.device)
    memory[offset:] = x.flatten()
    return memory[offset:]
