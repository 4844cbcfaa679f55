"""Detections judged again by an image encoder: which ones, from which pixels, and what becomes of their scores.

One class serves training's evaluation and the runtime; they differ in who runs the encoder: a torch module here, a
session there. PCB (Qiao et al., DeFRCN, ICCV 2021) compares a box with the support boxes of its class; CM-CLIP (Jung et
al., RISF, 2023) compares it with the names of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from irforge.contract import InputSpec, MinMaxGain
from irforge.detections import Detections
from irforge.errors import InputError
from irforge.frames.crops import box_averages, crop_boxes
from irforge.frames.levels import apply_gain, to_gray
from irforge.frames.read import Frame

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Score = Callable[[Mapping[str, Array]], Array]

ROLE = "rescore"
METADATA_KEY = "irforge.rescoring"
OUTPUT = "rescored"


def companion_beside(primary: Path) -> Path:
    """Where a deployable's own companion goes: beside `x.onnx` lies `x.rescore.onnx`, beside `x.rtx.engine`
    `x.rescore.rtx.engine`."""
    suffix = ".rtx.engine" if primary.name.endswith(".rtx.engine") else primary.suffix
    return primary.with_name(f"{primary.name.removesuffix(suffix)}.rescore{suffix}")


class RescoringSpec(BaseModel):
    """What a companion of role `rescore` does; kept in its metadata and in its primary's contract.

    classes: the detector's. columns: for each class its row of the encoder's table, -1 for one that keeps its score.
    alpha: for each class the share of the detector's score in the new one; 1 leaves it alone.
    lower, upper: only scores with lower < score <= upper are changed.
    limit: at most so many boxes of a frame, those of the highest scores; None means all.
    crop_size: the encoder takes boxes as crops of this side. stride: or it takes the whole frame, padded right and at
    the bottom with `pad_level` to a multiple of it, and averages a map of that stride over each box.
    source: where the encoder and its table come from, to be read: weights, prompts, support.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    method: Literal["clip", "pcb"]
    classes: list[str] = Field(min_length=1)
    columns: list[int]
    alpha: list[float]
    lower: float = Field(default=0.05, ge=0, le=1)
    upper: float = Field(default=1.0, ge=0, le=1)
    limit: int | None = Field(default=20, gt=0)
    crop_size: int | None = Field(default=None, gt=0)
    stride: int | None = Field(default=None, gt=0)
    pad_level: int = Field(default=0, ge=0, le=255)
    source: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> RescoringSpec:
        if not len(self.classes) == len(self.columns) == len(self.alpha):
            raise ValueError(
                f"{len(self.classes)} classes with {len(self.columns)} columns and {len(self.alpha)} alphas"
            )
        if not all(0 <= share <= 1 for share in self.alpha):
            raise ValueError(f"alpha is a share from 0 to 1, not {self.alpha}")
        if (self.crop_size is None) == (self.stride is None):
            raise ValueError("an encoder takes either crops of a size or frames of a stride")
        return self

    @property
    def input(self) -> Literal["crops", "frame"]:
        return "frame" if self.crop_size is None else "crops"

    def rows(self, scores: Floats, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Which detections are judged again, highest score first."""
        changes = (np.array(self.columns) >= 0) & (np.array(self.alpha) < 1)
        # As float32: a score that is exactly the limit must not pass for lying above it.
        window = (scores > np.float32(self.lower)) & (scores <= np.float32(self.upper))
        rows = np.flatnonzero(window & changes[classes])
        return rows[np.argsort(-scores[rows], kind="stable")][: self.limit]


class Rescorer:
    """New scores for a frame's detections; boxes, classes and order stay as they are.

    Args:
        spec: what to do.
        score: the encoder with its table: `crops` float32 [n, 3, s, s], or `frame` uint8 [1, 3, H, W], `row_weights`
            float32 [n, H / stride] and `column_weights` float32 [n, W / stride]; with them `scores` float32 [n] and
            `classes` int64 [n]. It returns the new scores, float32 [n].
    """

    def __init__(self, spec: RescoringSpec, score: Score) -> None:
        self.spec = spec
        self._score = score

    def rescore(self, image: Pixels, boxes: Floats, scores: Floats, classes: npt.NDArray[np.int64]) -> Floats:
        """The new scores, float32 [n], in the order of the old ones.

        Args:
            image: the original frame, uint8 H x W or H x W x 3 (RGB); see `eight_bit`.
            boxes: [n, 4], xyxy in frame pixels.
            scores: [n]. classes: [n].

        Raises:
            InputError: the frame is none of these.
        """
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
            raise InputError(
                f"an image encoder takes uint8 frames, H x W or H x W x 3, not {image.dtype} of shape {image.shape}"
            )
        result = np.array(scores, np.float32)
        rows = self.spec.rows(result, np.asarray(classes, np.int64))
        if len(rows):
            feeds: dict[str, Array] = self.pixels(image, np.asarray(boxes, np.float32)[rows])
            feeds |= {"scores": result[rows], "classes": np.asarray(classes, np.int64)[rows]}
            result[rows] = self._score(feeds)
        return result

    def apply(self, found: Detections, image: Pixels, threshold: float) -> Detections:
        """Detections with their new scores, in the order of these, without those that no longer exceed `threshold`.

        Of `found` all that exceed `spec.lower` should be there, whatever the threshold: a low score may rise.
        """
        scores = self.rescore(image, found.boxes, found.scores, found.classes)
        kept = scores > np.float32(threshold)
        return replace(found, scores=np.where(kept, scores, -np.inf)).take(np.arange(np.count_nonzero(kept)))

    def pixels(self, image: Pixels, boxes: Floats) -> dict[str, Array]:
        """What the encoder sees of a frame for some boxes; see the class."""
        if self.spec.crop_size is not None:
            return {"crops": crop_boxes(image, boxes, self.spec.crop_size)}
        assert self.spec.stride is not None
        frame = padded_frame(image, self.spec.stride, self.spec.pad_level)
        height, width = (side // self.spec.stride for side in frame.shape[2:])
        rows, columns = box_averages(boxes, height, width, self.spec.stride)
        return {"frame": frame, "row_weights": rows, "column_weights": columns}


def padded_frame(image: Pixels, multiple: int, level: int) -> Pixels:
    """uint8 [1, 3, H, W] with sides that are multiples, padded right and at the bottom; gray fills all channels."""
    height, width = image.shape[:2]
    sides = [-(-side // multiple) * multiple for side in (height, width)]
    frame = np.full((1, 3, *sides), level, np.uint8)
    frame[0, :, :height, :width] = np.moveaxis(np.atleast_3d(image), 2, 0)
    return frame


def eight_bit(frame: Frame, spec: InputSpec, where: str = "frame") -> Pixels:
    """A raw frame as an image encoder sees it: 8-bit frames as they are, deeper ones in gray, by the contract's gain
    control or, without one, from their darkest to their brightest level.

    Raises:
        InputError: see `irforge.frames.to_gray`.
    """
    if frame.dtype == np.uint8:
        return np.asarray(frame, np.uint8)
    gain = MinMaxGain() if spec.gain.kind == "none" else spec.gain
    return apply_gain(to_gray(frame, spec.colour, where), gain, spec.bit_depth)
