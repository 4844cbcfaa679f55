"""What `irforge compare` writes: every figure with what is needed to measure it again.

Sizes are (height, width), times milliseconds, rates 0..1. What a contestant cannot give is null, and its `missing` says
why.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from irforge.errors import ArtifactError
from irforge.files import write_text
from irforge.runtime.report.figures import Alarms, Base64, BoxRates, MaskAccuracy, OutputKind, Part, Rate
from irforge.runtime.report.schema import Data, Distribution, EngineFacts, Environment, Finding

SCHEMA_VERSION = "1.0"

Box = tuple[float, float, float, float]


class Objects(Part):
    """What every detector is judged by: its boxes, or those around the components of its mask, in frame pixels.

    At the threshold: `centre` takes a detection for right whose centre is less than 3 pixels from the true one's,
    `iou50` by IoU >= 0.5; `found`, `pd` and false detections follow the first. `alarms` are those on frames without a
    target. Over all scores that the detector gives: `ap50` is COCO's; `nocoap` is mNoCoAP, `nocoap_legacy` as its
    published code takes and rounds points: the centres of boxes (`legacy` in `irforge.metrics.NocoMetrics`), and of
    masks the first of the brightest pixels (`shifted`).
    """

    frames: int = Field(gt=0)
    targets: int = Field(ge=0)
    found: int = Field(ge=0)
    pd: Rate | None
    pd_interval: tuple[float, float] | None
    centre: BoxRates
    iou50: BoxRates
    ap50: Rate | None
    nocoap: Rate | None
    nocoap_legacy: Rate | None
    false_per_frame: float = Field(ge=0)
    false_per_hour: float = Field(ge=0)
    alarms: Alarms | None


class CurvePoint(Part):
    """Counting all detections of score >= `score`: precision and recall by the centre rule, false ones a frame."""

    score: float
    precision: Rate
    recall: Rate
    false_per_frame: float = Field(ge=0)


class MaskPoint(Part):
    """At probability > `threshold`, in frame pixels: share of targets found, share of pixels that are false alarms."""

    threshold: Rate
    pd: Rate
    fa: Rate


class Timing(Part):
    """From a raw frame in memory to its detections. `interleaved`: the contestants took turns on the same frames; else
    each frame ran once, when its accuracy was measured."""

    frame: Distribution
    interleaved: bool
    threads: int = Field(gt=0)


class Contestant(Part):
    """One model. `fit` says how a frame reaches it; `macs` are those of a frame of `macs_size` inside it.

    `mask` is scored in frame pixels, at the frame's own size; `mask_at_model` at the size that the model sees, as some
    published tables are; null where the two are the same.
    """

    name: str
    detector: str
    output: OutputKind
    precision: Literal["fp32", "fp16", "int8"]
    backend: str
    device: str
    sha256: str
    file_bytes: int = Field(gt=0)
    fit: str
    threshold: float
    parameters: int | None
    macs: int | None
    macs_size: tuple[int, int] | None
    engine: EngineFacts | None
    mask: MaskAccuracy | None
    mask_at_model: MaskAccuracy | None
    objects: Objects
    curve: list[CurvePoint]
    mask_curve: list[MaskPoint]
    timing: Timing | None
    trained_on: list[str]
    missing: dict[str, str]

    @model_validator(mode="after")
    def _explained(self) -> Contestant:
        silent = [name for name in MAY_MISS if self.value(name) is None and name not in self.missing]
        if silent:
            raise ValueError(f"'{self.name}' has no {silent[0]} and does not say why")
        return self

    def value(self, name: str) -> object:
        return getattr(self if name in type(self).model_fields else self.objects, name)


MAY_MISS = ("mask", "nocoap", "nocoap_legacy", "alarms", "parameters", "macs", "engine", "timing")
"""Fields of a contestant, or of its `objects`, that are explained where they are null."""


class Seen(Part):
    """What one contestant made of a frame: numbers of the true targets that it found; its detections above the
    threshold as boxes of the picture, and which of them are right."""

    name: str
    found: list[int]
    boxes: list[Box]
    right: list[bool]
    false: int = Field(ge=0)


class Disagreement(Part):
    """A frame on which the contestants are at odds: the picture (PNG, base64) of the neighbourhood of `row`, `column`,
    true boxes in its pixels, and what each contestant saw. `amount` is as `irforge.runtime.comparison.gallery` says."""

    frame: str
    amount: float = Field(ge=0)
    targets: int = Field(ge=0)
    row: float
    column: float
    picture: Base64
    truth: list[Box]
    seen: list[Seen]


class Comparison(Part):
    """See the module's first lines. `findings` come worst first, `gallery` with the largest disagreement first."""

    schema_version: str = SCHEMA_VERSION
    irforge_version: str
    command: str
    protocol: str
    data: Data
    frame_rate: float = Field(gt=0)
    environment: Environment
    contestants: list[Contestant] = Field(min_length=1)
    findings: list[Finding]
    gallery: list[Disagreement]
    seconds: float = Field(ge=0)

    @model_validator(mode="after")
    def _same_frames(self) -> Comparison:
        names = [one.name for one in self.contestants]
        if len(set(names)) < len(names):
            raise ValueError("two contestants have the same name")
        for one in self.contestants:
            if one.objects.frames != self.data.frames or one.objects.targets != self.data.targets:
                raise ValueError(f"'{one.name}' was not measured on all {self.data.frames} frames")
        for row in self.gallery:
            if [seen.name for seen in row.seen] != names:
                raise ValueError(f"frame '{row.frame}' of the gallery shows other contestants")
        return self


def write_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Write a comparison, validated once more as a reader will see it."""
    text = comparison.model_dump_json(indent=1) + "\n"
    parse_comparison(text, str(path))
    write_text(path, text)


def read_comparison(path: str | os.PathLike[str]) -> Comparison:
    """Read what `irforge compare` wrote.

    Raises:
        ArtifactError: not there, no comparison, of an unknown major version, or its figures contradict each other.
    """
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise ArtifactError(
            f"the comparison '{path}' does not exist",
            "Check the path, or make one with 'irforge compare MODELS... --data SET'",
        ) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise _no_comparison(str(path)) from None
    return parse_comparison(text, str(path))


def parse_comparison(text: str, where: str) -> Comparison:
    """`read_comparison` for text; `where` names its origin in messages."""
    try:
        raw = json.loads(text)
        major, _ = str(raw["schema_version"]).split(".")[0], raw["contestants"]
    except (ValueError, KeyError, TypeError):
        raise _no_comparison(where) from None
    if major != SCHEMA_VERSION.split(".")[0]:
        raise ArtifactError(
            f"the comparison '{where}' has schema {raw['schema_version']}, this irforge reads {SCHEMA_VERSION}",
            "Install the irforge that wrote it, or run 'irforge compare' again",
        )
    try:
        return Comparison.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ArtifactError(f"the comparison '{where}' is invalid at '{field}': {first['msg']}") from None


def _no_comparison(where: str) -> ArtifactError:
    return ArtifactError(f"'{where}' is no comparison", "Make one with 'irforge compare MODELS... --data SET'")
