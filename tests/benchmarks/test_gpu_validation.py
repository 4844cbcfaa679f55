"""The GPU script, as far as a machine without a GPU can run it: its refusal, and its checks on another backend."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from irforge.runtime.backends.device import gpus

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_validate", FOLDER / "validate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    done = subprocess.run([str(FOLDER / "run.sh"), str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1 and "no NVIDIA GPU" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_result_holds_parity_and_every_clock(
    script: ModuleType, spot_model: Callable[..., Path], tmp_path: Path
) -> None:
    script.ROUNDS, script.FRAMES_A_ROUND = 2, 2
    result = script._check(spot_model(), "onnxruntime-cpu", tmp_path)
    assert result["failure"] == ""
    assert result["parity"]["max_difference"] == 0 and result["parity"]["frames"] == script.FRAMES
    assert result["latency"]["no graph"]["frame"]["n"] == 4


def test_a_failure_is_recorded_and_does_not_end_the_run(
    script: ModuleType, spot_model: Callable[..., Path], tmp_path: Path
) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    result = script._check(spot_model(), "tensorrt", tmp_path)
    assert "GPU" in result["failure"] and "latency" not in result
