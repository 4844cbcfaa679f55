"""Promises of `irforge doctor`."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from irforge import doctor
from irforge.errors import EnvironmentFault
from irforge.runtime.backends.device import gpus
from irforge.runtime.backends.ort import OrtSession


@pytest.fixture(scope="module")
def shown() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "irforge.cli", "doctor"], capture_output=True, text=True)


def test_the_doctor_never_fails_and_keeps_stderr_clean(shown: subprocess.CompletedProcess[str]) -> None:
    assert shown.returncode == 0
    assert shown.stderr == ""
    titles = [line for line in shown.stdout.splitlines() if not line.startswith(" ")]
    assert titles == ["Machine", "Packages", "Backends", "Native operators", "Codecs"]


def test_what_works_here_was_tried_here(shown: subprocess.CompletedProcess[str]) -> None:
    lines = {line[2:20].strip(): line[21:] for line in shown.stdout.splitlines() if line.startswith(" ")}
    assert lines["onnxruntime-cpu"].startswith("yes") and "right result" in lines["onnxruntime-cpu"]
    assert lines["video .mp4"].startswith("yes") and "read 3 of them back" in lines["video .mp4"]
    assert lines["core"].startswith("yes") and metadata.version("numpy") in lines["core"]
    assert lines["NVIDIA driver"].startswith("yes" if gpus() else "no")


@pytest.mark.skipif(find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed")
def test_the_compile_gate_is_tried_in_earnest() -> None:
    gate = next(finding for finding in doctor.backends() if finding.name == "rtx compile gate")
    assert gate.works
    assert "SM 7.5, 8.0, 8.6, 8.9, 12.0" in gate.note


def test_what_is_missing_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def without_torch(package: str) -> str:
        if package == "torch":
            raise metadata.PackageNotFoundError(package)
        return "0.1" if package == "scipy" else version(package)

    monkeypatch.setattr(metadata, "version", without_torch)
    train = next(finding for finding in doctor.packages() if finding.name == "train")
    assert train.works is False
    assert "torch>=2.10" in train.note and "scipy>=1.11 (here 0.1)" in train.note
    assert train.note.endswith("pip install 'irforge[train]'")


def test_a_backend_that_computes_wrongly_or_is_absent_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OrtSession, "run", lambda self, feeds: {"mask": np.zeros((1, 1, 32, 32), np.float32)})
    tried = next(finding for finding in doctor.backends() if finding.name == "onnxruntime-cpu")
    assert tried.works is False and "not 9" in tried.note

    def absent(self: OrtSession, *_: object) -> None:
        raise EnvironmentFault("this machine has none", "Install one")

    monkeypatch.setattr(OrtSession, "__init__", absent)
    tried = next(finding for finding in doctor.backends() if finding.name == "onnxruntime-cpu")
    assert tried == ("onnxruntime-cpu", False, "this machine has none. Install one")


def test_no_claim_names_this_machine(shown: subprocess.CompletedProcess[str]) -> None:
    assert str(Path.home()) not in shown.stdout and str(Path.cwd()) not in shown.stdout
