"""The ops against torch eager and torch.compile, and against what a device-to-device copy of this GPU reaches.

Inputs and outputs of the large problems take turns over more than three L2 caches. Problems at batch 1 that the cache
holds are timed with what it holds, as a network's next layer would find it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.gpu.checks import built_library
from benchmarks.gpu.library import DTYPES, KernelLibrary, Op
from benchmarks.gpu.ops import ChannelGate, MutualGate, SpatialGate
from benchmarks.gpu.records import Copy, GateTiming, Report, Target, picked
from benchmarks.gpu.steps import Run
from benchmarks.gpu.timing import (
    Pass,
    as_cuda_graph,
    bandwidth,
    batch_past_cache,
    sets_past_cache,
    time_passes,
)
from irforge.errors import IrforgeError

KERNEL, EAGER, COMPILED = "kernel", "eager", "torch.compile"
SHARE, SPEED_UP = 0.85, 2.3
# Of an 800 x 1216 frame, at stride 16.
MAP = (1024, 50, 76)
# MSHNet's scales for a frame of 256 x 256.
SCALES = ((16, 256, 256), (32, 128, 128), (64, 64, 64), (128, 32, 32), (256, 16, 16))
# Channels of an MSHNet stage over those of its channel gate's perceptron.
SQUEEZE = 16
# Seconds that a first compilation may take, and one more.
FIRST_COMPILATION, COMPILATION = 45, 15
# Calls in a pass over one set that stays in the cache.
WARM_CALLS = 20


@dataclass(frozen=True)
class Setting:
    """A problem and how it is timed: over sets that leave the cache or in it, replayed as a graph or launched."""

    problem: Op
    past_cache: bool
    cuda_graph: bool


def run(run: Run) -> None:
    library = built_library(run)
    l2_bytes = cache_bytes()
    run.report.l2_bytes = l2_bytes
    batch = batch_past_cache(replace(HEADLINE, shape=(1, *MAP)).set_bytes, l2_bytes)
    for moved in (replace(HEADLINE, shape=(batch, *MAP)).set_bytes, 1 << 30):
        copy = time_copy(moved, l2_bytes)
        run.add("copies", copy)
        print(f"  copy, {moved / 1e6:.0f} MB read and written: {copy.gb_per_s:.0f} GB/s", flush=True)
    _time_all(run, library, batch, (KERNEL, EAGER))
    for target in targets(run.report):
        run.add("targets", target)
    # Compilations take the most time, and all else stands without them.
    _time_all(run, library, batch, (COMPILED,))


def _time_all(run: Run, library: KernelLibrary, batch: int, forms: tuple[str, ...]) -> None:
    seconds = {KERNEL: 5, EAGER: 5, COMPILED: FIRST_COMPILATION}
    for setting in settings(batch):
        for form in forms if library.has(setting.problem.symbol) else ():
            if run.has_time(f"{type(setting.problem).__name__} {setting.problem.variant} as {form}", seconds[form]):
                timing = time_form(setting, form, library, run.report.l2_bytes or 0)
                run.add("gates", timing)
                _show(timing)
                seconds[COMPILED] = COMPILATION


HEADLINE = MutualGate((1, *MAP))


def settings(batch: int) -> Iterator[Setting]:
    """What is timed, the promised figures first."""
    shape = (batch, *MAP)
    yield Setting(MutualGate(shape), True, False)
    yield Setting(MutualGate((1, *MAP)), True, False)
    yield Setting(MutualGate((1, *MAP)), True, True)
    yield Setting(MutualGate(shape, output="int8"), True, False)
    yield Setting(MutualGate(shape, layouts=("hwc8", "hwc8")), True, False)
    yield Setting(MutualGate(shape, output="int8", layouts=("hwc8", "chw32")), True, False)
    yield Setting(MutualGate(shape, "float32", "float32"), True, False)
    for layout in ("linear", "hwc8"):
        for scale in SCALES:
            yield Setting(SpatialGate((1, *scale), layout=layout), False, True)
            yield Setting(ChannelGate((1, *scale), layout=layout, hidden=scale[0] // SQUEEZE), False, True)


def cache_bytes() -> int:
    """The L2 cache of the GPU; where torch does not tell, as large as any GPU's yet."""
    return int(getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0)) or 128 << 20


def time_copy(bytes_moved: int, l2_bytes: int) -> Copy:
    """Copies between buffers that take turns; `bytes_moved` are read or written by one copy."""
    sets = sets_past_cache(bytes_moved, l2_bytes)
    pairs = [[torch.empty(bytes_moved // 2, dtype=torch.uint8, device="cuda") for _ in range(2)] for _ in range(sets)]

    def one_pass() -> None:
        for to, source in pairs:
            to.copy_(source)

    times = time_passes(one_pass, sets)
    return Copy(bytes_moved=bytes_moved, times=times, gb_per_s=bandwidth(bytes_moved, times.p50))


def time_form(setting: Setting, form: str, library: KernelLibrary, l2_bytes: int) -> GateTiming:
    """One form of one problem; what cannot be timed is recorded with the reason."""
    problem = setting.problem
    sets = sets_past_cache(problem.set_bytes, l2_bytes) if setting.past_cache else 1
    rounds = 1 if setting.past_cache else WARM_CALLS
    timing = GateTiming(
        op=type(problem).__name__,
        variant=problem.variant,
        shape=list(problem.shape),
        form=form,
        cuda_graph=setting.cuda_graph,
        sets=sets,
        set_bytes=problem.set_bytes,
    )
    try:
        launches = _launches(problem, form, library, sets)

        def one_pass() -> None:
            for _ in range(rounds):
                for launch in launches:
                    launch()

        times = time_passes(as_cuda_graph(one_pass) if setting.cuda_graph else one_pass, sets * rounds)
    except (IrforgeError, RuntimeError) as error:
        return replace(timing, failure=" ".join(str(error).split())[:300] or type(error).__name__)
    return replace(timing, times=times, gb_per_s=bandwidth(problem.set_bytes, times.p50))


def _launches(problem: Op, form: str, library: KernelLibrary, sets: int) -> list[Pass]:
    generator = torch.Generator(device="cuda").manual_seed(0)
    function = problem.eager
    if form == COMPILED:
        # All problems of an op share one method, and a method is compiled anew only so many times.
        torch.compiler.reset()
        function = torch.compile(function, dynamic=False, fullgraph=True)
    return [_launch(problem, form, library, function, problem.inputs(generator)) for _ in range(sets)]


def _launch(
    problem: Op, form: str, library: KernelLibrary, function: Callable[..., Tensor], inputs: list[Tensor]
) -> Pass:
    if form == KERNEL:
        shape, dtype = problem.output_shape, DTYPES[problem.output]
        return problem.bind(library, problem.pack(inputs), torch.empty(shape, dtype=dtype, device="cuda"))
    if problem.layouts[0] != "linear":
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
    # Kept until the set's next turn, so that no set writes where another one just did.
    kept: list[Tensor] = []

    def launch() -> None:
        kept[:] = [function(*inputs)]

    return launch


def targets(report: Report) -> list[Target]:
    """The promises that these timings settle."""
    found = []
    headline = [gate for gate in picked(report.gates, op="MutualGate", variant=HEADLINE.variant) if gate.shape[0] > 1]
    times = {gate.form: gate for gate in headline if gate.times}
    if KERNEL in times and report.copies:
        share = times[KERNEL].gb_per_s / max(copy.gb_per_s for copy in report.copies)
        found.append(Target(name="MutualGate in FP16, share of the copy bandwidth", value=share, at_least=SHARE))
    if KERNEL in times and EAGER in times:
        gain = times[EAGER].times.p50 / times[KERNEL].times.p50
        found.append(Target(name="MutualGate in FP16, times as fast as eager torch", value=gain, at_least=SPEED_UP))
    return found


def _show(timing: GateTiming) -> None:
    where = f"  {timing.op} {timing.variant} {timing.shape}{', graph' if timing.cuda_graph else ''}, {timing.form}: "
    if timing.times is None:
        print(where + timing.failure, flush=True)
        return
    times = timing.times
    print(
        f"{where}{1e3 * times.p50:.1f} us ({1e3 * times.p10:.1f} to {1e3 * times.p90:.1f}), {timing.gb_per_s:.0f} GB/s",
        flush=True,
    )
