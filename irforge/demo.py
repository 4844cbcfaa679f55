"""The main job on what ships with the package: `python -m irforge.demo --out out`.

Trained weights become FP32, FP16 and INT8 deployables at two sizes, each is compiled for five GPU generations, and all
are measured against the trained network, into a report. The INT8 one then follows a drone in a video. Every step is the
function behind the command of that name; a step whose inputs and code have not changed since the last time is not done
again.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import ArtifactError, EnvironmentFault, run_command
from irforge.files import sha256_of_file, sha256_of_json, write_json, write_text

if TYPE_CHECKING:
    from irforge.runtime.report.schema import Report

# A size for the published protocol, and a thermal camera's. (height, width)
SMALL, HEADLINE = (256, 256), (512, 640)
# One program serves all targets of a plan, and Turing has no int8 convolution: it gets a plan of its own.
GENERATIONS = {"": ("8.0", "8.6", "8.9", "12.0"), ".sm75": ("7.5",)}
STATE = ".demo.json"


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("out"),
    weights: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="Instead of the weights that come with the package.")
    ] = None,
) -> None:
    """From trained weights to compiled engines and a report of what each precision costs and gains."""
    from irforge.runtime.report.page import render
    from irforge.runtime.report.schema import read_report, write_report
    from irforge.runtime.report.table import print_report

    start = perf_counter()
    checkpoint = weights or shipped_weights()
    out.mkdir(parents=True, exist_ok=True)
    made = {size: deployables(checkpoint, size, out) for size in (SMALL, HEADLINE)}
    models = [*made[HEADLINE], *made[SMALL]]
    for model in models:
        engines(model, out)
    figures = out / "report.json"
    inputs = [checkpoint, *models, *sorted(out.glob("*.engine.json"))]
    once(out, "bench", inputs, [figures], lambda: write_report(measured(models, checkpoint), figures))
    report = read_report(figures)
    write_text(out / "report.html", render(report))
    int8 = out / f"{stem(SMALL)}.int8.onnx"
    overlay(int8, out / "overlay.png")
    print_report(report)
    clip(int8, out / "clip.mp4")
    page, video = out / "report.html", out / "clip.mp4"
    typer.echo(f"\n{page} (the same as JSON: {figures}), {video}, {perf_counter() - start:.0f} s")


def shipped_weights() -> Path:
    """The checkpoint in `irforge/samples`.

    Raises:
        ArtifactError: this copy of the package came without it.
    """
    from irforge.samples import FRAMES

    path = FRAMES.parent / "mshnet.safetensors"
    if not path.is_file():
        raise ArtifactError(f"'{path}' is missing", "Give --weights CHECKPOINT, or install the package again")
    return path


def stem(size: tuple[int, int]) -> str:
    """`mshnet` at the size it was trained for, `mshnet.640x512` (width x height, as cameras are sold) at another."""
    return "mshnet" if size == SMALL else f"mshnet.{size[1]}x{size[0]}"


def deployables(checkpoint: Path, size: tuple[int, int], out: Path) -> list[Path]:
    """Export, calibrate, and convert: the FP32, FP16 and INT8 files of one size; `SMALL` first.

    What INT8 costs is measured at the small size. The large one leaves the same convolutions in FP16.
    """
    from irforge.calib.collect import collect_ranges
    from irforge.calib.costs import save_costs
    from irforge.calib.half import half_model
    from irforge.calib.quantize import quantize_model
    from irforge.calib.ranges import save_ranges
    from irforge.calib.sensitivity import measure_sensitivity
    from irforge.export.to_onnx import export_checkpoint
    from irforge.samples import FRAMES

    name = stem(size)
    fp32, fp16, int8 = (out / f"{name}{precision}.onnx" for precision in ("", ".fp16", ".int8"))
    ranges = out / f"{name}.ranges.json"
    frames = [*sorted((FRAMES / "images").iterdir()), FRAMES / "calib.txt"]
    # The larger size takes five times as long a frame.
    limit = None if size == SMALL else 4
    once(
        out,
        "export",
        [checkpoint],
        [fp32],
        # A camera of the headline size fills it, and so must the frames: padding would change what pooling sees.
        lambda: export_checkpoint(checkpoint, fp32, size=None if size == SMALL else size, fit="squash"),
    )
    once(
        out,
        "calibrate",
        [fp32, *frames],
        [ranges],
        lambda: save_ranges(ranges, collect_ranges(fp32, f"{FRAMES}:calib", limit=limit)),
    )
    once(out, "half", [fp32, ranges], [fp16], lambda: half_model(fp32, fp16, ranges_path=ranges))
    if size == SMALL:
        costs = out / f"{name}.costs.json"
        once(
            out,
            "sensitivity",
            [fp32, ranges, *frames],
            [costs],
            lambda: save_costs(costs, measure_sensitivity(fp32, f"{FRAMES}:calib", ranges)),
        )
        once(
            out,
            "quantize",
            [fp32, ranges, costs],
            [int8],
            lambda: quantize_model(fp32, int8, ranges, costs_path=costs),
        )
    else:
        small = out / f"{stem(SMALL)}.int8.onnx"
        once(
            out,
            "quantize",
            [fp32, ranges, small],
            [int8],
            lambda: quantize_model(fp32, int8, ranges, keep=costly(small)),
        )
    return [fp32, fp16, int8]


def costly(model: Path) -> list[str]:
    """The weights of the convolutions that an INT8 file left in FP16 for what they would have cost."""
    from irforge.artifact import read_contract

    steps = [step for step in read_contract(model).provenance.history if step["tool"] == "quantize"]
    return [kept["weight"] for kept in steps[-1]["kept"] if "crossed" in kept]


def engines(model: Path, out: Path) -> None:
    """Compile a deployable ahead of time for five GPU generations, and with TensorRT for this machine's GPU."""
    from importlib.util import find_spec

    from irforge.runtime.backends.device import gpus
    from irforge.runtime.engines import BuildOptions, build_engine

    name = model.name.removesuffix(".onnx")
    if find_spec("tensorrt_rtx_bindings") or find_spec("tensorrt_rtx"):
        for kind, targets in GENERATIONS.items():
            engine = out / f"{name}{kind}.rtx.engine"
            files = [engine, Path(f"{engine}.json")]
            options = BuildOptions(targets=targets)
            once(out, "build", [model], files, lambda e=engine, o=options: build_engine(model, e, o))  # type: ignore[misc]
    else:
        typer.echo(f"build       {name}: skipped, TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    if gpus() and find_spec("tensorrt"):
        engine = out / f"{name}.engine"
        files = [engine, Path(f"{engine}.json")]
        once(out, "build", [model], files, lambda: build_engine(model, engine, BuildOptions()))


def measured(models: Sequence[Path], checkpoint: Path) -> Report:
    """Bench the files of both sizes on the frames that come with the package, enlarged for the larger one.

    The smaller size carries accuracy; the larger one, at five times the work a frame, parity and the headline clocks.
    """
    from irforge.bench import bench_models
    from irforge.runtime.benchmark import Schedule
    from irforge.runtime.measure import Plan

    def plan(size: tuple[int, int]) -> Plan:
        return Plan(Schedule(10, 1, 1)) if size == SMALL else Plan(Schedule(5, 1, 1), frames=4)

    command = shlex.join(["python", "-m", "irforge.demo", *sys.argv[1:]])
    return bench_models(models, plan=plan, reference=checkpoint, command=command)


def overlay(model: Path, picture: Path) -> None:
    """What the detector answers on the first six test frames, marked, in one picture."""
    import cv2
    import numpy as np

    from irforge.bench import sample_frames
    from irforge.files import replacing
    from irforge.runtime.detector import load
    from irforge.runtime.drawing import draw

    with load(model, threads=1) as detector:
        frames = [sample.frame() for sample in sample_frames().samples[:6]]
        tiles = [draw(frame, detector(frame)) for frame in frames]
    rows = [np.hstack(tiles[first : first + 3]) for first in (0, 3)]
    with replacing(picture) as temporary:
        cv2.imwrite(str(temporary), np.vstack(rows))


def clip(model: Path, video: Path) -> None:
    """A drone in five seconds of the thermal video that ships with the package, marked and followed.

    Without the tracker's packages it is marked only.
    """
    from irforge.runtime.run import run
    from irforge.runtime.tracking import tracking_packages
    from irforge.samples import CLIP

    try:
        tracking_packages()
        followed = True
    except EnvironmentFault as missing:
        typer.echo(f"clip        without tracks: {missing}")
        followed = False
    once(
        video.parent,
        "clip" if followed else "clip, no tracks",
        [model, CLIP],
        [video],
        lambda: run(model, [str(CLIP)], overlay=video, limit=150, threads=1, track=followed),
    )


def once(out: Path, step: str, inputs: Sequence[Path], outputs: Sequence[Path], action: Callable[[], object]) -> None:
    """Do a step unless its outputs are those that it made of the same inputs with the same code."""
    state_file = out / STATE
    state = _state(state_file)
    name = f"{step} {outputs[0].name}"
    key = sha256_of_json([name, code_hash(), [sha256_of_file(path) for path in inputs]])
    line = f"{step:<11} {outputs[0]}"
    if state.get(name) == [key, *(sha256_of_file(path) if path.is_file() else "" for path in outputs)]:
        typer.echo(f"{line}, up to date")
        return
    start = perf_counter()
    action()
    state[name] = [key, *(sha256_of_file(path) for path in outputs)]
    write_json(state_file, state)
    typer.echo(f"{line}, {perf_counter() - start:.1f} s")


@cache
def code_hash() -> str:
    """A hash of the package's own code and of the packages that outputs depend on."""
    from irforge.runtime.machine import package_versions

    root = Path(__file__).parent
    stages = [root, *(root / stage for stage in ("train", "export", "calib", "runtime"))]
    files = sorted({path.resolve() for stage in stages for path in stage.rglob("*.py")})
    return sha256_of_json([package_versions(), [sha256_of_file(path) for path in files]])


def _state(path: Path) -> dict[str, list[str]]:
    try:
        state: dict[str, list[str]] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


if __name__ == "__main__":
    run_command(demo)
