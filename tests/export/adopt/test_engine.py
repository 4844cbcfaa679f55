"""An engine that irforge did not build gets a contract by `--contract`, and is bound to its content from then on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irforge.artifact import read_contract
from irforge.errors import ArtifactError, UsageError
from irforge.export.adopt.adopt import adopt
from irforge.runtime.sidecar import check_fit, read_sidecar, sidecar_path, vouch


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "trtexec.engine"
    path.write_bytes(b"ptrt" + bytes(60))
    return path


@pytest.fixture
def model(spot_model: Callable[..., Path]) -> Path:
    return spot_model()


def test_it_is_loaded_with_the_contract_it_was_given(engine: Path, model: Path) -> None:
    adopt(engine, contract=model, trust_engine=True)
    assert read_sidecar(engine).contract == read_contract(model)
    record = vouch(engine, "TensorRT")
    # Nobody knows what it was built with; the runtime itself has to refuse what it cannot load.
    check_fit(engine, record, version="11.4", compute_capability="8.7")
    with pytest.raises(ArtifactError, match="for TensorRT, not for TensorRT-RTX"):
        vouch(engine, "TensorRT-RTX")


def test_another_engine_in_its_place_is_refused(engine: Path, model: Path) -> None:
    adopt(engine, contract=model, trust_engine=True)
    engine.write_bytes(b"ptrt" + bytes(61))
    with pytest.raises(ArtifactError, match="engines are code"):
        vouch(engine, "TensorRT")


def test_the_contract_may_come_from_another_sidecar_or_from_json(engine: Path, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "contract.json"
    text.write_text(read_contract(model).to_json())
    adopt(engine, contract=text, trust_engine=True)
    other = tmp_path / "other.engine"
    other.write_bytes(b"ptrt" + bytes(10))
    adopt(other, contract=sidecar_path(engine), trust_engine=True)
    third = tmp_path / "third.rtx.engine"
    third.write_bytes(b"ptrt" + bytes(20))
    adopt(third, contract=engine, trust_engine=True)
    assert read_sidecar(other).contract == read_sidecar(third).contract == read_contract(model)
    assert read_sidecar(third).runtime == "TensorRT-RTX"


def test_what_is_missing_is_said(engine: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--contract FILE"):
        adopt(engine)
    with pytest.raises(UsageError, match="--trust-engine"):
        adopt(engine, contract=model)
    with pytest.raises(ArtifactError, match="does not exist"):
        adopt(engine, contract=tmp_path / "none.json", trust_engine=True)
    with pytest.raises(ArtifactError, match="missing, empty or no file"):
        adopt(tmp_path / "none.engine", contract=model, trust_engine=True)
    with pytest.raises(UsageError, match="for engines"):
        adopt(model, contract=model)
    assert not sidecar_path(engine).exists()
    with pytest.raises(ArtifactError, match="irforge adopt ENGINE --contract FILE"):
        read_sidecar(engine)


def test_a_sidecar_is_not_replaced(engine: Path, model: Path) -> None:
    adopt(engine, contract=model, trust_engine=True)
    before = sidecar_path(engine).read_text()
    with pytest.raises(UsageError, match="a sidecar already"):
        adopt(engine, contract=model, trust_engine=True)
    assert sidecar_path(engine).read_text() == before


def test_a_plan_behind_a_private_header_is_refused(engine: Path, model: Path) -> None:
    text = b'{"names": {"0": "drone"}}'
    engine.write_bytes(len(text).to_bytes(4, "little") + text + b"ptrt" + bytes(60))
    with pytest.raises(ArtifactError, match="25 bytes of JSON before it"):
        adopt(engine, contract=model, trust_engine=True)
