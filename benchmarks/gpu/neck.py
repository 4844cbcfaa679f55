"""The GLMD neck as exported, on ONNX Runtime with CUDA, TensorRT and TensorRT-RTX: built, held to torch, and timed.

A neck takes feature maps and has no contract, so its engines are opened by `irforge.runtime.parts`. Limits are on the
largest difference from torch as a share of its largest value: they catch a wrong engine, not a rounding.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from benchmarks.gpu.engines import find_libraries, gpu_backends
from benchmarks.gpu.records import PartTiming
from benchmarks.gpu.steps import Run
from irforge.errors import CheckFailed, IrforgeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from onnx import ModelProto

    from irforge.calib.ranges import TensorRange
    from irforge.runtime.custom_ops import Life
    from irforge.session import Session
    from irforge.train.detectors.glmd.neck import GlmdNeck

    Map = npt.NDArray[np.float32]

# TF32 has a 10-bit mantissa, as FP16 has.
LIMITS = {"fp32": 0.02, "fp16": 0.02, "int8": 0.1}
INPUT = "features"
HEADLINE, SMALL = (50, 76), (32, 40)
WARM_UP, CALLS, SECONDS = 20, 300, 2.0
# What a variant on a backend takes at least, a build included.
LEAST_SECONDS = 30

Form = Literal["body", "body, merged", "plugin"]


@dataclass(frozen=True)
class Variant:
    """A form of the neck: 'body' as exported, 'body, merged' with one convolution behind its gate in place of two,
    'plugin' as `irforge fuse` makes it, for native operators."""

    size: tuple[int, int]
    precision: str
    form: Form

    @property
    def custom_ops(self) -> Life:
        return "plugin" if self.form == "plugin" else "body"

    @property
    def name(self) -> str:
        return f"neck.{self.size[0]}x{self.size[1]}.{self.precision}.{self.form.replace(', ', '.')}"


# What matters most first: the time may not suffice for all.
VARIANTS = (
    *(Variant(HEADLINE, precision, form) for precision in ("fp16", "int8", "fp32") for form in ("body", "plugin")),
    *(Variant(HEADLINE, precision, "body, merged") for precision in ("fp16", "int8")),
    *(Variant(SMALL, precision, form) for precision in ("fp16", "int8", "fp32") for form in ("body", "plugin")),
)


def run(run: Run) -> None:
    if shutil.which("trtexec") and find_spec("tensorrt") is None:
        run.skip("the neck on TensorRT: trtexec is here, the Python package tensorrt is not")
    backends = gpu_backends(run, ("pydantic", "typer", "onnx", "onnxruntime", "onnxscript"))
    find_libraries(run)
    without_plugin = {backend: reason for backend in backends if (reason := lacks_plugin(backend))}
    for backend, reason in without_plugin.items():
        run.skip(f"the neck with native operators on {backend}: {reason}")
    necks = Necks()
    for variant in VARIANTS:
        for backend in backends:
            if variant.form == "plugin" and backend in without_plugin:
                continue
            if not run.has_time(f"{variant.name} on {backend} and what comes after it", LEAST_SECONDS):
                return
            timing = check(necks, variant, backend, run.build)
            run.add("parts", timing)
            print(f"  {variant.name} on {backend}: {timing.failure or _clock(timing)}", flush=True)


def lacks_plugin(backend: str) -> str:
    """Why a backend cannot run native operators here; empty where it can."""
    from irforge.runtime.custom_ops import native_library, require_cuda

    if backend == "tensorrt_rtx":
        return "TensorRT-RTX takes no plugins"
    try:
        library = native_library("tensorrt" if backend == "tensorrt" else "onnxruntime")
        if backend == "onnxruntime-cuda":
            require_cuda(library)
    except IrforgeError as error:
        return error.line
    return ""


class Necks:
    """One neck with random weights: its graphs, its inputs and what torch makes of them."""

    def __init__(self, channels: int = 1024) -> None:
        from benchmarks.neck import random_neck

        self.channels = channels
        self.network: GlmdNeck = random_neck(channels)
        self._graphs: dict[tuple[tuple[int, int], bool], ModelProto] = {}
        self._ranges: dict[bool, dict[str, TensorRange]] = {}
        self._latest: tuple[Variant, ModelProto] | None = None
        self._expected: dict[tuple[int, int], tuple[Map, Map]] = {}

    def graph(self, variant: Variant) -> ModelProto:
        """The variant's graph; not to be changed. The latest is kept, for the next backend."""
        if self._latest is None or self._latest[0] != variant:
            self._latest = variant, self._made(variant)
        return self._latest[1]

    def _made(self, variant: Variant) -> ModelProto:
        from benchmarks.neck import RANGES_SIZE, at_precision, fused, ranges_of

        merged = variant.form != "body"
        if merged not in self._ranges:
            self._ranges[merged] = ranges_of(self._fp32(RANGES_SIZE, merged))
        model = at_precision(self._fp32(variant.size, merged), variant.precision, self._ranges[merged])
        return fused(model) if variant.form == "plugin" else model

    def maps(self, size: tuple[int, int]) -> tuple[Map, Map]:
        """A random map behind a ReLU, as the backbone's are, and torch's result in FP32 on the CPU."""
        if size not in self._expected:
            import numpy as np
            import torch

            features = np.random.default_rng(1).standard_normal((1, self.channels, *size), np.float32)
            features = np.maximum(features, 0)
            with torch.inference_mode():
                self._expected[size] = features, self.network(torch.from_numpy(features)).numpy()
        return self._expected[size]

    def _fp32(self, size: tuple[int, int], merged: bool) -> ModelProto:
        from benchmarks.neck import merge, neck_onnx

        if (size, False) not in self._graphs:
            self._graphs[size, False] = neck_onnx(self.network, *size)
        if (size, merged) not in self._graphs:
            self._graphs[size, merged] = merge(self._graphs[size, False])
        return self._graphs[size, merged]


def check(necks: Necks, variant: Variant, backend: str, folder: Path) -> PartTiming:
    """Build a variant for a backend, hold it to torch, and time it; its files, 31 to 122 MB each, are removed again."""
    from irforge.artifact import save_model

    shape = [1, necks.channels, *variant.size]
    timing = PartTiming(part="GLMD neck", shape=shape, precision=variant.precision, form=variant.form, backend=backend)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{variant.name}.onnx"
    try:
        features, expected = necks.maps(variant.size)
        save_model(model, necks.graph(variant))
        timing, openers = build(model, timing, variant.custom_ops)
        for mode, opened in openers.items():
            with opened() as session:
                timing = compared(replace(timing, custom_ops=session.custom_ops), session, features, expected)
                timing.clocks[mode] = clocks(session, features)
    except IrforgeError as error:
        return replace(timing, failure=error.line)
    finally:
        for file in folder.glob(f"{variant.name}.*"):
            file.unlink()
    return timing


def build(model: Path, timing: PartTiming, custom_ops: Life) -> tuple[PartTiming, dict[str, Callable[[], Session]]]:
    """The timing with what a build told, and how to open the model in each mode."""
    from irforge.runtime.backends.ort import OrtSession
    from irforge.runtime.engines import BuildOptions
    from irforge.runtime.parts import build_part, open_part

    if timing.backend.startswith("onnxruntime"):
        provider: Literal["cpu", "cuda"] = "cuda" if timing.backend == "onnxruntime-cuda" else "cpu"
        return timing, {"no graph": partial(OrtSession, model, provider, custom_ops=custom_ops)}
    engine = model.with_suffix(".engine" if timing.backend == "tensorrt" else ".rtx.engine")
    cache = model.parent / "timing.cache" if timing.backend == "tensorrt" else None
    shape = tuple(timing.shape)
    options = BuildOptions(timing_cache=cache, custom_ops=custom_ops)
    record = build_part(model, engine, {INPUT: (shape, shape, shape)}, options)
    timing = replace(
        timing,
        build_seconds=record.build_seconds,
        engine_bytes=record.engine_bytes,
        proofs=[proof.model_dump(mode="json") for proof in record.proofs],
        proof_unavailable=record.proof_unavailable,
    )
    graphs = {"cuda graph": True, "no graph": False}
    return timing, {mode: partial(open_part, engine, record, cuda_graph=on) for mode, on in graphs.items()}


def compared(timing: PartTiming, session: Session, features: Map, expected: Map) -> PartTiming:
    """The timing with the largest difference of the sessions so far from torch.

    Raises:
        CheckFailed: the output is not finite.
    """
    import numpy as np

    (output,) = session.run({INPUT: features}).values()
    if not np.isfinite(output).all():
        raise CheckFailed("the output holds NaN or infinity")
    difference = max(timing.max_difference or 0.0, float(np.abs(output.astype(np.float32) - expected).max()))
    largest = float(np.abs(expected).max())
    limit = LIMITS[timing.precision] * largest
    failure = f"differs by up to {difference:.3g} from torch, limit {limit:.3g}" if difference > limit else ""
    return replace(timing, max_difference=difference, largest=largest, failure=failure)


def clocks(session: Session, features: Map) -> dict[str, dict[str, float]]:
    """Percentiles of the host's clock, and of the GPU's where the backend has it, after a warm-up."""
    from irforge.runtime.clocks import distribution

    out = session.run({INPUT: features})
    host: list[float] = []
    gpu: list[float] = []
    for call in range(-WARM_UP, CALLS):
        start = perf_counter()
        session.run({INPUT: features}, out)
        seconds = perf_counter() - start
        if call < 0:
            continue
        host.append(seconds)
        if session.last_timings is not None:
            gpu.append(session.last_timings.compute)
        if sum(host) > SECONDS:
            break
    times = {"host": host, **({"gpu": gpu} if gpu else {})}
    return {name: distribution(seconds).model_dump(mode="json") for name, seconds in times.items()}


def _clock(timing: PartTiming) -> str:
    return ", ".join(f"{name} {clock['p50']:.2f} ms" for name, clock in timing.best.items())
