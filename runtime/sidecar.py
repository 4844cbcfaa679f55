"""`<engine>.json`: what stands beside every engine, checked before the engine is loaded, because engines are code."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from irforge.contract import METADATA_KEY, Contract
from irforge.errors import ArtifactError
from irforge.files import sha256_of_file
from irforge.runtime.compilers.targets import without_rtx
from irforge.runtime.proof import PrecisionProof

SCHEMA_VERSION = "1.0"
MAX_BYTES = 16 * 2**20

RuntimeKind = Literal["TensorRT", "TensorRT-RTX"]
LIBRARIES: dict[RuntimeKind, Literal["tensorrt", "tensorrt_rtx"]] = {
    "TensorRT": "tensorrt",
    "TensorRT-RTX": "tensorrt_rtx",
}
LOADERS: dict[RuntimeKind, str] = {
    "TensorRT": "irforge, trtexec, Triton and DeepStream of the same TensorRT version load this plan",
    "TensorRT-RTX": "irforge and other programs on the TensorRT-RTX runtime load this plan; trtexec, Triton and "
    "DeepStream do not",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)


class Source(_Part):
    """The ONNX file that an engine was built from."""

    name: str
    sha256: str


class Plugin(_Part):
    """A plugin library that the engine needs."""

    name: str
    sha256: str


class EngineRecord(_Part):
    """What whoever built an engine knows of it: all that its sidecar says but the contract."""

    schema_version: str = SCHEMA_VERSION
    engine: str
    engine_sha256: str
    engine_bytes: int
    runtime: RuntimeKind
    loaders: str
    runtime_version: str
    irforge_version: str
    platform: str
    compute_capabilities: list[str]
    device: str | None = None
    skipped_targets: dict[str, str] = {}
    notes: list[str] = []
    onnx: Source
    profile: dict[str, list[list[int]]] = {}
    custom_ops: str = ""
    plugins: list[Plugin] = []
    proofs: list[PrecisionProof] = []
    proof_unavailable: str = ""
    trtexec: dict[str, str] = {}
    build_seconds: float
    build_log_tail: list[str] = []
    built_at: str


class Sidecar(EngineRecord):
    """Everything a loader has to know about an engine before it touches it; and of its companions' engines, too."""

    companions: list[EngineRecord] = []
    contract: Contract = Field(validation_alias=METADATA_KEY, serialization_alias=METADATA_KEY)

    def to_json_value(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


def sidecar_path(engine: str | os.PathLike[str]) -> Path:
    """`x.rtx.engine` -> `x.rtx.engine.json`."""
    return Path(f"{os.fspath(engine)}.json")


def this_platform() -> str:
    """What plans are bound to besides the GPU, such as 'linux-x86_64'."""
    return f"{sys.platform}-{platform.machine().lower()}"


def read_sidecar(engine: str | os.PathLike[str]) -> Sidecar:
    """The sidecar of an engine.

    Raises:
        ArtifactError: there is none, or it is damaged or of an unknown major version.
    """
    path = sidecar_path(engine)
    if not path.is_file():
        raise ArtifactError(
            f"'{path.name}' is missing beside '{engine}': nobody knows what the engine expects",
            "Copy it along with the engine, or give it one: irforge adopt ENGINE --contract FILE --trust-engine",
        )
    if path.stat().st_size > MAX_BYTES:
        raise ArtifactError(f"'{path}' is too large for a sidecar ({path.stat().st_size} bytes)")
    try:
        sidecar = Sidecar.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the JSON itself"
        raise ArtifactError(
            f"'{path}' is no valid sidecar: {field}: {first['msg']}", "Build the engine again with 'irforge build'"
        ) from None
    if sidecar.schema_version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise ArtifactError(
            f"'{path}' has schema {sidecar.schema_version}, this irforge reads {SCHEMA_VERSION}",
            "Install the irforge that wrote it, or build the engine again",
        )
    return sidecar


def vouch(
    engine: str | os.PathLike[str], runtime: RuntimeKind, *, trust: bool = False, built: EngineRecord | None = None
) -> EngineRecord:
    """Hold an engine file to its sidecar before anything reads a byte of it as code.

    Args:
        engine: the engine file.
        runtime: the runtime that is about to load it.
        trust: load it even if its content is not what the sidecar vouches for.
        built: what this process built, in place of a sidecar; see `irforge.runtime.parts`.

    Raises:
        ArtifactError: the engine is missing, empty, changed, or for another runtime; or its sidecar is missing or bad.
    """
    file = Path(engine)
    if not file.is_file() or file.stat().st_size == 0:
        raise ArtifactError(f"the engine '{file}' is missing, empty or no file")
    record = built or read_sidecar(file)
    if not trust and sha256_of_file(file) != record.engine_sha256:
        if built:
            raise ArtifactError(f"'{file}' changed since it was built here, and engines are code", "Build it again")
        raise ArtifactError(
            f"'{file}' is not the engine that '{sidecar_path(file).name}' vouches for, and engines are code",
            "Copy both again, or load it with --trust-engine if you know where it comes from",
        )
    if record.runtime != runtime:
        raise ArtifactError(f"'{file}' is for {record.runtime}, not for {runtime}", record.loaders)
    return record


def check_fit(engine: str | os.PathLike[str], record: EngineRecord, *, version: str, compute_capability: str) -> None:
    """Hold a sidecar to the machine that the engine is about to run on.

    Args:
        engine: the engine file, for messages.
        record: its sidecar, or what this process built.
        version: the runtime's version here.
        compute_capability: of the GPU here.

    Raises:
        ArtifactError: the engine was built with another version, for other GPUs, or for another platform.
    """
    if not record.runtime_version:
        # Adopted: nobody knows what it was built with, and the runtime has to say whether it takes it.
        return
    rebuild = f"Build it again here: irforge build {record.onnx.name} -o {record.engine}"
    where = f"'{engine}' was built"
    if record.runtime_version != version:
        raise ArtifactError(f"{where} with {record.runtime} {record.runtime_version}, here is {version}", rebuild)
    if compute_capability not in record.compute_capabilities:
        built_for = ", ".join(record.compute_capabilities)
        if record.runtime == "TensorRT-RTX" and (generation := without_rtx(compute_capability)):
            rebuild = (
                f"TensorRT-RTX does not run on {generation}. Build with TensorRT here: "
                f"irforge build {record.onnx.name} -o {record.engine.removesuffix('.rtx.engine')}.engine"
            )
        raise ArtifactError(f"{where} for SM {built_for}, this GPU is SM {compute_capability}", rebuild)
    if record.platform != this_platform():
        raise ArtifactError(f"{where} for {record.platform}, this is {this_platform()}", rebuild)
