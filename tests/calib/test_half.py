from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from irforge.artifact import load_model, model_fingerprint, read_contract, save_model
from irforge.calib.half import half, half_model
from irforge.calib.ranges import load_ranges
from irforge.errors import ArtifactError, CalibrationError, UsageError
from irforge.graph import Graph
from irforge.lint import lint
from tests.calib.conftest import attentive_net

Run = Callable[[onnx.ModelProto | Path, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def fp16(attentive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp16") / "attentive.fp16.onnx"
    half_model(attentive, path)
    return path


def test_fp16_computes_what_fp32_computes(
    attentive: Path, fp16: Path, run_model: Run, frames_tensor: np.ndarray
) -> None:
    assert np.abs(run_model(attentive, frames_tensor) - run_model(fp16, frames_tensor)).max() < 5e-3


def test_the_file_halves_and_lints_clean(attentive: Path, fp16: Path) -> None:
    assert fp16.stat().st_size < 0.7 * attentive.stat().st_size
    assert lint(load_model(fp16)) == []
    graph = Graph(load_model(fp16))
    assert graph.dtype("frames") == TensorProto.UINT8
    assert graph.dtype("mask") == TensorProto.FLOAT
    assert all(graph.dtype(node.input[1]) == TensorProto.FLOAT16 for node in graph.of_type("Conv"))


def test_the_contract_says_what_was_done(attentive: Path, fp16: Path, attentive_ranges: Path, tmp_path: Path) -> None:
    contract = read_contract(fp16)
    step = contract.provenance.history[-1]
    assert contract.provenance.precision == "fp16"
    assert step["tool"] == "half"
    assert step["model_sha256"] == model_fingerprint(load_model(attentive))
    assert "ranges_key" not in step
    half_model(attentive, tmp_path / "measured.onnx", ranges_path=attentive_ranges)
    step = read_contract(tmp_path / "measured.onnx").provenance.history[-1]
    assert step["ranges_key"] == load_ranges(attentive_ranges).key


def test_a_model_is_cast_once(fp16: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is fp16 already"):
        half_model(fp16, tmp_path / "m.onnx")


def test_stale_ranges_and_missing_contracts_are_refused(attentive_ranges: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "other.onnx", attentive_net(seed=1).model())
    with pytest.raises(
        CalibrationError, match=r"is of attentive\.onnx, not other\.onnx.*irforge calibrate \S+/other\.onnx"
    ):
        half_model(tmp_path / "other.onnx", tmp_path / "m.onnx", ranges_path=attentive_ranges)
    save_model(tmp_path / "bare.onnx", attentive_net().model(contract=False))
    with pytest.raises(ArtifactError, match=r"bare\.onnx' is an ONNX model without a contract.*irforge adopt"):
        half_model(tmp_path / "bare.onnx", tmp_path / "m.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.onnx", "other.onnx"]


def test_the_table_lists_islands_and_says_whether_ranges_chose_them(
    attentive: Path, attentive_ranges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half(attentive, tmp_path / "m.onnx")
    half(attentive, tmp_path / "n.onnx", ranges=attentive_ranges)
    without, measured = capsys.readouterr().out.split("n.onnx")
    assert "no ranges given" in without
    assert "no ranges given" not in measured
    assert "sums over the whole map" in measured
    with pytest.raises(UsageError, match=r"does not end in \.onnx"):
        half(attentive, tmp_path / "m.engine")
