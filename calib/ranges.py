"""RANGES.json: what each tensor of one model did on one set of frames, and the key that ties it to both."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, TypeVar

import onnx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from irforge.artifact import model_fingerprint
from irforge.contract import Contract
from irforge.errors import CalibrationError
from irforge.files import sha256_of_json, write_json

SCHEMA_VERSION = "1.0"


_Record = TypeVar("_Record", bound=BaseModel)


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class TensorRange(_Part):
    """One tensor over all frames. `min`, `max`, `absmax` are exact; `thresholds` holds one for each method.

    `subnormal` is the share of non-zero values that FP16 holds only as subnormals or not at all (|x| < 2^-14);
    `mean_abs` is the largest mean magnitude of a frame, so that `mean_abs` x size bounds any sum over it.
    """

    min: float
    max: float
    absmax: float = Field(ge=0)
    mean_abs: float = Field(ge=0)
    count: int = Field(ge=0)
    zeros: float = Field(ge=0, le=1)
    subnormal: float = Field(ge=0, le=1)
    thresholds: dict[str, float]


class FramesUsed(_Part):
    """Where the frames came from and the SHA-256 of each one's raw levels, in order.

    `asked` is the limit that was given, `available` what the source holds.
    """

    source: str
    split: str
    licence: str
    asked: int | None
    available: int
    sha256: list[str] = Field(min_length=1)


class Ranges(_Part):
    """See the module's first line."""

    schema_version: str = SCHEMA_VERSION
    key: str
    model: str
    model_fingerprint: str
    contract_input: dict[str, Any]
    frames: FramesUsed
    method: str
    percentile: float
    irforge_version: str = ""
    tensors: dict[str, TensorRange]

    @property
    def command(self) -> str:
        """The command that collects these ranges again."""
        return self.command_for(self.model)

    def command_for(self, model: str | os.PathLike[str]) -> str:
        """The command that collects ranges of another model on the same frames."""
        limit = f" --limit {self.frames.asked}" if self.frames.asked else ""
        return f"irforge calibrate {shlex.quote(str(model))} {self.frames.source} -o RANGES.json{limit}"


def ranges_key(fingerprint: str, contract_input: dict[str, Any], frame_hashes: list[str]) -> str:
    """The content hash of everything that ranges depend on."""
    return sha256_of_json({"model": fingerprint, "input": contract_input, "frames": frame_hashes})


def read_record(
    path: str | os.PathLike[str], kind: type[_Record], what: str, schema_version: str, command: str
) -> _Record:
    """Read a JSON file of calibration, which `command` writes, into its model; `what` names its content in messages.

    Raises:
        CalibrationError: missing, unreadable, or of another major schema version.
    """
    from pydantic_core import from_json

    file = Path(path)
    if not file.is_file():
        raise CalibrationError(f"the file with {what} '{path}' does not exist", f"Make it with '{command}'")
    try:
        raw = from_json(file.read_bytes(), allow_inf_nan=False)
        if str(raw["schema_version"]).split(".")[0] == schema_version.split(".")[0]:
            return kind.model_validate(raw)
        found = raw["schema_version"]
    except (ValueError, KeyError, TypeError, ValidationError):
        raise CalibrationError(f"'{path}' holds no readable {what}", f"Make it again with '{command}'") from None
    raise CalibrationError(
        f"the {what} in '{path}' have schema {found}, this irforge reads {schema_version}",
        f"Make it again with '{command}'",
    )


def save_ranges(path: str | os.PathLike[str], ranges: Ranges) -> None:
    write_json(path, ranges.model_dump())


def load_ranges(path: str | os.PathLike[str]) -> Ranges:
    """Read RANGES.json.

    Raises:
        CalibrationError: missing, not ranges, of an unknown schema, or edited after it was written.
    """
    ranges = read_record(path, Ranges, "ranges", SCHEMA_VERSION, "irforge calibrate")
    if ranges.key != ranges_key(ranges.model_fingerprint, ranges.contract_input, ranges.frames.sha256):
        raise CalibrationError(f"'{path}' was changed after it was written", f"Collect it again: {ranges.command}")
    return ranges


def check_fresh(
    ranges: Ranges,
    where: str | os.PathLike[str],
    model: onnx.ModelProto,
    contract: Contract,
    path: str | os.PathLike[str] | None = None,
) -> None:
    """Make sure that ranges were collected on this very model, under this very contract input.

    Args:
        ranges, where: the ranges and their file.
        model, contract, path: the model at hand, its contract and its file.

    Raises:
        CalibrationError: stale, or of another model; the message says what differs and which command collects anew.
    """
    given = ranges.model if path is None else path
    differs = []
    if ranges.model_fingerprint != model_fingerprint(model):
        differs.append("the model's graph or weights")
    if ranges.contract_input != contract.input.model_dump(mode="json"):
        differs.append("the contract's input")
    if differs:
        if Path(given).name != ranges.model:
            raise CalibrationError(
                f"'{where}' is of {ranges.model}, not {Path(given).name}",
                f"Collect its own: {ranges.command_for(given)}",
            )
        raise CalibrationError(
            f"stale calibration: since '{where}' was collected, {' and '.join(differs)} changed",
            f"Collect it again: {ranges.command_for(given)}",
        )
