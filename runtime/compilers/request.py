"""What the parent asks of a compiling child process, and what it gets back; both travel as JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from irforge.runtime.proof import PrecisionProof

Backend = Literal["tensorrt", "tensorrt_rtx"]
Shape = tuple[int, ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class BuildRequest(_Part):
    """One compilation. `profile` gives least, tuned-for and greatest shape by name of each input with a free size;
    `plugin_library` is loaded first, and has to bring a creator for each of `plugins`."""

    backend: Backend
    onnx: str
    plan: str
    targets: tuple[str, ...] = ()
    profile: dict[str, tuple[Shape, Shape, Shape]] = {}
    timing_cache: str | None = None
    workspace_bytes: int | None = None
    plugin_library: str | None = None
    plugins: tuple[str, ...] = ()


class BuildResult(_Part):
    """What the child knows after a compilation; `proofs` only where it has a device to inspect the engine on."""

    version: str
    seconds: float
    compute_capabilities: tuple[str, ...]
    device: str | None = None
    proofs: tuple[PrecisionProof, ...] = ()
    proof_unavailable: str = ""


class BuildFailure(_Part):
    """Which gate refused, and what it said."""

    gate: Literal["environment", "parser", "compiler"]
    message: str
