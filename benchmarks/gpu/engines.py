"""Builds engines on this GPU, holds them against ONNX Runtime on the CPU, and times them with and without CUDA graphs.

Limits are on the largest difference of a probability: they catch a wrong engine, not a rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.steps import Run
from irforge.errors import CheckFailed, EnvironmentFault, IrforgeError

if TYPE_CHECKING:
    from irforge.runtime.custom_ops import Life

# TF32 has a 10-bit mantissa, as FP16 has; INT8 is held against the same INT8 graph on the CPU.
LIMITS = {"fp32": 0.02, "fp16": 0.05, "int8": 0.2}
FRAMES = 8
ROUNDS, FRAMES_A_ROUND = 20, 25
# What a model on a backend takes at least, a build included.
LEAST_SECONDS = 20


def run(run: Run) -> None:
    backends = gpu_backends(run, ("pydantic", "typer", "onnx", "onnxruntime", "cv2"))
    from irforge.demo import shipped_weights

    models = run.models or export(run.checkpoint or shipped_weights(), run.out)
    find_libraries(run)
    for path in models:
        for backend in backends:
            for model, life in forms(path, backend, run):
                if run.has_time(f"{model.name} on {backend}", LEAST_SECONDS):
                    result = check(model, backend, run.out, life)
                    run.add("results", result)
                    print(f"  {model.name} on {backend}: {result['failure'] or _clock(result)}", flush=True)


def forms(model: Path, backend: str, run: Run) -> Iterator[tuple[Path, Life]]:
    """The model as it is, and with its gates by native operators where the backend takes them: judged side by side."""
    from irforge.export.fuse import fuse_model
    from irforge.runtime.custom_ops import native_library

    yield model, "body"
    if backend == "tensorrt_rtx":
        return
    fused = run.out / model.name.replace(".onnx", ".fused.onnx")
    try:
        native_library("tensorrt" if backend == "tensorrt" else "onnxruntime")
        if not fused.exists():
            fuse_model(model, fused)
    except IrforgeError as error:
        run.skip(f"{model.name} with native operators on {backend}: {error.line}")
        return
    yield fused, "plugin"


def find_libraries(run: Run) -> None:
    """Native operators come from what the build step made, unless a user's own are named."""
    os.environ.setdefault("IRFORGE_PLUGINS", str(run.build / "lib"))


def gpu_backends(run: Run, packages: tuple[str, ...]) -> list[str]:
    """The backends that this machine has, TensorRT first.

    Raises:
        EnvironmentFault: there is none, or one of the Python `packages` is missing.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise EnvironmentFault(
            f"no Python package {', '.join(missing)} here", "benchmarks/gpu/bundle.sh brings what training lacks"
        )
    import onnxruntime

    from irforge.runtime.compilers.targets import without_rtx

    found = []
    if find_spec("tensorrt"):
        found.append("tensorrt")
    if find_spec("tensorrt_rtx") or find_spec("tensorrt_rtx_bindings"):
        if generation := without_rtx(run.report.gpu["compute_capability"]):
            run.skip(f"TensorRT-RTX: it does not run on {generation}")
        else:
            found.append("tensorrt_rtx")
    providers: list[str] = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" in providers:
        found.append("onnxruntime-cuda")
    if not found:
        raise EnvironmentFault(
            "no GPU backend is installed", "pip install 'irforge[gpu,tensorrt]' or 'irforge[gpu,rtx]'"
        )
    return found


def export(checkpoint: Path, out: Path) -> list[Path]:
    """FP32, FP16 and INT8 at both sizes, the largest and fastest first."""
    from irforge.demo import HEADLINE, SMALL, deployables

    made = {size: deployables(checkpoint, size, out) for size in (SMALL, HEADLINE)}
    return [path for size in (HEADLINE, SMALL) for path in reversed(made[size])]


def check(model: Path, backend: str, out: Path, custom_ops: Life = "body") -> dict[str, Any]:
    from irforge.artifact import read_contract
    from irforge.files import sha256_of_file

    contract = read_contract(model)
    result: dict[str, Any] = {
        "model": model.name,
        "sha256": sha256_of_file(model),
        "precision": contract.provenance.precision,
        "height_width": list(contract.input.size),
        "backend": backend,
        "custom_ops": custom_ops,
        "failure": "",
    }
    try:
        result |= _build(model, backend, out, custom_ops)
        result |= _parity(model, Path(result["file"]), backend, contract.provenance.precision, custom_ops)
        result["latency"] = _latency(Path(result["file"]), backend, contract, custom_ops)
    except IrforgeError as error:
        result["failure"] = error.line
    return result


def _build(model: Path, backend: str, out: Path, custom_ops: Life) -> dict[str, Any]:
    from irforge.runtime.engines import BuildOptions, build_engine

    if backend.startswith("onnxruntime"):
        return {"file": str(model)}
    suffix = ".engine" if backend == "tensorrt" else ".rtx.engine"
    engine = out / model.name.replace(".onnx", suffix)
    # One cache for all: precisions and sizes share tactics, and a second run of this script builds in seconds.
    cache = out / "timing.cache" if backend == "tensorrt" else None
    sidecar = build_engine(model, engine, BuildOptions(timing_cache=cache, custom_ops=custom_ops))
    return {
        "file": str(engine),
        "build_seconds": sidecar.build_seconds,
        "engine_bytes": sidecar.engine_bytes,
        "proofs": [proof.model_dump(mode="json") for proof in sidecar.proofs],
        "proof_unavailable": sidecar.proof_unavailable,
    }


def _parity(model: Path, file: Path, backend: str, precision: str, custom_ops: Life) -> dict[str, Any]:
    import numpy as np

    from irforge.artifact import read_contract
    from irforge.frames import prepare
    from irforge.runtime.backends import open_session

    contract = read_contract(model)
    threshold = contract.output.score_threshold
    largest, changed, pixels = 0.0, 0, 0
    session = open_session(file, backend, custom_ops=custom_ops)
    with open_session(model, "onnxruntime-cpu") as reference, session:
        for frame in _frames():
            feeds = {contract.input.name: prepare(frame, contract.input)[0]}
            expected, given = reference.run(feeds), session.run(feeds)
            for name in expected:
                values, results = expected[name].astype(np.float32), given[name].astype(np.float32)
                if not np.isfinite(results).all():
                    raise CheckFailed(f"output '{name}' holds NaN or infinity")
                largest = max(largest, float(np.abs(results - values).max()))
                changed += int(((results > threshold) != (values > threshold)).sum())
                pixels += values.size
    if largest > LIMITS[precision]:
        raise CheckFailed(f"probabilities differ by up to {largest:.3g} from ONNX Runtime, limit {LIMITS[precision]}")
    return {"parity": {"frames": FRAMES, "max_difference": largest, "pixels_changed": changed, "pixels": pixels}}


def _latency(file: Path, backend: str, contract: Any, custom_ops: Life) -> dict[str, Any]:
    from irforge.runtime.backends import open_session
    from irforge.runtime.benchmark import Schedule, measure_latency
    from irforge.runtime.detector import SessionDetector

    schedule = Schedule(rounds=ROUNDS, frames_per_round=FRAMES_A_ROUND, warm_up=20)
    measured = {}
    for mode in ("cuda graph", "no graph") if file.suffix == ".engine" else ("no graph",):
        session = open_session(file, backend, cuda_graph=mode == "cuda graph", custom_ops=custom_ops)
        with SessionDetector(session, contract, file.name) as detector:
            latency = measure_latency({mode: detector}, _frames(), schedule, threads=1)[mode]
            measured[mode] = latency.model_dump(mode="json")
    return measured


def _frames() -> list[Any]:
    from irforge.frames import read_frame
    from irforge.samples import FRAMES as SAMPLES

    return [read_frame(path) for path in sorted((SAMPLES / "images").iterdir())[:FRAMES]]


def _clock(result: dict[str, Any]) -> str:
    latency = result["latency"]
    best = latency.get("cuda graph") or latency["no graph"]
    host = f"host to host {best['host']['p50']:.2f} ms"
    return f"GPU {best['gpu']['p50']:.2f} ms, {host}" if best.get("gpu") else host
