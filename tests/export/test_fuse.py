"""`irforge fuse`: the same numbers from a graph of custom operators, runnable anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from irforge.artifact import load_model, read_contract
from irforge.calib.half import half_model
from irforge.errors import ArtifactError, UsageError
from irforge.export.fuse import fuse_model
from irforge.export.summary import Summary
from irforge.export.verify import sample_frames
from irforge.lint import lint
from irforge.ops import count_custom_ops

GATES = {"ChannelGate": 16, "SpatialGate": 16}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_gate_of_mshnet_is_found_and_computes_the_same(
    exported: tuple[Path, Summary], precision: str, tmp_path: Path
) -> None:
    model, _ = exported
    if precision == "fp16":
        half_model(model, tmp_path / "model.fp16.onnx")
        model = tmp_path / "model.fp16.onnx"
    fused = tmp_path / "fused.onnx"
    assert fuse_model(model, fused) == GATES
    contract = read_contract(fused)
    frames = {contract.input.name: sample_frames(contract, *contract.input.size)}
    results = [onnxruntime.InferenceSession(str(path)).run(None, frames)[0] for path in (model, fused)]
    assert np.abs(results[0] - results[1]).max() < (1e-6 if precision == "fp32" else 1e-2)
    assert contract.provenance.history[-1]["custom_ops"] == GATES
    assert not [finding for finding in lint(load_model(fused)) if finding.level == "error"]


def test_a_fused_file_is_not_fused_twice(exported: tuple[Path, Summary], tmp_path: Path) -> None:
    fused = tmp_path / "fused.onnx"
    fuse_model(exported[0], fused)
    assert count_custom_ops(load_model(fused)) == GATES
    with pytest.raises(UsageError, match="no pattern"):
        fuse_model(fused, tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()


def test_merging_alone_leaves_other_patterns(exported: tuple[Path, Summary], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pattern"):
        fuse_model(exported[0], tmp_path / "merged.onnx", merge_only=True)


def test_a_graph_without_gates_is_refused(spot_model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pattern that a custom operator stands for"):
        fuse_model(spot_model(), tmp_path / "fused.onnx")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        fuse_model(tmp_path / "none.onnx", tmp_path / "fused.onnx")
