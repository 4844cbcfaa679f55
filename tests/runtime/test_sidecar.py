"""What stands between an engine file and a runtime that would execute it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irforge.artifact import read_contract
from irforge.errors import ArtifactError
from irforge.files import sha256_of_file
from irforge.runtime.backends.device import gpus
from irforge.runtime.sidecar import (
    LOADERS,
    MAX_BYTES,
    Sidecar,
    Source,
    check_fit,
    read_sidecar,
    sidecar_path,
    this_platform,
    vouch,
)

ConvModel = Callable[..., Path]


@pytest.fixture
def engine(conv_model: ConvModel, tmp_path: Path) -> Path:
    """An engine file with a sidecar that fits it; only its bytes matter here, nothing deserialises them."""
    path = tmp_path / "x.rtx.engine"
    path.write_bytes(b"plan")
    write(path, conv_model())
    return path


def write(path: Path, model: Path, **changes: object) -> None:
    fields: dict[str, object] = {
        "engine": path.name,
        "engine_sha256": sha256_of_file(path),
        "engine_bytes": path.stat().st_size,
        "runtime": "TensorRT-RTX",
        "loaders": LOADERS["TensorRT-RTX"],
        "runtime_version": "1.7.1.116",
        "irforge_version": "0",
        "platform": this_platform(),
        "compute_capabilities": ["8.6", "8.9"],
        "onnx": Source(name=model.name, sha256=sha256_of_file(model)),
        "build_seconds": 1.0,
        "built_at": "2026-01-01T00:00:00+00:00",
        "contract": read_contract(model),
    }
    sidecar = Sidecar.model_validate(fields | changes)
    sidecar_path(path).write_text(sidecar.model_dump_json(by_alias=True))


def test_what_fits_passes(engine: Path) -> None:
    sidecar = vouch(engine, "TensorRT-RTX")
    check_fit(engine, sidecar, version="1.7.1.116", compute_capability="8.9")


def test_a_changed_engine_needs_trust(engine: Path) -> None:
    engine.write_bytes(b"plan!")
    with pytest.raises(ArtifactError, match="--trust-engine"):
        vouch(engine, "TensorRT-RTX")
    assert vouch(engine, "TensorRT-RTX", trust=True).engine == engine.name


def test_trust_does_not_make_up_for_a_missing_sidecar(engine: Path) -> None:
    sidecar_path(engine).unlink()
    for trust in (False, True):
        with pytest.raises(ArtifactError, match=r"x\.rtx\.engine\.json"):
            vouch(engine, "TensorRT-RTX", trust=trust)


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_no_engine_is_said_to_be_none(content: bytes | None, engine: Path) -> None:
    engine.unlink()
    if content is not None:
        engine.write_bytes(content)
    with pytest.raises(ArtifactError, match="missing, empty"):
        vouch(engine, "TensorRT-RTX")


def test_an_engine_of_the_other_runtime_says_who_loads_it(engine: Path) -> None:
    with pytest.raises(ArtifactError, match="DeepStream do not"):
        vouch(engine, "TensorRT")


@pytest.mark.parametrize(
    ("version", "capability", "words"),
    [("1.8.0.1", "8.9", r"1\.7\.1\.116, here is 1\.8\.0\.1"), ("1.7.1.116", "12.0", r"SM 8\.6, 8\.9.*SM 12\.0")],
)
def test_another_version_or_gpu_names_both_and_the_command(
    version: str, capability: str, words: str, engine: Path
) -> None:
    with pytest.raises(ArtifactError, match=f"{words}.*irforge build"):
        check_fit(engine, read_sidecar(engine), version=version, compute_capability=capability)


def test_a_gpu_that_the_runtime_refuses_is_sent_to_the_other_one(engine: Path) -> None:
    with pytest.raises(ArtifactError, match=r"SM 9\.0\. TensorRT-RTX does not run on Hopper.*-o \w+\.engine$"):
        check_fit(engine, read_sidecar(engine), version="1.7.1.116", compute_capability="9.0")


def test_another_platform_is_refused(engine: Path, conv_model: ConvModel) -> None:
    write(engine, conv_model(), platform="win32-amd64")
    with pytest.raises(ArtifactError, match="win32-amd64"):
        check_fit(engine, read_sidecar(engine), version="1.7.1.116", compute_capability="8.9")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b"\xff\xfe", b'{"schema_version": "1.0", "engine": 3}', b"[" * 50_000],
    ids=["empty", "no fields", "a list", "no text", "wrong type", "deep"],
)
def test_a_damaged_sidecar_is_one_line(content: bytes, engine: Path) -> None:
    sidecar_path(engine).write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        vouch(engine, "TensorRT-RTX")
    assert "sidecar" in caught.value.line and "\n" not in caught.value.line


def test_a_sidecar_of_another_major_version_is_refused(engine: Path) -> None:
    raw = json.loads(sidecar_path(engine).read_text())
    sidecar_path(engine).write_text(json.dumps(raw | {"schema_version": "2.0"}))
    with pytest.raises(ArtifactError, match=r"schema 2\.0"):
        vouch(engine, "TensorRT-RTX")


def test_a_huge_sidecar_is_not_read(engine: Path) -> None:
    with sidecar_path(engine).open("wb") as handle:
        handle.truncate(MAX_BYTES + 1)
    with pytest.raises(ArtifactError, match="too large"):
        vouch(engine, "TensorRT-RTX")


def test_fields_of_a_later_minor_version_survive(engine: Path) -> None:
    raw = json.loads(sidecar_path(engine).read_text())
    sidecar_path(engine).write_text(json.dumps(raw | {"schema_version": "1.9", "signature": "abc"}))
    assert json.loads(read_sidecar(engine).model_dump_json(by_alias=True))["signature"] == "abc"


# --- as the command says it


@pytest.mark.parametrize("verb", ["run", "bench"])
def test_a_wrong_hash_is_one_line_of_the_command(engine: Path, workplace: Any, frames: Path, verb: str) -> None:
    engine.write_bytes(b"plan!")
    workplace.put("unrelated", "")
    tail = ("frames", "--json", "o.jsonl") if verb == "run" else ("-o", "report.json")
    workplace.refused(4, "engines are code", "--trust-engine", arguments=(verb, engine, *tail))


def test_a_missing_driver_is_one_line_of_the_command(engine: Path, workplace: Any, frames: Path) -> None:
    if gpus():
        pytest.skip("this machine has a GPU")
    workplace.put("unrelated", "")
    arguments = ("run", engine, "frames", "--json", "o.jsonl")
    workplace.refused(5, "NVIDIA GPU with its driver", "irforge doctor", arguments=arguments)
