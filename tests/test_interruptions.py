"""A full disk and Ctrl-C in the middle of each command: one line, the exit code of its kind, nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.files import PARTIAL

ENVIRONMENT, INTERRUPTED = 5, 130

Model = Callable[..., Path]
Frames = Callable[..., np.ndarray]


# --- a full disk


@pytest.fixture
def full_disk(workplace: Any) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs a command whose `full/` has 4 kB left: a small file system in a mount namespace of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("this system has no unshare")
    target = workplace.folder / "full"
    target.mkdir()
    script = (
        f"mount -t tmpfs -o size=64k none '{target}' && head -c 61440 /dev/zero > '{target}/ballast' || exit 77;"
        f"\"$@\"; code=$?; ls -A '{target}' | grep -vx ballast | sed 's/^/LEFT /'; exit $code"
    )
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        done = workplace.run(*arguments, prefix=prefix)
        if done.returncode == 77 or "unshare" in done.stderr:
            pytest.skip("this machine allows no file system of one's own")
        return done

    yield run


@pytest.mark.parametrize("verb", ["run", "overlay", "export", "calibrate", "half", "fuse", "build", "bench"])
def test_a_full_disk(
    full_disk: Callable[..., subprocess.CompletedProcess[str]],
    workplace: Any,
    spot_frame: Frames,
    verb: str,
    untrained: Path,
    untrained_onnx: Path,
    spot_model: Model,
) -> None:
    for index in range(60):
        workplace.put(f"many/f{index}.png", spot_frame())
    arguments: dict[str, tuple[object, ...]] = {
        "run": ("run", spot_model(), "many", "--json", "full/o.jsonl"),
        "overlay": ("run", spot_model(), "many", "--overlay", "full/o.mp4"),
        "export": ("export", untrained, "-o", "full/m.onnx"),
        "calibrate": ("calibrate", untrained_onnx, "many", "-o", "full/ranges.json", "--limit", "2"),
        "half": ("half", untrained_onnx, "-o", "full/h.onnx"),
        "fuse": ("fuse", untrained_onnx, "-o", "full/f.onnx"),
        "build": ("build", untrained_onnx, "-o", "full/m.rtx.engine", "--sm", "8.9"),
        "bench": ("bench", spot_model(), "--rounds", "1", "-o", "full/report.json"),
    }
    done = full_disk(*arguments[verb])
    assert done.returncode == ENVIRONMENT, done.stderr
    assert done.stderr.startswith("irforge: ") and done.stderr.count("\n") == 1, done.stderr
    assert "space" in done.stderr
    assert "LEFT" not in done.stdout


def test_a_disk_that_fills_up_under_a_camera_leaves_what_was_written(
    full_disk: Callable[..., subprocess.CompletedProcess[str]], spot_model: Model
) -> None:
    cameras = [f"synthetic:64x64,frames=0,live=1,fps=200,seed={seed}" for seed in (1, 2)]
    done = full_disk("run", spot_model(), *cameras, "--json", "full/o.jsonl", "--overlay", "full/o.mp4")
    assert done.returncode == ENVIRONMENT, done.stderr
    assert done.stderr.startswith("irforge: ") and done.stderr.count("\n") == 1, done.stderr
    assert "space" in done.stderr
    # Nobody can record again what the cameras saw; a video without its end is no video.
    left = [line for line in done.stdout.splitlines() if line.startswith("LEFT")]
    assert left == ["LEFT o.0.jsonl", "LEFT o.1.jsonl"]


# --- Ctrl-C


def processor_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def interrupt(workplace: Any, ready: Callable[[int], bool], *arguments: object) -> tuple[int, str]:
    """Start a command, press Ctrl-C once it is in the middle of its work, return exit code and stderr."""
    command = [sys.executable, "-m", "irforge.cli", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=workplace.folder,
        env=workplace.environment,
        start_new_session=True,
    )
    try:
        while not ready(process.pid):
            assert process.poll() is None, f"ended before it could be interrupted: {process.communicate()[1]}"
            time.sleep(0.02)
        # A terminal sends it to the whole foreground group, children included.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, errors


def interrupted(workplace: Any, ready: Callable[[int], bool], *arguments: object) -> None:
    code, errors = interrupt(workplace, ready, *arguments)
    # Where Ctrl-C passed through an exec() of torch's, Python itself ends by the signal: shells show 130 for both.
    assert code in (INTERRUPTED, -signal.SIGINT), errors
    assert errors.count("\n") == 1 and errors.startswith("irforge: interrupted"), errors


@pytest.fixture
def clip(workplace: Any) -> Path:
    """A video that keeps any command busy for a while."""
    path = workplace.folder / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 256))
    for index in range(2000):
        writer.write(np.full((256, 320, 3), index % 100, np.uint8))
    writer.release()
    workplace.put("unrelated", "")
    return path


def test_ctrl_c_in_run(workplace: Any, clip: Path, untrained_onnx: Path) -> None:
    def writing(_: int) -> bool:
        return any(path.stat().st_size > 0 for path in workplace.folder.glob(f".o.*{PARTIAL}.mp4"))

    interrupted(workplace, writing, "run", untrained_onnx, clip, "--json", "o.jsonl", "--overlay", "o.mp4")
    assert not workplace.left()


def test_ctrl_c_in_bench(workplace: Any, pairs: Path, untrained: Path, untrained_onnx: Path) -> None:
    arguments = ("bench", untrained_onnx, "--reference", untrained, "--rounds", "10000", "-o", "report.json")
    interrupted(workplace, lambda process: processor_seconds(process) > 6, *arguments)
    assert not workplace.left()


def test_ctrl_c_in_export(workplace: Any, untrained: Path) -> None:
    interrupted(workplace, lambda process: processor_seconds(process) > 6, "export", untrained, "-o", "m.onnx")
    assert not workplace.left()


def test_ctrl_c_in_calibrate(workplace: Any, spot_frame: Frames, untrained_onnx: Path) -> None:
    first = workplace.put("many/f.png", spot_frame())
    for index in range(3000):
        os.link(first, first.with_name(f"g{index}.png"))
    workplace.put("unrelated", "")
    arguments = ("calibrate", untrained_onnx, "many", "-o", "ranges.json")
    interrupted(workplace, lambda process: processor_seconds(process) > 3, *arguments)
    assert not workplace.left()


def test_ctrl_c_in_sensitivity(workplace: Any, spot_frame: Frames, untrained_onnx: Path) -> None:
    first = workplace.put("many/f.png", spot_frame())
    for index in range(200):
        os.link(first, first.with_name(f"g{index}.png"))
    collected = workplace.run("calibrate", untrained_onnx, "many", "-o", "ranges.json", "--limit", "1")
    assert collected.returncode == 0, collected.stderr
    workplace.put("unrelated", "")
    arguments = ("sensitivity", untrained_onnx, "many", "--ranges", "ranges.json", "-o", "costs.json", "--limit", "200")
    interrupted(workplace, lambda process: processor_seconds(process) > 4, *arguments)
    assert not workplace.left()


def test_ctrl_c_in_evaluate(workplace: Any, pairs: Path, untrained: Path) -> None:
    for kind in ("images", "masks"):
        for index in range(3000):
            os.link(pairs / kind / "f0.png", pairs / kind / f"g{index}.png")
    workplace.put("unrelated", "")
    arguments = ("evaluate", untrained, "--data", pairs, "--json", "figures.json")
    interrupted(workplace, lambda process: processor_seconds(process) > 5, *arguments)
    assert not workplace.left()


def test_ctrl_c_in_build(workplace: Any, untrained_onnx: Path) -> None:
    def compiling(process: int) -> bool:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return any(processor_seconds(int(child)) > 0.3 for child in children)

    interrupted(workplace, compiling, "build", untrained_onnx, "-o", "m.rtx.engine")
    assert not workplace.left()


def test_ctrl_c_in_fit_leaves_only_whole_checkpoints(workplace: Any, pairs: Path) -> None:
    from safetensors.numpy import load_file

    recipe = """
detector: mshnet
input: {height: 64, width: 64, mean: 90, std: 35}
validation_share: 0.25
stages: [{epochs: 500, crop: 64, batch: 1, samples: 3, lr: [1.0e-3, 1.0e-4]}]
optimizer: {name: adam}
"""
    workplace.put("recipe.yaml", recipe)
    out = workplace.folder / "out"

    def second_epoch(_: int) -> bool:
        log = out / "log.csv"
        return log.is_file() and len(log.read_text().splitlines()) >= 3

    interrupted(workplace, second_epoch, "fit", "recipe.yaml", "--data", pairs, "--out", out)
    assert not [path for path in workplace.left() if PARTIAL in path or path.startswith("tmp/")]
    assert load_file(out / "best.safetensors")
    done = len((out / "log.csv").read_text().splitlines()) - 1
    resumed = workplace.run("fit", "recipe.yaml", "--data", pairs, "--out", out, "--resume", "--epochs", done + 1)
    assert resumed.returncode == 0, resumed.stderr
    assert len((out / "log.csv").read_text().splitlines()) == done + 2


def test_ctrl_c_that_another_exception_swallowed_is_still_ctrl_c(tmp_path: Path) -> None:
    code = """
import os, signal
from irforge.errors import run_command

def work() -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise AttributeError("half an import") from None

signal.signal(signal.SIGINT, signal.default_int_handler)
run_command(work)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == INTERRUPTED
    assert done.stderr == "irforge: interrupted; nothing half-written was left\n"
