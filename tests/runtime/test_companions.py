"""An image encoder is compiled along with its detector, and opened by what the detector's sidecar knows of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from irforge.artifact import read_contract
from irforge.errors import ArtifactError, BuildError, EnvironmentFault
from irforge.files import sha256_of_file
from irforge.rescoring import RescoringSpec
from irforge.runtime import companions, parts
from irforge.runtime.backends.device import gpus
from irforge.runtime.companions import profile_of
from irforge.runtime.engine_facts import engine_facts
from irforge.runtime.engines import BuildOptions, build_engine
from irforge.runtime.rescoring import open_rescorer
from irforge.runtime.sidecar import Sidecar, read_sidecar, sidecar_path
from tests.box_model import SLOTS, box_contract, write_box_model
from tests.runtime.test_rescoring import SPEC, name_companion, write_companion

needs_rtx = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import tensorrt_rtx_bindings"], capture_output=True).returncode != 0,
    reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')",
)
ADA = BuildOptions(targets=("8.9",))


@pytest.fixture
def primary(tmp_path: Path) -> Path:
    write_companion(tmp_path / "judge.onnx")
    path = write_box_model(tmp_path / "detector.onnx")
    name_companion(path)
    return path


@pytest.fixture
def engine(primary: Path) -> Path:
    path = primary.with_name("detector.rtx.engine")
    build_engine(primary, path, ADA)
    return path


@needs_rtx
def test_both_are_compiled_and_one_sidecar_vouches_for_both(primary: Path, engine: Path) -> None:
    sidecar = read_sidecar(engine)
    (named,) = sidecar.contract.companions
    (record,) = sidecar.companions
    encoder = engine.with_name("detector.rescore.rtx.engine")
    assert named.path == record.engine == encoder.name
    assert named.sha256 == record.engine_sha256 == sha256_of_file(encoder)
    assert record.onnx.sha256 == read_contract(primary).companions[0].sha256
    assert record.profile["crops"] == [[1, 3, 4, 4], [SLOTS, 3, 4, 4], [SLOTS, 3, 4, 4]]
    assert record.proofs[0].peak_bytes is not None
    assert {path.name for path in primary.parent.iterdir()} == {
        "judge.onnx",
        "detector.onnx",
        engine.name,
        sidecar_path(engine).name,
        encoder.name,
    }
    (facts,) = engine_facts(primary)
    assert any(f"{encoder.name}, " in note and f"for {SLOTS} boxes" in note for note in facts.notes)


@needs_rtx
def test_without_a_gpu_the_encoder_is_refused_as_the_detector_is(engine: Path) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EnvironmentFault, match="TensorRT-RTX engines run on an NVIDIA GPU"):
        open_rescorer(read_sidecar(engine).contract, engine)


@needs_rtx
def test_an_encoder_opens_with_what_its_detectors_sidecar_says(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def open_part(path: Path, built: Any, *, cuda_graph: bool) -> Any:
        opened.append((path, built, cuda_graph))
        inputs = dict.fromkeys(("crops", "scores", "classes"))
        return SimpleNamespace(inputs=inputs, outputs={"rescored": None}, close=lambda: None)

    monkeypatch.setattr(parts, "open_part", open_part)
    sidecar = read_sidecar(engine)
    rescorer = open_rescorer(sidecar.contract, engine)
    assert rescorer is not None and rescorer.name == "detector.rescore.rtx.engine"
    assert opened == [(engine.with_name(rescorer.name), sidecar.companions[0], False)]
    forgetful = Sidecar(**{**dict(sidecar), "companions": []})
    sidecar_path(engine).write_text(forgetful.model_dump_json(by_alias=True))
    with pytest.raises(ArtifactError, match="does not know the engine"):
        open_rescorer(sidecar.contract, engine)
    engine.with_name(rescorer.name).write_bytes(b"another")
    with pytest.raises(ArtifactError, match="its content differs"):
        open_rescorer(sidecar.contract, engine)
    assert len(opened) == 1


def test_neither_is_left_if_one_is_refused(primary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> Any:
        raise BuildError("the compiler refuses the encoder")

    monkeypatch.setattr(companions, "compile_engine", refused)
    before = sorted(primary.parent.iterdir())
    with pytest.raises(BuildError, match="refuses the encoder"):
        build_engine(primary, primary.with_name("detector.rtx.engine"), ADA)
    assert sorted(primary.parent.iterdir()) == before


def test_an_encoder_is_tuned_for_as_many_boxes_as_a_frame_may_have() -> None:
    contract = box_contract((64, 96))
    crops = profile_of(RescoringSpec(**SPEC | {"limit": 3}), contract)
    assert crops["scores"] == ((1,), (3,), (3,)) and crops["crops"][1] == (3, 3, 4, 4)
    assert profile_of(RescoringSpec(**SPEC | {"limit": None}), contract)["classes"][2] == (SLOTS,)
    frames = profile_of(RescoringSpec(**SPEC | {"crop_size": None, "stride": 32, "limit": 5}), contract)
    assert frames["frame"] == ((1, 3, 32, 32), (1, 3, 64, 96), (1, 3, 1024, 1280))
    assert frames["row_weights"] == ((1, 1), (5, 2), (5, 32)) and frames["column_weights"][2] == (5, 40)
