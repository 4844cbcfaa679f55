"""`python export/to_onnx.py CHECKPOINT -o MODEL.onnx` on a whole MSHNet, and what it says when it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from irforge.artifact import load_model, read_contract
from irforge.errors import ArtifactError, IrforgeError, UsageError
from irforge.export.passes import run_passes
from irforge.export.reference import TorchSession
from irforge.export.summary import Summary, print_summary
from irforge.export.to_onnx import export, export_checkpoint, parse_size
from irforge.export.verify import sample_frames
from irforge.files import sha256_of_file
from irforge.graph import Graph
from irforge.lint import lint
from irforge.runtime.backends.ort import OrtSession

ROOT = Path(__file__).parents[2]
Exported = tuple[Path, Summary]


def test_the_file_explains_where_it_comes_from(checkpoint: Path, exported: Exported) -> None:
    contract = read_contract(exported[0])
    digest = sha256_of_file(checkpoint)
    (step,) = contract.provenance.history
    assert contract.provenance.weights_sha256 == digest
    assert (step["tool"], step["checkpoint_sha256"], step["opset"]) == ("export", digest, 20)
    assert step["parity"]["mask"] <= 1e-4
    assert contract.output.score_threshold == 0.4
    assert contract.output.tensors[0].shape == ["N", 1, 32, 48]
    assert contract.input.size == (32, 48)


def test_graph_and_trained_module_agree_on_targets_of_one_pixel(checkpoint: Path, exported: Exported) -> None:
    frames = sample_frames(read_contract(exported[0]), 32, 48, seed=5)
    with TorchSession(checkpoint) as reference, OrtSession(exported[0]) as session:
        assert reference.inputs == session.inputs
        assert reference.outputs == session.outputs
        expected = reference.run({"frames": frames})["mask"]
        found = session.run({"frames": frames})["mask"]
    assert np.ptp(expected) > 0.3
    assert np.abs(found - expected).max() <= 1e-4


def test_the_graph_is_what_tensorrt_likes(exported: Exported) -> None:
    path, summary = exported
    model = load_model(path)
    assert lint(model) == []
    graph = Graph(model)
    assert summary.rewrites["merge_shared_perceptrons"] == 16
    assert summary.operators["Conv"] == 94
    assert graph.array(graph.of_type("Conv")[0].input[1]).shape == (16, 1, 1, 1)
    assert "BatchNormalization" not in summary.operators
    # 4 network poolings; the 16 global ones are reductions that any frame size goes through.
    assert summary.operators["MaxPool"] == 4
    assert summary.parameters == 4_065_481


def test_the_cpu_form_computes_the_same(checkpoint: Path, exported: Exported, tmp_path: Path) -> None:
    model = load_model(exported[0])
    run_passes(model, "cpu")
    from irforge.artifact import save_model

    save_model(tmp_path / "cpu.onnx", model)
    frames = sample_frames(read_contract(model), 32, 48, seed=6)
    with TorchSession(checkpoint) as reference, OrtSession(tmp_path / "cpu.onnx") as session:
        difference = session.run({"frames": frames})["mask"] - reference.run({"frames": frames})["mask"]
    assert np.abs(difference).max() <= 1e-4


def test_the_table_tells_what_matters(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(exported[1], "title")
    text = capsys.readouterr().out
    for expected in ("frames: uint8 N x 1 x 32 x 48", "94 Conv", "20, 10", "4,065,481", "max |d|"):
        assert expected in text


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "export" / "to_onnx.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_missing_checkpoint_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    result = _run(str(tmp_path / "gone.safetensors"), "-o", str(tmp_path / "a.onnx"))
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert "gone.safetensors" in result.stderr
    assert not any(tmp_path.iterdir())


def test_a_pickle_is_refused_without_trust(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ArtifactError, match="--trust"):
        export_checkpoint(tmp_path / "weights.pth", tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match="no detector"):
        export_checkpoint(tmp_path / "weights.pth", tmp_path / "a.onnx", trust=True)


def test_impossible_arguments_are_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no target 'gpu'"):
        export(checkpoint, tmp_path / "a.onnx", target="gpu")
    with pytest.raises(UsageError, match="for no target"):
        export(checkpoint, tmp_path / "a.onnx", target="cpu", plain=True)
    with pytest.raises(UsageError, match=r"does not end in \.onnx"):
        export(checkpoint, tmp_path / "a.engine")
    with pytest.raises(UsageError, match="multiples of 16"):
        export(checkpoint, tmp_path / "a.onnx", size="100x100")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["512", "512x", "x640", "512x640x3", "-1x5", "0x16", "axb"])
def test_sizes_are_height_x_width(text: str) -> None:
    assert parse_size("512x640") == (512, 640)
    with pytest.raises(IrforgeError, match="512x640"):
        parse_size(text)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_ctrl_c_leaves_nothing_behind(checkpoint: Path, tmp_path: Path) -> None:
    script = str(ROOT / "export" / "to_onnx.py")
    command = [sys.executable, script, str(checkpoint), "-o", str(tmp_path / "a.onnx")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    maps = Path(f"/proc/{process.pid}/maps")
    deadline = time.monotonic() + 120
    while "libtorch_cpu" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert not any(tmp_path.iterdir())
