"""What export gains on a CPU, on one thread: `python benchmarks/cpu.py [CHECKPOINT] -o cpu.json`, or `--detector itd`.

Forms of one detector take turns on the same frames: the plain three-channel network in eager torch (gray copied
to RGB and normalised outside), torch's own export of it on ONNX Runtime, and our FP32 graph on ONNX Runtime, as it is
for TensorRT and as it is for the CPU; and, where libirforge_ort.so is built (`make native`), with the gates by native
operators. All of ITD's forms end with its boxes, and without a checkpoint its weights are random: that changes no time.
Ratios are of times measured side by side; absolute times are the machine's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irforge.errors import CheckFailed, InputError, UsageError, run_command

if TYPE_CHECKING:
    from irforge.export.passes import Target
    from irforge.runtime.report.schema import Latency

PLAIN, EXPORTED, FOR_TENSORRT, FOR_CPU = "eager, three channels", "plain export", "ours", "ours, --for cpu"
NATIVE = "ours, native gates"
TARGETS: dict[str, Target] = {FOR_TENSORRT: "tensorrt", FOR_CPU: "cpu"}
SIZES = ((256, 256), (512, 640))
REQUIRED_SPEED_UP = {"mshnet": 1.4, "itd": 1.5}
ALLOWED_OVERHEAD = 0.10


def measure(checkpoint: Path, size: tuple[int, int], rounds: int, frames_per_round: int) -> dict[str, Latency]:
    """Latency of the forms at one size (height, width), on one thread, interleaved."""
    from onnx import ModelProto

    from benchmarks.itd import EagerItdSession
    from irforge.artifact import embed_contract, save_model
    from irforge.export.convert import contract_for, finish, trace
    from irforge.export.fuse import fuse_model
    from irforge.export.reference import PlainNetwork, TorchSession
    from irforge.export.verify import sample_frames
    from irforge.runtime.backends.ort import OrtSession
    from irforge.runtime.benchmark import Schedule, measure_latency
    from irforge.runtime.detector import SessionDetector
    from irforge.train.checkpoint import load_deployable
    from irforge.train.detectors.itd.deploy import ItdDeployable
    from irforge.train.detectors.itd.reference import ItdReference

    deployable, trained = load_deployable(checkpoint)
    contract = contract_for(trained, deployable.stride, size)
    eager: Any
    if isinstance(deployable, ItdDeployable):
        eager = EagerItdSession(checkpoint, size)
        module = ItdReference(deployable)
    else:
        eager = TorchSession(checkpoint, threads=1, plain=True, size=size)
        module = PlainNetwork(deployable, contract)
    traced = trace(deployable, contract)
    models = {EXPORTED: trace(module, contract)}
    for name, target in TARGETS.items():
        models[name] = ModelProto.FromString(traced.SerializeToString())
        finish(models[name], trained.provenance.detector, target)
    frames = list(sample_frames(contract, *size)[:, 0])
    with tempfile.TemporaryDirectory() as folder:
        path, fused = Path(folder) / "model.onnx", Path(folder) / "fused.onnx"
        sessions: dict[str, Any] = {PLAIN: eager}
        for name, model in models.items():
            embed_contract(model, contract)
            save_model(path, model)
            sessions[name] = OrtSession(path, threads=1)
        if has_native_operators():
            save_model(path, models[FOR_TENSORRT])
            # A graph without gates has no form with native ones.
            with contextlib.suppress(UsageError):
                fuse_model(path, fused)
                sessions[NATIVE] = OrtSession(fused, threads=1, custom_ops="plugin")
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
    checkpoint: Annotated[Path | None, typer.Argument(help="Weights; default: the detector's.")] = None,
    detector: Annotated[str, typer.Option(help="Without CHECKPOINT: mshnet as it ships, or a random itd.")] = "mshnet",
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
    from irforge.train.checkpoint import read_contract

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    machine = environment(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        weights = checkpoint or _weights_of(detector, Path(folder))
        if not weights.is_file():
            raise InputError(f"there are no weights '{weights}'", "Name a checkpoint")
        detector = read_contract(weights).provenance.detector
        results = {size: measure(weights, size, rounds, frames) for size in SIZES}
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
        found = {"detector": detector, "checkpoint": weights.name, "environment": machine.model_dump(), "sizes": sizes}
        write_json(output, found)
    at_256, required = results[SIZES[0]], REQUIRED_SPEED_UP.get(detector, 1.0)
    if check and speed_up(at_256, FOR_CPU) < required:
        raise CheckFailed(f"our graph is {speed_up(at_256, FOR_CPU):.2f}x the plain network, promised {required}x")
    if check and overhead(at_256[FOR_CPU]) > ALLOWED_OVERHEAD:
        raise CheckFailed(f"frame to targets adds {100 * overhead(at_256[FOR_CPU]):.1f} %, promised at most 10 %")


def _weights_of(detector: str, folder: Path) -> Path:
    if detector == "itd":
        from benchmarks.itd import random_checkpoint

        return random_checkpoint(folder / "random-itd.safetensors")
    if detector != "mshnet":
        raise UsageError(f"there are no weights for '{detector}' here", "Name a checkpoint")
    from irforge.samples import FRAMES

    return FRAMES.parent / "mshnet.safetensors"


if __name__ == "__main__":
    run_command(benchmark)
