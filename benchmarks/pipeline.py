"""What the pipeline costs beside the bare session: `python benchmarks/pipeline.py mshnet.onnx --clip clip.mp4`.

Three loops take turns on the same clip: the bare session on tensors prepared beforehand; one call of the detector after
another on frames read beforehand; and `irforge run`'s pipeline, which reads, prepares, infers, decodes and hands out.
Each has its frames a second as a share of the bare session's, and the processor's seconds a frame: what a loop adds
there is work, what it adds in time alone is waiting. Then a camera is played that gives the same frames at 70 % of the
bare session's rate: the age of a detection when the pipeline hands it out, beside the time of one call of the detector.

`--ultralytics FOLDER` puts Ultralytics' `predict` loop beside it, on the same clip, on an ONNX model of similar cost
(an untrained YOLOv8m at 320x256), as a share of the bare session of that model. It is installed into FOLDER, an
environment of its own, and is no dependency of anything here; its licence is AGPL-3.0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irforge.errors import CheckFailed, EnvironmentFault, run_command

if TYPE_CHECKING:
    from irforge.frames import Frame
    from irforge.runtime.detector import SessionDetector

ALLOWED_LOSS = 0.05
ALLOWED_DELAY = 0.10
CAMERA_SHARE = 0.7
YOLO = "yolov8m"

_THEIRS = f"""
import json, sys, time
from pathlib import Path
import numpy as np, onnxruntime, torch
from ultralytics import YOLO

clip, frames, rounds, threads, folder = sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5])
torch.set_num_threads(threads)
path = folder / "{YOLO}.onnx"
if not path.exists():
    Path(YOLO("{YOLO}.yaml").export(format="onnx", imgsz=(256, 320))).rename(path)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
feed = {{session.get_inputs()[0].name: np.zeros((1, 3, 256, 320), np.float32)}}
model = YOLO(str(path), task="detect")
bare, loop = [], []
for turn in range(rounds + 1):
    start = time.perf_counter()
    for _ in range(frames):
        session.run(None, feed)
    bare.append(time.perf_counter() - start)
    start = time.perf_counter()
    for count, _ in enumerate(model.predict(clip, stream=True, imgsz=(256, 320), verbose=False), 1):
        if count == frames:
            break
    loop.append(time.perf_counter() - start)
print(json.dumps({{"bare": bare[1:], "loop": loop[1:]}}))
"""


def read(clip: Path, frames: int) -> list[Frame]:
    """The first frames of a video."""
    from itertools import islice

    from irforge.runtime.sources import open_source

    with open_source(clip) as source:
        return list(islice(source, frames))


def measure(detector: SessionDetector, clip: Path, frames: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and processor seconds a frame of each loop, medians over rounds in which they take turns."""
    from statistics import median

    from irforge.runtime.pipeline import Pipeline
    from irforge.runtime.sources import open_source

    raw = read(clip, frames)
    tensors = [detector.prepare(frame)[0] for frame in raw]
    out = detector.infer(tensors[0])

    def bare() -> None:
        for tensor in tensors:
            detector.infer(tensor, out)

    def calls() -> None:
        for frame in raw:
            detector(frame)

    def pipeline() -> None:
        with open_source(clip) as source, Pipeline(detector, [source], limit=len(raw)) as results:
            for _ in results:
                pass

    loops: dict[str, Callable[[], None]] = {"bare session": bare, "call after call": calls, "pipeline": pipeline}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        order = list(loops)
        for name in order[turn % 3 :] + order[: turn % 3]:
            start, work = perf_counter(), process_time()
            loops[name]()
            # The first round warms up.
            spent[name] += [(perf_counter() - start, process_time() - work)] if turn else []
    return {
        name: {
            "seconds_a_frame": median(wall for wall, _ in times) / len(raw),
            "processor_seconds_a_frame": median(work for _, work in times) / len(raw),
            # Turn by turn: what else the machine does then strikes both.
            "share_of_bare": median(
                ours / wall for (wall, _), (ours, _) in zip(times, spent["bare session"], strict=True)
            ),
        }
        for name, times in spent.items()
    }


def delays(detector: SessionDetector, clip: Path, frames: int, rounds: int, period: float) -> dict[str, float]:
    """Seconds from a frame to its detections, medians: by a call of the detector, and by the pipeline behind a camera.

    The camera gives a frame every `period` seconds. Calls and camera take turns; a call comes at the same rate.
    """
    from statistics import median
    from time import monotonic, sleep

    from irforge.runtime.pipeline import Pipeline
    from irforge.runtime.sources import Source, SourceFrame

    raw = read(clip, frames)

    class Camera(Source):
        name, live = "camera", True

        def records(self) -> Iterator[SourceFrame]:
            start = monotonic()
            for index, frame in enumerate(raw):
                sleep(max(0.0, start + index * period - monotonic()))
                yield SourceFrame(index, self.name, index * period, frame, monotonic())

    calls: list[float] = []
    ages: list[float] = []
    shares: list[float] = []
    dropped = 0
    for turn in range(rounds + 1):
        called: list[float] = []
        for frame in raw:
            start = perf_counter()
            detector(frame)
            called.append(perf_counter() - start)
            sleep(max(0.0, period - called[-1]))
        with Pipeline(detector, [Camera()]) as results:
            for _ in results:
                pass
        # The first round warms up.
        if turn:
            aged = list(results.counts.ages)
            calls += called
            ages += aged
            shares.append(median(aged) / median(called))
            dropped += results.counts.dropped
    return {
        "period": period,
        "call": median(calls),
        "age": median(ages),
        "call_p99": sorted(calls)[int(0.99 * len(calls))],
        "age_p99": sorted(ages)[int(0.99 * len(ages))],
        "share_of_call": median(shares),
        "dropped": dropped,
    }


def theirs(folder: Path, clip: Path, frames: int, rounds: int, threads: int) -> dict[str, float]:
    """Ultralytics' loop on its own model, as a share of that model's bare session.

    Raises:
        EnvironmentFault: it cannot be installed or does not run.
    """
    from statistics import median

    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "ultralytics", "onnx", "onnxruntime"],
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        arguments = [str(clip.resolve()), str(frames), str(rounds), str(threads), str(folder.resolve())]
        done = subprocess.run([python, "-c", _THEIRS, *arguments], capture_output=True, text=True, cwd=folder)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFault(f"Ultralytics does not run in '{folder}': {last}", "Leave --ultralytics out")
    times = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "seconds_a_frame": median(times["loop"]) / frames,
        "share_of_bare": median(bare / loop for bare, loop in zip(times["bare"], times["loop"], strict=True)),
    }


def main(
    models: Annotated[list[Path], typer.Argument(metavar="MODELS...", help="Deployables.")],
    clip: Annotated[Path, typer.Option(help="A video.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the figures as JSON.")] = None,
    frames: Annotated[int, typer.Option(min=10, help="Of the clip, in each turn.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="In which the loops take turns.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each session.")] = 2,
    ultralytics: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Put its predict loop beside.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Fail if the pipeline loses more than 5 %, or delays by 10 %.")
    ] = False,
) -> None:
    """Throughput of the pipeline beside the bare session's."""
    from irforge.files import write_json
    from irforge.runtime.detector import load

    figures: dict[str, Any] = {"clip": clip.name, "frames": frames, "rounds": rounds, "threads": threads}
    figures |= {"models": {}, "delays": {}}
    for path in models:
        with load(path, threads=threads) as detector:
            figures["models"][path.name] = rows = measure(detector, clip, frames, rounds)
            period = rows["bare session"]["seconds_a_frame"] / CAMERA_SHARE
            figures["delays"][path.name] = delays(detector, clip, frames, rounds, period)
        for name, row in rows.items():
            typer.echo(
                f"{path.name}, {name}: {1 / row['seconds_a_frame']:.1f} frames a second,"
                f" {row['share_of_bare']:.1%} of the bare session's, processor {row['processor_seconds_a_frame']:.4f} s"
            )
        row = figures["delays"][path.name]
        typer.echo(
            f"{path.name}, a frame every {row['period'] * 1e3:.1f} ms: {row['age'] * 1e3:.1f} ms from capture to"
            f" detections (p99 {row['age_p99'] * 1e3:.1f}), {row['share_of_call']:.1%} of a call's"
            f" {row['call'] * 1e3:.1f} ms (p99 {row['call_p99'] * 1e3:.1f}); {row['dropped']} frames dropped"
        )
    if ultralytics is not None:
        figures["ultralytics"] = row = theirs(ultralytics, clip, frames, rounds, threads)
        typer.echo(
            f"{YOLO} by Ultralytics' predict: {1 / row['seconds_a_frame']:.1f} frames a second,"
            f" {row['share_of_bare']:.1%} of its bare session's"
        )
    if out is not None:
        write_json(out, figures)
    for name, rows in figures["models"].items():
        lost = 1 - rows["pipeline"]["share_of_bare"]
        if check and lost > ALLOWED_LOSS:
            raise CheckFailed(f"the pipeline loses {lost:.1%} of the bare session's frames a second with '{name}'")
        later = figures["delays"][name]["share_of_call"] - 1
        if check and later > ALLOWED_DELAY:
            raise CheckFailed(f"detections are {later:.1%} older than a call of the detector takes with '{name}'")


if __name__ == "__main__":
    run_command(main)
