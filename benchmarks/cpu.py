"""What export gains on a CPU, on one thread: `python benchmarks/cpu.py [CHECKPOINT] -o cpu.json`.

Forms of one detector take turns on the same frames: the plain three-channel network in eager torch (gray copied
to RGB and normalised outside), torch's own export of it on ONNX Runtime, and our FP32 graph on ONNX Runtime, as it is
for TensorRT and as it is for the CPU; and, where libirforge_ort.so is built (`make native`), with the gates by native
operators. Ratios are of times measured side by side; absolute times are the machine's.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import CheckFailed, InputError, run_command

if TYPE_CHECKING:
    from irforge.runtime.report.schema import Latency

PLAIN, EXPORTED, FOR_TENSORRT, FOR_CPU = "eager, three channels", "plain export", "ours", "ours, --for cpu"
NATIVE = "ours, native gates"
SIZES = ((256, 256), (512, 640))
REQUIRED_SPEED_UP, ALLOWED_OVERHEAD = 1.4, 0.10


def measure(checkpoint: Path, size: tuple[int, int], rounds: int, frames_per_round: int) -> dict[str, Latency]:
    """Latency of the forms at one size (height, width), on one thread, interleaved."""
    from onnx import ModelProto

    from irforge.artifact import embed_contract, read_contract, save_model
    from irforge.export.convert import contract_for, onnx_from_torch, trace
    from irforge.export.fuse import fuse_model
    from irforge.export.passes import run_passes
    from irforge.export.reference import PlainNetwork, TorchSession
    from irforge.export.verify import sample_frames
    from irforge.runtime.backends.ort import OrtSession
    from irforge.runtime.benchmark import Schedule, measure_latency
    from irforge.runtime.detector import SessionDetector
    from irforge.train.checkpoint import load_deployable

    deployable, trained = load_deployable(checkpoint)
    contract = contract_for(trained, deployable.stride, size)
    plain = trace(PlainNetwork(deployable, contract), contract)
    embed_contract(plain, contract)
    ours, _ = onnx_from_torch(deployable, contract)
    ours_cpu = ModelProto.FromString(ours.SerializeToString())
    run_passes(ours_cpu, "cpu")
    contract = read_contract(ours)
    frames = list(sample_frames(contract, *size)[:, 0])
    with tempfile.TemporaryDirectory() as folder:
        sessions: dict[str, Any] = {PLAIN: TorchSession(checkpoint, threads=1, plain=True, size=size)}
        for name, model in ((EXPORTED, plain), (FOR_TENSORRT, ours), (FOR_CPU, ours_cpu)):
            save_model(Path(folder) / "model.onnx", model)
            sessions[name] = OrtSession(Path(folder) / "model.onnx", threads=1)
        if has_native_operators():
            save_model(Path(folder) / "model.onnx", ours)
            fuse_model(Path(folder) / "model.onnx", Path(folder) / "fused.onnx")
            sessions[NATIVE] = OrtSession(Path(folder) / "fused.onnx", threads=1, custom_ops="plugin")
    detectors = {name: SessionDetector(session, contract, name) for name, session in sessions.items()}
    return measure_latency(detectors, frames, Schedule(rounds, frames_per_round), threads=1)


def has_native_operators() -> bool:
    """Whether the library of ONNX Runtime operators is built here."""
    from irforge.errors import EnvironmentFault
    from irforge.runtime.custom_ops import native_library

    try:
        return native_library("onnxruntime").is_file()
    except EnvironmentFault:
        return False


def speed_up(latencies: dict[str, Latency], name: str) -> float:
    """How many times faster a form is than the plain network: medians of the session's own time."""
    return latencies[PLAIN].host.p50 / latencies[name].host.p50


def overhead(latency: Latency) -> float:
    """What preparing a frame and finding targets adds to the session's time, as a share of it: medians."""
    return (latency.prepare.p50 + latency.decode.p50) / latency.host.p50


def print_table(results: dict[tuple[int, int], dict[str, Latency]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("size", "form", "median ms", "min ms", "speed-up (median)", "speed-up (min)", "frame to targets")
    for (height, width), latencies in results.items():
        for name, latency in latencies.items():
            fastest = latencies[PLAIN].host.min / latency.host.min
            table.add_row(
                f"{height} x {width}",
                name,
                f"{latency.host.p50:.1f}",
                f"{latency.host.min:.1f}",
                f"{speed_up(latencies, name):.2f}",
                f"{fastest:.2f}",
                f"+{100 * overhead(latency):.1f} %",
            )
    Console().print(table)


def benchmark(
    checkpoint: Annotated[Path | None, typer.Argument(help="Weights; default: those that ship.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the figures here, as JSON.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns that each form takes.")] = 15,
    frames: Annotated[int, typer.Option(help="Frames in a turn.")] = 2,
    check: Annotated[bool, typer.Option(help="Fail unless the promised ratios at 256 x 256 are reached.")] = False,
) -> None:
    """Time the plain network, its plain export and our graph on one thread."""
    # Before torch or OpenCV start their own threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    import cv2
    import torch

    from irforge.files import write_json
    from irforge.runtime.machine import environment

    if checkpoint is None:
        from irforge.samples import FRAMES

        checkpoint = FRAMES.parent / "mshnet.safetensors"
    if not checkpoint.is_file():
        raise InputError(f"there are no weights '{checkpoint}'", "Name a checkpoint")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    machine = environment(threads=1)
    results = {size: measure(checkpoint, size, rounds, frames) for size in SIZES}
    print_table(results)
    if output is not None:
        sizes = {
            f"{height}x{width}": {
                name: {
                    "speed_up": speed_up(latencies, name),
                    "overhead": overhead(latency),
                    "latency": latency.model_dump(),
                }
                for name, latency in latencies.items()
            }
            for (height, width), latencies in results.items()
        }
        write_json(output, {"checkpoint": checkpoint.name, "environment": machine.model_dump(), "sizes": sizes})
    at_256 = results[SIZES[0]]
    if check and speed_up(at_256, FOR_CPU) < REQUIRED_SPEED_UP:
        raise CheckFailed(
            f"our graph is {speed_up(at_256, FOR_CPU):.2f}x the plain network, promised {REQUIRED_SPEED_UP}x"
        )
    if check and overhead(at_256[FOR_CPU]) > ALLOWED_OVERHEAD:
        raise CheckFailed(f"frame to targets adds {100 * overhead(at_256[FOR_CPU]):.1f} %, promised at most 10 %")


if __name__ == "__main__":
    run_command(benchmark)
