"""A recipe: everything that decides what a training run produces, as one YAML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from irforge.errors import InputError, UsageError


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputRecipe(_Part):
    """How frames reach the network; becomes the contract's input."""

    height: int = Field(default=256, gt=0)
    width: int = Field(default=256, gt=0)
    fit: Literal["squash", "letterbox", "pad-to-multiple"] = "squash"
    """How a frame becomes that size; with `pad-to-multiple` training and validation see frames at their own size."""
    colour: Literal["mean", "luma", "strict"] = "mean"
    mean: float
    std: float = Field(gt=0)


class Source(_Part):
    """A dataset as `NAME:SPLIT` or a path, and the share of the training samples that are drawn from it.

    `licence` is what the contract records of data whose licence is not known by name. With `validation` False none of
    its frames are held out.
    """

    data: str
    share: float = Field(default=1.0, gt=0)
    validation: bool = True
    licence: str = ""


class Augment(_Part):
    """Random changes to a training sample; 0 or empty switches one off.

    `flip` mirrors along both axes, each by chance, or along the `horizontal` one alone: for things that stand upright.
    `target_share` of the crops hold a target, where the frame has one. `scale` is the range of zoom, drawn for
    `scale_share` of the samples. `gain`, `offset` (levels) and `noise` (levels) imitate other sensors.
    """

    flip: bool | Literal["horizontal"] = True
    transpose: bool = True
    target_share: float = Field(default=0.8, ge=0, le=1)
    scale: tuple[float, float] = (0.75, 1.33)
    scale_share: float = Field(default=0.3, ge=0, le=1)
    contrast_share: float = Field(default=0.5, ge=0, le=1)
    gain: float = Field(default=0.2, ge=0, lt=1)
    offset: float = Field(default=15.0, ge=0)
    noise: float = Field(default=3.0, ge=0)
    blur_share: float = Field(default=0.0, ge=0, le=1)
    noise_share: float = Field(default=0.15, ge=0, le=1)


class Stage(_Part):
    """Some epochs with one crop size and batch size; the learning rate goes from `lr[0]` to `lr[1]` along a cosine."""

    epochs: int = Field(gt=0)
    crop: int = Field(gt=0)
    batch: int = Field(gt=0)
    """Samples of an update, over all processes together."""
    samples: int = Field(default=0, ge=0)
    """Samples in an epoch; 0 means as many as there are training frames."""
    lr: tuple[float, float]
    augment: Augment | None = None
    """In place of the recipe's."""
    ema: float | None = Field(default=None, ge=0, lt=1)
    """In place of the recipe's."""
    shares: list[float] | None = None
    """In place of the sources' shares, in their order."""


class Optimizer(_Part):
    """`betas[0]` is SGD's momentum. Of the decays for SGD, None means that of the weights."""

    name: Literal["adagrad", "adamw", "adam", "sgd"]
    weight_decay: float = 0.0
    bias_decay: float | None = None
    norm_decay: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 0.0
    """Largest gradient norm; 0 means no clipping."""
    warmup_steps: int = Field(default=0, ge=0)
    warmup_start: float | None = Field(default=None, ge=0, le=1)
    """Share of the rate at the first step, from where it rises by equal steps; None means 1 / `warmup_steps`."""


class Recipe(_Part):
    """One training run. `precision` is Lightning's; losses stay in float32 whatever it says.

    `network: {classes: data}` stands for the classes of the data, in their order. A few-shot recipe has the stages of
    each number of shots under `shots`, and data such as `IFSOD:trainval_{K}shot`; see `with_shots`.
    """

    detector: str
    network: dict[str, Any] = {}
    input: InputRecipe
    data: list[Source] = []
    validation_share: float = Field(default=0.07, ge=0, lt=1)
    """Of the frames, to choose the epoch and the score threshold by. 0, where frames are too few to hold any out: no
    validation, the last epoch's weights are kept, and `score_threshold` is what the contract says."""
    score_threshold: float = Field(default=0.5, ge=0, le=1)
    validate_every: int = Field(default=1, gt=0)
    frames: Literal["memory", "disk"] = "memory"
    """Where training frames with boxes wait. From `disk` they are read and fitted anew for each sample, by the workers;
    for sets that no memory holds."""
    stages: list[Stage] = []
    shots: dict[int, list[Stage]] = {}
    loss: dict[str, Any] = {}
    """The detector's own options. For masks `sls`, `soft-iou`, `batch-iou`, `dice`, `bce`, or several with `+` between
    them, alone or as `name` beside other options."""
    augment: Augment = Augment()
    optimizer: Optimizer
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the averaged weights a step; 0 means that the weights themselves are validated and kept."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = True
    compile: bool = False
    """Train through torch.compile: minutes of compiling for each crop size, then faster steps."""
    seed: int = 1

    @field_validator("loss", mode="before")
    @classmethod
    def _loss_by_name(cls, loss: Any) -> Any:
        return {"name": loss} if isinstance(loss, str) else loss

    @model_validator(mode="after")
    def _one_share_a_source(self) -> Recipe:
        every = [*self.stages, *(stage for stages in self.shots.values() for stage in stages)]
        if self.data and any(s.shares is not None and len(s.shares) != len(self.data) for s in every):
            raise ValueError("a stage's 'shares' needs one number for each entry of 'data'")
        return self

    @model_validator(mode="after")
    def _some_stages(self) -> Recipe:
        if not (self.stages or self.shots) or not all(self.shots.values()):
            raise ValueError("a recipe needs 'stages', or stages for each number of shots under 'shots'")
        return self

    def with_shots(self, shots: int | None, draw: int = 0) -> Recipe:
        """The recipe for K shots of a draw: `{K}` and `{S}` in its data are these two, and its stages are K's.

        Raises:
            UsageError: K is missing or has no stages here, or is given and has no place here.
        """
        has_place = bool(self.shots) or any("{K}" in source.data or "{S}" in source.data for source in self.data)
        if has_place == (shots is None):
            known = f"Give --shots K, one of {', '.join(map(str, self.shots))}" if self.shots else "Give --shots K"
            what = "this recipe is for K shots" if has_place else "this recipe knows no shots"
            raise UsageError(what, known if has_place else "Leave --shots out")
        if shots is None:
            return self
        if self.shots and shots not in self.shots:
            known = ", ".join(map(str, self.shots))
            raise UsageError(f"the recipe has no stages for {shots} shots", f"It has: {known}")
        data = [
            source.model_copy(update={"data": source.data.replace("{K}", str(shots)).replace("{S}", str(draw))})
            for source in self.data
        ]
        stages = self.shots[shots] if self.shots else self.stages
        return self.model_copy(update={"data": data, "stages": stages, "shots": {}})

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def stage_at(self, epoch: int) -> tuple[Stage, int]:
        """The stage of an epoch (counted from 0) and the epoch's index within it; the last stage goes on for ever."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage, epoch
            epoch -= stage.epochs
        last = self.stages[-1]
        return last, last.epochs + epoch


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        InputError: the file is missing or no YAML.
        UsageError: a field is unknown, missing or out of range; the message names it.
    """
    import yaml

    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read recipe '{os.fspath(path)}': {error.strerror}", "Check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe '{os.fspath(path)}' is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"recipe '{os.fspath(path)}' is not a mapping of fields")
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        where = f", field '{field}'" if field else ""
        raise UsageError(f"recipe '{os.fspath(path)}'{where}: {first['msg'].removeprefix('Value error, ')}") from None
