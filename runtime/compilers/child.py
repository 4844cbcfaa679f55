"""Runs a compilation in a child process, so that a native crash becomes an error with the last log line."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from irforge.errors import BuildError, EnvironmentFault
from irforge.runtime.compilers.request import BuildFailure, BuildRequest, BuildResult

_MODULE = "irforge.runtime.compilers.compile"
_COMPILERS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


def compile_in_child(request: BuildRequest) -> tuple[BuildResult, list[str]]:
    """Compile; the plan is then at `request.plan`.

    Returns:
        what the child reported, and its log.

    Raises:
        BuildError: the parser or the compiler refused the graph, crashed on it, or gave an empty plan.
        EnvironmentFault: the compiler, or the device that it needs, is not here.
    """
    name = _COMPILERS[request.backend]
    with tempfile.TemporaryDirectory(prefix="irforge-build-") as folder:
        answer, log = Path(folder) / "result.json", Path(folder) / "log.txt"
        code = _run([sys.executable, "-m", _MODULE, request.model_dump_json(), str(answer)], log)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        content = answer.read_bytes() if answer.exists() else b""
    last = lines[-1] if lines else "nothing"
    if code < 0:
        raise BuildError(
            f"{name} crashed on the graph ({signal.Signals(-code).name}); its last log line: {last}",
            "Export the model again; if it crashes still, the graph holds something that the compiler cannot take",
        )
    if not content:
        raise BuildError(f"{name}'s process ended with code {code} and no result; its last log line: {last}")
    if code:
        failure = BuildFailure.model_validate_json(content)
        if failure.gate == "environment":
            raise EnvironmentFault(failure.message)
        raise BuildError(f"{name}'s {failure.gate} refuses the graph: {failure.message}")
    plan = Path(request.plan)
    if not plan.is_file() or plan.stat().st_size == 0:
        raise BuildError(f"{name} reported success but wrote an empty plan; its last log line: {last}")
    return BuildResult.model_validate_json(content), lines


def _run(command: list[str], log: Path) -> int:
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
        try:
            return process.wait()
        except BaseException:
            # A compiler in native code does not hear Ctrl-C; nothing of it may outlive the command.
            process.kill()
            process.wait()
            raise
