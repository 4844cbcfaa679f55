"""A deployable as a package takes it in: the file, what its contract says, and what goes along with it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from irforge.artifact import read_contract
from irforge.contract import Contract
from irforge.runtime.backends import choose_backend
from irforge.runtime.rescoring import companion_file, companion_of, spec_of
from irforge.runtime.sidecar import Sidecar, read_sidecar, vouch


@dataclass(frozen=True)
class Deployable:
    """`sidecar` is that of an engine; `companion` the image encoder that re-scores, checked to be the contract's."""

    path: Path
    contract: Contract
    sidecar: Sidecar | None = None
    companion: Path | None = None

    @property
    def name(self) -> str:
        """The file's name without its suffix, of letters, digits and underscores only."""
        return re.sub(r"\W+", "_", re.sub(r"(\.rtx)?\.(onnx|engine)$", "", self.path.name))


def read_deployable(path: str | os.PathLike[str], *, trust_engine: bool = False) -> Deployable:
    """Read what a deployable says of itself; no graph is loaded.

    Args:
        path: an `.onnx` file, or an engine with its sidecar.
        trust_engine: package an engine whose content is not what its sidecar vouches for.

    Raises:
        UsageError: neither by its suffix.
        ArtifactError: the file, its contract, its sidecar or its companion is missing, damaged or another one.
    """
    file = Path(path)
    choose_backend(file)
    sidecar = read_sidecar(file) if file.name.endswith(".engine") else None
    if sidecar is not None:
        vouch(file, sidecar.runtime, trust=trust_engine)
    contract = sidecar.contract if sidecar is not None else read_contract(file)
    companion = companion_of(contract)
    if companion is None:
        return Deployable(file, contract, sidecar)
    spec_of(companion, contract)
    return Deployable(file, contract, sidecar, companion_file(companion, file.parent))
