"""Every check and figure that needs an NVIDIA GPU, into OUT/gpu.json.

Run as `benchmarks/gpu/run.sh`. Each step runs in a process of its own and records each result as soon as it is there;
what does not fit into the time budget, or lacks something on this machine, is listed as skipped with the reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.records import Report
from benchmarks.gpu.steps import Run, Step, run_isolated
from irforge.errors import INTERRUPTED, CheckFailed, EnvironmentFault, IrforgeError, UsageError

# In this order, so that a short budget still brings what nothing else can tell.
STEPS = {
    "build": Step("benchmarks.gpu.native:build", "builds the kernels", 150),
    "checks": Step("benchmarks.gpu.checks:run", "holds the kernels against float64", 60),
    "gates": Step("benchmarks.gpu.gates:run", "times the kernels", 150),
    "tests": Step("benchmarks.gpu.native:test", "runs the C++ tests", 60),
    "networks": Step("benchmarks.gpu.networks:run", "times the networks in torch", 170),
    "neck": Step("benchmarks.gpu.neck:run", "builds, checks and times the GLMD neck on every backend", 150),
    "sanitizer": Step("benchmarks.gpu.native:sanitize", "runs the C++ tests under compute-sanitizer", 60),
    "engines": Step("benchmarks.gpu.engines:run", "builds, checks and times engines", 540),
}
PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13-libs",
    "cuda-python",
    "pycuda",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; returns the exit code."""
    options = _options(arguments)
    # So that a step's process never outlives this one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return validate(options)
    except IrforgeError as error:
        print(f"irforge: {error.line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("irforge: interrupted; gpu.json holds what was done", file=sys.stderr)
        return INTERRUPTED


def validate(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + options.budget
    report = new_report()
    for path in (*options.model, *([options.checkpoint] if options.checkpoint else [])):
        if not path.is_file():
            raise UsageError(f"there is no file '{path}'")
    options.out.mkdir(parents=True, exist_ok=True)
    # What torch.compile makes would otherwise stay in the system's temporary folder.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(options.out / "build" / "torchinductor")
    run = Run(options.out, "", report, deadline, options.checkpoint, options.model)
    most = dict(options.most)
    for name, step in STEPS.items():
        if options.only and name not in options.only:
            continue
        step = replace(step, seconds=most.get(name, step.seconds))
        run.step = name
        if run.has_time(name, 1):
            print(f"{name}: {step.what}, {run.seconds_left():.0f} s left", flush=True)
            run_isolated(step, run)
            for note in run.report.skipped:
                if note.step == name:
                    print(f"  skipped: {note.reason}", flush=True)
    if not options.keep_build:
        shutil.rmtree(run.build, ignore_errors=True)
    failures = run.report.failures()
    for line in failures:
        print(f"failed: {line}", flush=True)
    if failures:
        raise CheckFailed(f"{len(failures)} GPU checks failed, first: {failures[0]}", f"All figures: {run.file}")
    print(f"nothing failed; figures in {run.file}")
    return 0


def new_report() -> Report:
    """A report of this machine.

    Raises:
        EnvironmentFault: it has no NVIDIA GPU with a driver.
    """
    device = _device()
    found = device.gpus()
    if not found:
        raise EnvironmentFault(
            "this machine shows no NVIDIA GPU with a driver, and every check here needs one",
            "Run it on a machine with one; without it, 'make test' covers all that can be covered",
        )
    versions = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    versions |= {"cuda_driver": device.driver_version() or "", "driver": _driver()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Report(date, vars(found[0]), versions)


def _step_and_seconds(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    if name not in STEPS or not seconds.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not STEP=SECONDS with a step of {', '.join(STEPS)}")
    return name, float(seconds)


def _device() -> ModuleType:
    """irforge.runtime.backends.device by itself: the packages around it need what a bare checkout lacks."""
    name = "irforge_gpu_device"
    path = Path(__file__).resolve().parents[2] / "irforge" / "runtime" / "backends" / "device.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise EnvironmentFault(f"{path} cannot be loaded")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run.sh", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for gpu.json and the engines")
    parser.add_argument("--checkpoint", type=Path, help="weights to export; default: those that ship")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a ready .onnx file in place of them")
    parser.add_argument(
        "--only",
        action="append",
        choices=STEPS,
        help="this step alone, where it needs the kernels with --only build; repeat for several",
    )
    parser.add_argument(
        "--budget", type=int, default=540, help="seconds after which nothing new is begun (default: %(default)s)"
    )
    parser.add_argument(
        "--most",
        type=_step_and_seconds,
        metavar="STEP=SECONDS",
        action="append",
        default=[],
        help="the most that this step may take, on a GPU that is lent for minutes; repeat for several",
    )
    parser.add_argument("--keep-build", action="store_true", help="leave the compiled kernels in OUT/build")
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    options.model = [path.resolve() for path in options.model]
    return options


if __name__ == "__main__":
    sys.exit(main())
