"""The report's schema: every figure that `irforge bench` measured, with what is needed to measure it again.

Milliseconds, bytes, pixels and points (hundredths of a rate) are named in the field; sizes are height x width. Anything
that could not be measured is null, with a note that says why. `schema.json` beside this file is its JSON Schema.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from irforge.errors import ArtifactError
from irforge.files import write_text
from irforge.runtime.report.figures import Accuracy, OutputKind, Parity, Part
from irforge.runtime.report.times import BatchPoint, ColdStart, Distribution, Latency, Memory, Readings, Sustained

__all__ = [
    "Data",
    "Distribution",
    "EngineFacts",
    "Environment",
    "Finding",
    "Latency",
    "Model",
    "Report",
    "Tiles",
    "json_schema",
    "parse_report",
    "read_report",
    "write_report",
]

SCHEMA_VERSION = "1.3"


class EngineFacts(Part):
    """What a compiled plan says of itself for the GPUs that share one program; a null was not in the plan.

    Shares (0..1) are of the convolution MACs that both read and write a type; `reads`, `writes` name all types. `macs`
    are a frame batch's, by the type that is read; empty where they are not known. `tf32`: FP32 may compute in TF32.
    """

    file: str
    file_bytes: int = Field(ge=0)
    runtime: str
    targets: list[str] = Field(min_length=1)
    kernels: int | None = None
    int8_share: float | None = None
    fp16_share: float | None = None
    reads: str = ""
    writes: str = ""
    bytes_moved: int | None = None
    peak_bytes: int | None = None
    weight_bytes: dict[str, int] = Field(default_factory=dict)
    macs: dict[str, int] = Field(default_factory=dict)
    tf32: bool | None = None
    notes: list[str] = Field(default_factory=list)


class Tiles(Part):
    """How frames were cut into tiles of the model's size: pixels that neighbours share at least, tiles a frame
    (`fewest` and `most` of the frames on the clocks), and tiles in a run of the graph."""

    overlap: int = Field(ge=0)
    fewest: int = Field(gt=0)
    most: int = Field(gt=0)
    a_run: int = Field(gt=0)


class Model(Part):
    """One file, or the reference, at one size. `variant` tells it from another file of that size and precision.

    `tiles` is null where a frame is one run of the graph, and in reports of schema 1.2 and before; else times and
    accuracy are of whole frames, and the size, the plans' facts and trtexec's commands of a tile.
    `batches` is empty where no batch was asked for or the graph's is fixed, and `batch_note` then says which. `trtexec`
    holds the command that measures the same file with NVIDIA's tool, by its major version. These, `start`, `memory` and
    `sustained` are not in reports of schema 1.1 and before.
    """

    name: str
    variant: str = ""
    role: Literal["reference", "candidate"]
    precision: Literal["fp32", "fp16", "int8"]
    backend: str
    device: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    sha256: str
    file_bytes: int = Field(gt=0)
    protocol: str
    tiles: Tiles | None = None
    threshold: float
    accuracy: Accuracy | None
    parity: Parity | None
    latency: Latency | None
    start: ColdStart | None = None
    memory: Memory | None = None
    sustained: Sustained | None = None
    batches: list[BatchPoint] = Field(default_factory=list)
    batch_note: str = ""
    trtexec: dict[str, str] = Field(default_factory=dict)
    engines: list[EngineFacts] = Field(default_factory=list)
    contract: dict[str, Any]


class Data(Part):
    """The frames that accuracy and parity were measured on."""

    name: str
    split: str
    frames: int = Field(gt=0)
    frames_in_split: int = Field(gt=0)
    targets: int | None
    licence: str = ""


class Environment(Part):
    """The machine, at the start of the measurement."""

    date: str
    system: str
    cpu: str
    cores: int = Field(gt=0)
    memory_bytes: int | None
    gpu: str
    load_average: tuple[float, float, float] | None
    threads: int = Field(gt=0)
    python: str
    packages: dict[str, str]


class Finding(Part):
    """One sentence that a reader should not miss."""

    level: Literal["bad", "caution", "good", "note"]
    text: str


class Report(Part):
    """See the module's first lines. One kind of output for all models; `findings` come worst first.

    `readings` were taken while the models took turns, a size after the other; `readings_note` says what could not be
    read, and why.
    """

    schema_version: str = SCHEMA_VERSION
    irforge_version: str
    command: str
    detector: str
    output: OutputKind = "mask"
    data: Data
    environment: Environment
    models: list[Model] = Field(min_length=1)
    findings: list[Finding]
    readings: list[Readings] = Field(default_factory=list)
    readings_note: str = ""
    seconds: float = Field(ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Report:
        names = {model.name for model in self.models}
        for model in self.models:
            if model.parity and model.parity.reference not in names:
                raise ValueError(f"'{model.name}' is compared with '{model.parity.reference}', which is not here")
            for part in (model.accuracy, model.parity):
                if part and part.kind != self.output:
                    raise ValueError(f"'{model.name}' has figures of output '{part.kind}' among '{self.output}'")
        return self

    @property
    def references(self) -> set[str]:
        """Names of the models that others were compared with."""
        return {m.parity.reference for m in self.models if m.parity}

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The (height, width) of the models, largest first: the headline leads."""
        return sorted({(m.height, m.width) for m in self.models}, key=lambda s: (-s[0] * s[1], s))

    def at_size(self, size: tuple[int, int]) -> list[Model]:
        """The models of one size: the reference, then the candidates as they were given."""
        return [m for m in self.models if (m.height, m.width) == size]


def json_schema() -> str:
    """The text of `schema.json`."""
    return json.dumps(Report.model_json_schema(), indent=2) + "\n"


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Write a report, validated once more as a reader will see it."""
    text = report.model_dump_json(indent=1) + "\n"
    parse_report(text, str(path))
    write_text(path, text)


def read_report(path: str | os.PathLike[str]) -> Report:
    """Read a report.

    Raises:
        ArtifactError: not there, not a report, of an unknown major version, or one whose figures contradict each other.
    """
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise ArtifactError(
            f"the report '{path}' does not exist", "Check the path, or make one with 'irforge bench ... -o report.json'"
        ) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise ArtifactError(f"'{path}' is not a report", "Make one with 'irforge bench ... -o report.json'") from None
    return parse_report(text, str(path))


def parse_report(text: str, where: str) -> Report:
    """`read_report` for text; `where` names its origin in messages."""
    try:
        raw = json.loads(text)
        major = str(raw["schema_version"]).split(".")[0]
    except (ValueError, KeyError, TypeError):
        raise ArtifactError(f"'{where}' is not a report", "Make one with 'irforge bench ... -o report.json'") from None
    if major != SCHEMA_VERSION.split(".")[0]:
        raise ArtifactError(
            f"the report '{where}' has schema {raw['schema_version']}, this irforge reads {SCHEMA_VERSION}",
            "Install the irforge that wrote it, or run 'irforge bench' again",
        )
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ArtifactError(f"the report '{where}' is invalid at '{field}': {first['msg']}") from None
