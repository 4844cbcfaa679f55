"""Builds the kernels and plugins, and runs their C++ tests, as they are and under compute-sanitizer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.records import NativeTest
from benchmarks.gpu.steps import Run
from irforge.errors import CheckFailed, EnvironmentFault

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "plugins" / "kernels"
CTEST, SANITIZER = "ctest", "compute-sanitizer"
SANITIZED = "_sanitized"
# What a test program without its device or headers returns.
SKIPPED = 77
TAIL = 400


def build(run: Run) -> None:
    """Build everything into OUT/build; where its tests do not compile, at least the kernels."""
    nvcc = _nvcc()
    capability = run.report.gpu["compute_capability"].replace(".", "")
    if shutil.which("cmake") is None:
        run.skip("C++ tests and plugins: no cmake here; the kernels are compiled by nvcc alone")
        build_plainly(run, nvcc, capability)
        return
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    # A number, not 'native', which CMake knows since 3.24.
    options = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_CUDA_ARCHITECTURES={capability}-real"]
    # A compiler that nobody here has tried may warn of more; that must not cost the figures.
    options.append("-DIRFORGE_WARNINGS_AS_ERRORS=OFF")
    configured = _command(
        run, ["cmake", "-S", str(ROOT), "-B", str(run.build), *generator, f"-DCMAKE_CUDA_COMPILER={nvcc}", *options]
    )
    for line in configured.splitlines():
        # CMakeLists.txt says in one line each what it leaves out and what to install.
        if ": skipped;" in line:
            run.skip(line.removeprefix("-- ").strip())
    jobs = ["--parallel", str(os.cpu_count() or 1)]
    try:
        _command(run, ["cmake", "--build", str(run.build), *jobs])
    except CheckFailed:
        _command(run, ["cmake", "--build", str(run.build), *jobs, "--target", "irforge_kernels_c"])
        raise


def build_plainly(run: Run, nvcc: str, capability: str) -> None:
    """The kernels' library without cmake."""
    host = [path for path in sorted(KERNELS.glob("*.cpp")) if not path.stem.endswith("_cpu")]
    sources = [*sorted(KERNELS.glob("*.cu")), *host]
    library = run.build / "lib" / "libirforge_kernels.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-shared", "-O3", "-std=c++17", "-Xcompiler=-fPIC", f"-arch=sm_{capability}"]
    _command(run, [nvcc, *flags, f"-I{KERNELS.parent}", *map(str, sources), "-o", str(library)])


def test(run: Run) -> None:
    """Run ctest, but for the tests under compute-sanitizer."""
    for result in ctest(run, ["-E", f"{SANITIZED}$"]):
        run.add("native_tests", result)


def sanitize(run: Run) -> None:
    """Run the GPU tests under compute-sanitizer: those that ctest has so, and the others by their command."""
    tool = shutil.which(SANITIZER) or shutil.which(SANITIZER, path=str(Path(_nvcc()).parent))
    if tool is None:
        raise EnvironmentFault("no compute-sanitizer here", "It comes with the CUDA toolkit")
    commands = _test_commands(run)
    if any(name.endswith(SANITIZED) for name in commands):
        for result in ctest(run, ["-R", f"{SANITIZED}$"]):
            run.add("native_tests", result)
    for name, command in commands.items():
        if "cuda" in name and f"{name}{SANITIZED}" not in commands and run.has_time(name, 20):
            run.add("native_tests", _sanitized(run, tool, name, command))


def ctest(run: Run, selection: Sequence[str]) -> list[NativeTest]:
    """Run the selected tests of OUT/build and read what became of each."""
    _test_commands(run)
    results = run.build / "ctest.xml"
    results.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", str(run.build), "--output-junit", str(results), *selection]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, run.seconds_left()))
    except subprocess.TimeoutExpired:
        raise CheckFailed("ctest was stopped: out of time") from None
    if not results.is_file():
        raise CheckFailed(f"ctest returned {done.returncode}: {_tail(done.stdout + done.stderr)}")
    tool = SANITIZER if f"{SANITIZED}$" in selection and "-R" in selection else CTEST
    return read_junit(results.read_text(), tool)


def read_junit(text: str, tool: str) -> list[NativeTest]:
    """The tests in ctest's JUnit file."""
    found = []
    for case in ET.fromstring(text).iter("testcase"):
        outcome = {"run": "passed", "fail": "failed"}.get(case.get("status", ""), "skipped")
        if case.find("failure") is not None:
            outcome = "failed"
        detail = _tail(case.findtext("system-out") or "") if outcome != "passed" else ""
        name, seconds = case.get("name", ""), float(case.get("time") or 0)
        found.append(NativeTest(tool=tool, name=name, outcome=outcome, seconds=round(seconds, 2), detail=detail))
    return found


def _test_commands(run: Run) -> dict[str, list[str]]:
    if not (run.build / "CTestTestfile.cmake").is_file():
        raise EnvironmentFault("the C++ tests were not built")
    shown = _command(run, ["ctest", "--test-dir", str(run.build), "--show-only=json-v1"])
    tests: list[dict[str, Any]] = json.loads(shown[shown.index("{") :])["tests"]
    return {test["name"]: test["command"] for test in tests if "command" in test}


def _sanitized(run: Run, tool: str, name: str, command: list[str]) -> NativeTest:
    start = time.monotonic()
    try:
        done = subprocess.run(
            # A code of its own, since test programs use others: 1 for a failure, 77 for nothing to do.
            [tool, "--error-exitcode", "99", *command],
            capture_output=True,
            text=True,
            timeout=max(1.0, run.seconds_left()),
        )
        outcome = "passed" if done.returncode == 0 else "skipped" if done.returncode == SKIPPED else "failed"
        detail = "" if outcome == "passed" else _tail(done.stdout + done.stderr)
    except subprocess.TimeoutExpired:
        outcome, detail = "skipped", "out of time"
    seconds = round(time.monotonic() - start, 2)
    return NativeTest(tool=SANITIZER, name=name, outcome=outcome, seconds=seconds, detail=detail)


def _nvcc() -> str:
    toolkit = os.environ.get("IRFORGE_CUDA_ROOT") or os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    found = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(toolkit) / "bin"))
    if found is None:
        raise EnvironmentFault("no nvcc here", "Install the CUDA toolkit, or set IRFORGE_CUDA_ROOT to one")
    return found


def _command(run: Run, command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, run.seconds_left()))
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"{command[0]} was stopped: out of time") from None
    if done.returncode:
        raise CheckFailed(f"{command[0]} returned {done.returncode}: {_tail(done.stdout + done.stderr)}")
    return done.stdout


def _tail(text: str) -> str:
    return " ".join(text.split())[-TAIL:]
