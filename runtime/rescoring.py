"""Re-scoring at run time: the companion of a deployable, an image encoder with its table, as a second session."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from irforge.contract import Companion, Contract
from irforge.errors import ArtifactError
from irforge.files import sha256_of_file
from irforge.rescoring import OUTPUT, ROLE, Rescorer, RescoringSpec
from irforge.runtime.backends import open_session
from irforge.runtime.sidecar import read_sidecar, sidecar_path
from irforge.session import Array, Session


class SessionRescorer(Rescorer):
    """A Rescorer on a session, which is closed along with it. As many threads at a time as the session allows."""

    def __init__(self, spec: RescoringSpec, session: Session, name: str) -> None:
        super().__init__(spec, self._run)
        self.session = session
        self.name = name

    def _run(self, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        scores = np.asarray(self.session.run(feeds)[OUTPUT], np.float32)
        if not np.isfinite(scores).all():
            raise ArtifactError(
                f"'{self.name}' gives scores that are not finite: it overflows in this precision",
                "Use the FP32 file of the companion",
            )
        return scores

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> SessionRescorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_rescorer(
    contract: Contract, primary: str | os.PathLike[str], threads: int | None = None
) -> SessionRescorer | None:
    """What judges the detections of a deployable again; None where its contract names nothing that does.

    Args:
        contract: the deployable's.
        primary: the deployable; companions lie beside it or below, and its sidecar vouches for their engines.
        threads: CPU threads inside one operator.

    Raises:
        ArtifactError: the companion is missing, is another file than the contract's, lies elsewhere, or does not fit
            its constants; or the contract names a companion of a role that is not known here.
        EnvironmentFault: see `irforge.runtime.backends.open_session`.
    """
    companion = companion_of(contract)
    if companion is None:
        return None
    spec = spec_of(companion, contract)
    path = companion_file(companion, Path(primary).parent)
    session = _open(path, companion, primary, threads)
    wanted = {"scores", "classes", *(("crops",) if spec.input == "crops" else _FRAME_FEEDS)}
    if set(session.inputs) != wanted or OUTPUT not in session.outputs:
        found = ", ".join(session.inputs)
        session.close()
        raise ArtifactError(
            f"'{path}' takes {found}, not {', '.join(sorted(wanted))}", "Make it again with 'irforge rescore'"
        )
    return SessionRescorer(spec, session, companion.path)


_FRAME_FEEDS = ("frame", "row_weights", "column_weights")


def _open(path: Path, companion: Companion, primary: str | os.PathLike[str], threads: int | None) -> Session:
    if path.suffix != ".engine":
        return open_session(path, threads=threads)
    # Of its content the contract is sure; how it was built its primary's sidecar knows, for it has no contract itself.
    built = next((r for r in read_sidecar(primary).companions if r.engine_sha256 == companion.sha256), None)
    if built is None:
        raise ArtifactError(
            f"'{sidecar_path(primary).name}' does not know the engine '{companion.path}'",
            "Build both again with 'irforge build'",
        )
    from irforge.runtime.parts import open_part

    # A graph would be captured anew for each number of boxes.
    return open_part(path, built, cuda_graph=False)


def companion_of(contract: Contract) -> Companion | None:
    """The one companion that a contract names; None if it names none.

    Raises:
        ArtifactError: it is of a role that is not known here, or not the only one.
    """
    unknown = next((companion.role for companion in contract.companions if companion.role != ROLE), None)
    if unknown is not None or len(contract.companions) > 1:
        what = f"a companion of role '{unknown}'" if unknown else f"{len(contract.companions)} companions that re-score"
        raise ArtifactError(f"the contract names {what}, which this irforge does not know how to use", "Update irforge")
    return contract.companions[0] if contract.companions else None


def spec_of(companion: Companion, contract: Contract) -> RescoringSpec:
    """What a companion does, from its constants in the contract.

    Raises:
        ArtifactError: they are invalid, or for other classes.
    """
    try:
        # By way of JSON, as the contract came here: a tuple or a NumPy number then reads as it will from a file.
        spec = RescoringSpec.model_validate_json(json.dumps(companion.constants))
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(f"the constants of companion '{companion.path}' are invalid: {first['msg']}") from None
    if spec.classes != contract.output.classes:
        raise ArtifactError(
            f"companion '{companion.path}' is for the classes {', '.join(spec.classes)}, the detector has"
            f" {', '.join(contract.output.classes)}",
            "Make it again with 'irforge rescore'",
        )
    return spec


def companion_file(companion: Companion, folder: Path) -> Path:
    """Where a companion lies, in the folder of its primary or below.

    Raises:
        ArtifactError: it is named elsewhere, missing, or another file than the contract's.
    """
    inside = PurePosixPath(companion.path)
    if inside.is_absolute() or ".." in inside.parts or "\\" in companion.path or not companion.path:
        raise ArtifactError(
            f"the contract places a companion at '{companion.path}', outside the deployable's folder",
            "Put it beside the deployable and make it again with 'irforge rescore'",
        )
    path = folder / inside
    if not path.is_file():
        raise ArtifactError(f"the companion '{path}' does not exist", "Copy it along with the deployable that names it")
    if sha256_of_file(path) != companion.sha256:
        raise ArtifactError(
            f"'{path}' is not the companion that the contract names: its content differs",
            "Copy it again, or make both again with 'irforge rescore'",
        )
    return path
