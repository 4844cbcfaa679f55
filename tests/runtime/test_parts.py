"""Parts of a detector, which have no contract: compiled as deployables are, opened by the process that built them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irforge.artifact import load_model, save_model
from irforge.errors import ArtifactError, EnvironmentFault, UsageError
from irforge.files import sha256_of_file
from irforge.runtime.backends import open_session
from irforge.runtime.backends.device import gpus
from irforge.runtime.engines import BuildOptions, Profile
from irforge.runtime.parts import build_part, open_part
from irforge.runtime.sidecar import EngineRecord

ConvModel = Callable[..., Path]
SHAPES = ((1, 1, 32, 32), (2, 1, 64, 64), (4, 1, 96, 96))
PROFILE: Profile = {"frames": SHAPES}


@pytest.fixture
def part(conv_model: ConvModel, tmp_path: Path) -> Path:
    model = load_model(conv_model("fp16", batch="N", height="H", width="W"))
    model.ClearField("metadata_props")
    path = tmp_path / "part.onnx"
    save_model(path, model)
    return path


def built(part: Path) -> tuple[Path, EngineRecord]:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install 'irforge[rtx]')")
    engine = part.with_name("part.rtx.engine")
    return engine, build_part(part, engine, PROFILE, BuildOptions(targets=("8.9",)))


def test_a_part_is_compiled_without_a_contract_and_gets_no_sidecar(part: Path) -> None:
    engine, record = built(part)
    assert record.engine_sha256 == sha256_of_file(engine) and record.onnx.sha256 == sha256_of_file(part)
    assert record.profile == {"frames": [list(shape) for shape in SHAPES]}
    assert record.proofs[0].shapes == {"frames": [2, 1, 64, 64]} and record.proofs[0].share("fp16") == 1
    assert {path.name for path in part.parent.iterdir()} == {"part.onnx", "part.rtx.engine"}


def test_another_process_cannot_open_it(part: Path) -> None:
    engine, _ = built(part)
    with pytest.raises(ArtifactError, match=r"part\.rtx\.engine\.json' is missing"):
        open_session(engine)


def test_without_a_gpu_the_builder_is_told_so_when_it_opens_it(part: Path) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    engine, record = built(part)
    with pytest.raises(EnvironmentFault, match="TensorRT-RTX engines run on an NVIDIA GPU"):
        open_part(engine, record)


def test_plugins_are_refused_where_there_are_none(part: Path) -> None:
    with pytest.raises(UsageError, match="no plugins"):
        build_part(part, part.with_name("part.rtx.engine"), PROFILE, BuildOptions(custom_ops="plugin"))
    assert {path.name for path in part.parent.iterdir()} == {"part.onnx"}
