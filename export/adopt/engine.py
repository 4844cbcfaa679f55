"""A contract beside an engine that irforge did not build, such as trtexec's own: then every verb takes it."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import irforge
from irforge.artifact import read_contract
from irforge.contract import METADATA_KEY, Contract
from irforge.errors import ArtifactError, UsageError
from irforge.files import sha256_of_file, write_text
from irforge.runtime.engines import backend_of
from irforge.runtime.sidecar import LIBRARIES, LOADERS, Sidecar, Source, read_sidecar, sidecar_path, this_platform

_LARGEST_CONTRACT = 16 * 2**20


def adopt_engine(engine: Path, contract_file: Path, *, trust: bool) -> Path:
    """Write the sidecar of an engine that has none: a contract, and the hash that binds it to this very engine.

    Args:
        contract_file: an `.onnx` file with a contract, the sidecar of another engine, or a contract's JSON.
        trust: whoever asks vouches for the engine: loading one runs its code.

    Returns:
        The sidecar's path.

    Raises:
        UsageError: not trusted, or it has a sidecar already.
        ArtifactError: the engine is missing or no plain plan, or the contract cannot be read.
    """
    runtime = next(kind for kind, library in LIBRARIES.items() if library == backend_of(engine))
    beside = sidecar_path(engine)
    if beside.exists():
        raise UsageError(f"'{engine}' has a sidecar already, '{beside.name}'", "Remove that first, or load the engine")
    if not engine.is_file() or engine.stat().st_size == 0:
        raise ArtifactError(f"the engine '{engine}' is missing, empty or no file")
    _refuse_header(engine)
    contract = _read_contract(contract_file)
    if not trust:
        raise UsageError(
            f"'{engine}' was not built by irforge, and engines are code", "Vouch for it with --trust-engine"
        )
    record = Sidecar(
        engine=engine.name,
        engine_sha256=sha256_of_file(engine),
        engine_bytes=engine.stat().st_size,
        runtime=runtime,
        loaders=LOADERS[runtime],
        runtime_version="",
        irforge_version=irforge.__version__,
        platform=this_platform(),
        compute_capabilities=[],
        notes=["adopted: what it was built with, and for, is not known"],
        onnx=Source(name=contract_file.name if contract_file.suffix == ".onnx" else "MODEL.onnx", sha256=""),
        proof_unavailable="irforge did not build this engine",
        build_seconds=0.0,
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        contract=contract,
    )
    write_text(beside, record.model_dump_json(by_alias=True, indent=2) + "\n")
    return beside


def _refuse_header(engine: Path) -> None:
    """Ultralytics puts the length of a JSON text, and the text, before the plan."""
    with engine.open("rb") as handle:
        head = handle.read(5)
    if len(head) == 5 and head[4:] == b"{" and int.from_bytes(head[:4], "little") < engine.stat().st_size:
        raise ArtifactError(
            f"'{engine}' is no plain plan: a program put {int.from_bytes(head[:4], 'little')} bytes of JSON before it",
            "Build it with trtexec or 'irforge build' from the .onnx file",
        )


def _read_contract(path: Path) -> Contract:
    if path.suffix == ".onnx":
        return read_contract(path)
    if path.name.endswith(".engine"):
        return read_sidecar(path).contract
    if not path.is_file():
        raise ArtifactError(f"the contract '{path}' does not exist", "Name an .onnx file with a contract, or its JSON")
    if path.stat().st_size > _LARGEST_CONTRACT:
        raise ArtifactError(f"'{path}' is too large for a contract")
    text = path.read_bytes()
    if f'"{METADATA_KEY}"'.encode() in text:
        return read_sidecar(path.with_suffix("")).contract
    return Contract.from_json(text, str(path))
