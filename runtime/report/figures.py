"""The report's figures of accuracy and parity, for detectors that give a mask and for those that give boxes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

OutputKind = Literal["mask", "boxes"]
Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*=*$")]
Rate = Annotated[float, Field(ge=0, le=1)]
MASK_SIZES = ("up to 9 px", "10 to 25 px", "over 25 px")
"""Size classes of mask targets, by pixels. Those of boxes are `irforge.metrics.SIZE_BUCKETS`, by square pixels."""


class Part(BaseModel):
    """What every part of a report is made from."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Found(Part):
    """Targets found: `pd` is their share, null where there is no target, and `pd_interval` its 95 % Wilson interval."""

    frames: int = Field(gt=0)
    targets: int = Field(ge=0)
    found: int = Field(ge=0)
    pd: Rate | None
    pd_interval: tuple[float, float] | None

    @model_validator(mode="after")
    def _counted(self) -> _Found:
        if self.found > self.targets:
            raise ValueError("more targets found than there are")
        return self


class MaskAccuracy(_Found):
    """Pooled over all frames, at the model's own resolution. Rates are 0..1; `fa` is false pixels over all pixels.

    `iou` and `niou` are null where no frame holds a target or a detection.
    """

    kind: Literal["mask"] = "mask"
    iou: Rate | None
    niou: Rate | None
    fa: Rate
    false_pixels_per_100_frames: float = Field(ge=0)


class BoxRates(Part):
    """Right, wrong and missed boxes at the threshold, by one rule of what is right; a rate is null without a
    denominator."""

    right: int = Field(ge=0)
    wrong: int = Field(ge=0)
    missed: int = Field(ge=0)
    precision: Rate | None
    recall: Rate | None
    f1: Rate | None


class SizeAP(Part):
    """COCO's AP over the targets of one size class; null where there are none."""

    size_class: str
    targets: int = Field(ge=0)
    ap: Rate | None


class Alarms(Part):
    """False alarms at the threshold on the frames without a target, per hour at `frame_rate` frames a second, with the
    exact 95 % Poisson interval."""

    frames: int = Field(gt=0)
    alarms: int = Field(ge=0)
    frame_rate: float = Field(gt=0)
    per_hour: float = Field(ge=0)
    interval: tuple[float, float]


class BoxAccuracy(_Found):
    """Pooled over all frames, in frame pixels.

    `ap`, `ap50`, `ap75`, `ap_by_size` are COCO's, over all scores; size classes come smallest first. The rest holds at
    the threshold: `iou50`, `iou30` and `centre` take a box for right by IoU >= 0.5, by IoU >= 0.3, or by a distance of
    centres below 3 pixels. By the last also `found`, `pd`, false boxes, and the centres' error in pixels. `alarms` is
    null without a target-free frame.
    """

    kind: Literal["boxes"] = "boxes"
    ap: Rate | None
    ap50: Rate | None
    ap75: Rate | None
    ap_by_size: list[SizeAP]
    iou50: BoxRates
    iou30: BoxRates
    centre: BoxRates
    false_boxes_per_100_frames: float = Field(ge=0)
    centre_error_median: float | None
    centre_error_p95: float | None
    alarms: Alarms | None


def _kind(value: Any) -> str | None:
    # Reports of schema 1.0 hold masks and do not say so.
    return value.get("kind", "mask") if isinstance(value, dict) else getattr(value, "kind", None)


Accuracy = Annotated[Annotated[MaskAccuracy, Tag("mask")] | Annotated[BoxAccuracy, Tag("boxes")], Discriminator(_kind)]


class OutputDifference(Part):
    """One output against the reference's. `flipped_share` is the share of pixels on the other side of the threshold.

    Differences are null where values were met that are not finite.
    """

    name: str
    max_abs: float | None
    mean_abs: float | None
    flipped_pixels: int = Field(ge=0)
    flipped_share: float = Field(ge=0, le=1)
    not_finite: int = Field(ge=0)


class BoxDifference(Part):
    """Detections of score > `floor` against the reference's, paired one to one; see `irforge.runtime.pairing`.

    `max_box` is the largest move of an edge in frame pixels, `max_score` of a score, over all `pairs`; null where there
    is no pair. `only_reference` and `only_candidate` found no partner, `alone` of them above the threshold. `flipped`
    lie on the other side of it than their partner, or are those alone. `not_finite` counts detections with such a
    value, which are left out.
    """

    floor: float = Field(ge=0)
    pairs: int = Field(ge=0)
    max_box: float | None
    max_score: float | None
    only_reference: int = Field(ge=0)
    only_candidate: int = Field(ge=0)
    alone: int = Field(ge=0)
    flipped: int = Field(ge=0)
    not_finite: int = Field(ge=0)


class Crop(Part):
    """PNG pictures (base64) of one neighbourhood: the frame (stretched to its own darkest and brightest level), truth,
    and what reference and candidate gave: a mask's probability, or boxes filled with their score."""

    frame: Base64
    truth: Base64
    reference: Base64
    candidate: Base64


class TargetChange(Part):
    """A target that only one of reference and candidate found. `row`, `column`: its centre, pixel centres at integers;
    `area` in pixels. Pixels are the model's own for masks, the frame's for boxes. `reference_peak`, `candidate_peak`:
    the highest probability on its pixels, or the highest score of a box that is near enough to find it."""

    kind: Literal["lost", "gained"]
    frame: str
    row: float
    column: float
    area: float = Field(gt=0)
    size_class: str
    reference_peak: float
    candidate_peak: float
    crop: Crop | None = None


class SizeCount(Part):
    """Targets of one size class in the data, and how many of them changed."""

    size_class: str
    targets: int = Field(ge=0)
    lost: int = Field(ge=0)
    gained: int = Field(ge=0)


class Check(Part):
    """One limit and whether it held; `value` null means that it could not be measured, which fails."""

    name: str
    value: float | None
    limit: float
    unit: str
    passed: bool


class _Compared(Part):
    """A candidate against the reference on the same frames. Differences are candidate minus reference; `points` are
    hundredths of a rate, null where one of the two does not have it."""

    reference: str
    frames: int = Field(gt=0)
    targets: int = Field(ge=0)
    pd_points: float | None
    by_size: list[SizeCount]
    changes: list[TargetChange]
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


class MaskParity(_Compared):
    """What became of a mask."""

    kind: Literal["mask"] = "mask"
    outputs: list[OutputDifference]
    iou_points: float | None
    niou_points: float | None
    false_pixels_per_100_frames: float | None


class BoxParity(_Compared):
    """What became of boxes. `f1_points` is at IoU 0.5, `smallest_ap_points` of the first of `ap_by_size`,
    `centre_error_p95` in pixels."""

    kind: Literal["boxes"] = "boxes"
    boxes: BoxDifference
    f1_points: float | None
    ap_points: float | None
    ap50_points: float | None
    smallest_ap_points: float | None
    centre_error_p95: float | None
    false_boxes_per_100_frames: float | None


Parity = Annotated[Annotated[MaskParity, Tag("mask")] | Annotated[BoxParity, Tag("boxes")], Discriminator(_kind)]
