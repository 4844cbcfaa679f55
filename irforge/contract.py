"""The contract: what a deployable expects of a frame, what its outputs mean, and where it comes from.

One JSON object, kept in a checkpoint's safetensors metadata, an ONNX file's metadata and an engine's sidecar under the
key `irforge.contract`. Whatever handles a model reads it from there; nobody is asked for a mean, a size or a threshold.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from irforge.errors import ArtifactError

SCHEMA_VERSION = "1.0"
METADATA_KEY = "irforge.contract"


class _Part(BaseModel):
    # Minor versions may add fields: a reader keeps what it does not know, so that nothing is lost on the way through.
    model_config = ConfigDict(extra="allow", frozen=True)


class Range(_Part):
    """A dynamic side in pixels: any multiple of `multiple` from `min` to `max`; engines are tuned for `opt`."""

    min: int = Field(gt=0)
    opt: int = Field(gt=0)
    max: int = Field(gt=0)
    multiple: int = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"a range needs min <= opt <= max, not {self.min}, {self.opt}, {self.max}")
        if any(side % self.multiple for side in (self.min, self.opt, self.max)):
            raise ValueError(f"min, opt and max must be multiples of {self.multiple}")
        return self


Side = int | Range


class NoGain(_Part):
    """Raw levels pass unchanged; for 8-bit frames and for detectors trained on raw counts."""

    kind: Literal["none"] = "none"


class MinMaxGain(_Part):
    """Each frame's darkest level becomes 0 and its brightest 255."""

    kind: Literal["min-max"] = "min-max"


class PercentileGain(_Part):
    """The levels at two percentiles of each frame become 0 and 255; what lies outside is clipped."""

    kind: Literal["percentile"] = "percentile"
    low: float = Field(ge=0, lt=100)
    high: float = Field(gt=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> PercentileGain:
        if self.low >= self.high:
            raise ValueError(f"percentile gain needs low < high, not {self.low} and {self.high}")
        return self


class ClaheGain(_Part):
    """Contrast-limited adaptive histogram equalisation to 8 bits, on `tiles` x `tiles` tiles."""

    kind: Literal["clahe"] = "clahe"
    clip_limit: float = Field(gt=0)
    tiles: int = Field(gt=0)


Gain = Annotated[NoGain | MinMaxGain | PercentileGain | ClaheGain, Field(discriminator="kind")]


class Squash(_Part):
    """Resize to the input size; the aspect ratio is not kept."""

    kind: Literal["squash"] = "squash"


class Letterbox(_Part):
    """Resize by one factor until the frame fits, centre it, pad the rest."""

    kind: Literal["letterbox"] = "letterbox"


class PadToMultiple(_Part):
    """Keep the native size; pad right and bottom to the input size, or to the next multiple if the size is dynamic."""

    kind: Literal["pad-to-multiple"] = "pad-to-multiple"
    multiple: int = Field(gt=0)


class Tile(_Part):
    """Cut the frame into input-sized tiles that overlap by `overlap` pixels; nothing is resized."""

    kind: Literal["tile"] = "tile"
    overlap: int = Field(ge=0)


Fit = Annotated[Squash | Letterbox | PadToMultiple | Tile, Field(discriminator="kind")]


class Normalization(_Part):
    """What the graph does to a pixel before its first layer: (level - mean) / std, in levels of the graph's door.

    Recorded for reading; the graph applies it.
    """

    mean: float
    std: float = Field(gt=0)


class InputSpec(_Part):
    """From a raw frame to the tensor at the graph's door.

    `door`: `uint8` takes levels 0..255 after host-side gain control; `float32` takes raw counts, and `gain` runs inside
    the graph, so that a 14-bit frame keeps its levels. `bit_depth` is that of the raw frame's levels.
    """

    name: str = "frames"
    channels: Literal[1, 3] = 1
    height: Side
    width: Side
    door: Literal["uint8", "float32"] = "uint8"
    bit_depth: int = Field(default=8, ge=8, le=16)
    gain: Gain = NoGain()
    colour: Literal["mean", "luma", "strict"] = "mean"
    fit: Fit
    resize: Literal["antialias", "linear", "nearest"] = "antialias"
    pad_level: float = 0.0
    normalization: Normalization

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if self.door == "uint8" and self.bit_depth > 8 and self.gain.kind == "none":
            raise ValueError("a uint8 door for frames deeper than 8 bits needs a gain control")
        if self.door == "float32" and self.gain.kind == "clahe":
            raise ValueError("CLAHE cannot run inside the graph; use a uint8 door")
        if isinstance(self.fit, Squash | Letterbox | Tile) and isinstance(self.height, Range):
            raise ValueError(f"fit '{self.fit.kind}' needs a fixed size; a dynamic one goes with 'pad-to-multiple'")
        if isinstance(self.height, Range) != isinstance(self.width, Range):
            raise ValueError("height and width must both be fixed or both be dynamic")
        return self

    @property
    def is_dynamic(self) -> bool:
        return isinstance(self.height, Range)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width): the fixed size, or the size that engines are tuned for."""
        return _opt(self.height), _opt(self.width)


def _opt(side: Side) -> int:
    return side.opt if isinstance(side, Range) else side


class TensorSpec(_Part):
    """One tensor at the graph's exit: shape with symbols (`N`, `H`, `W`) or sizes, what its values mean, their unit."""

    name: str
    dtype: str
    shape: list[int | str]
    meaning: str
    unit: str = ""


class NonMaximumSuppression(_Part):
    """Constants inside the graph, recorded to be read."""

    iou_threshold: float
    max_detections: int


class OutputSpec(_Part):
    """What the graph returns. `score_threshold` was chosen once, on validation, for FP32; every precision reuses it.

    Mask targets are the `connectivity`-connected components of probability > `score_threshold` (strict), with score =
    highest probability and centre = unweighted mean of the component's pixel centres.
    """

    kind: Literal["mask", "boxes"]
    classes: list[str] = Field(min_length=1)
    score_threshold: float = Field(ge=0, le=1)
    tensors: list[TensorSpec] = Field(min_length=1)
    connectivity: Literal[4, 8] = 8
    nms: NonMaximumSuppression | None = None


class Companion(_Part):
    """Another deployable that this one needs, by path relative to the primary file."""

    role: str
    path: str
    sha256: str
    input: Literal["frame", "crops"]
    constants: dict[str, Any] = {}


class DataNote(_Part):
    """Data that a model was trained, validated or calibrated on; `frames` is the number used."""

    name: str
    split: str
    frames: int = Field(ge=0)
    licence: str


class Metric(_Part):
    """One measured figure with everything needed to measure it again."""

    name: str
    value: float
    data: str
    frames: int
    protocol: str


class Provenance(_Part):
    """Where a deployable comes from."""

    detector: str
    network: dict[str, Any] = {}
    recipe: str = ""
    recipe_sha256: str = ""
    weights_sha256: str = ""
    trained_on: list[DataNote] = []
    validated_on: list[DataNote] = []
    seed: int | None = None
    epochs: int | None = None
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    irforge_version: str = ""
    metrics: list[Metric] = []
    history: list[dict[str, Any]] = []
    """One entry for each step after training (export, calibrate, quantize, ...): tool, inputs by hash, settings."""


class Contract(_Part):
    """See the module's first lines."""

    schema_version: str = SCHEMA_VERSION
    input: InputSpec
    output: OutputSpec
    companions: list[Companion] = []
    provenance: Provenance

    def to_json(self) -> str:
        """The contract as one line of JSON."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Contract:
        """Read a contract; `where` names the file it was found in.

        Raises:
            ArtifactError: not a contract, or one of an unknown major version.
        """
        from pydantic_core import from_json

        try:
            raw = from_json(text, allow_inf_nan=False)
            major = str(raw["schema_version"]).split(".")[0]
        except (ValueError, KeyError, TypeError):
            raise ArtifactError(
                f"'{where}' holds no readable contract", "Export it again with 'irforge export'"
            ) from None
        if major != SCHEMA_VERSION.split(".")[0]:
            raise ArtifactError(
                f"the contract in '{where}' has schema {raw['schema_version']}, this irforge reads {SCHEMA_VERSION}",
                "Install the irforge that wrote it, or export the model again",
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ArtifactError(f"the contract in '{where}' is invalid at '{field}': {first['msg']}") from None

    def with_step(self, tool: str, **settings: Any) -> Contract:
        """A copy whose history has one more entry."""
        entry = {"tool": tool, **{k: v for k, v in settings.items() if v is not None}}
        return self.with_provenance(history=[*self.provenance.history, entry])

    def with_provenance(self, **changes: Any) -> Contract:
        return self.model_copy(update={"provenance": self.provenance.model_copy(update=changes)})

    def with_input(self, **changes: Any) -> Contract:
        """A validated copy with another input: size, fit, ..."""
        fields = {name: getattr(self.input, name) for name in type(self.input).model_fields} | changes
        return self.model_copy(update={"input": InputSpec(**fields)})


def logit(probability: float) -> float:
    """The logit that a probability threshold stands for; 0 for 0.5, infinite at 0 and 1."""
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
