"""Detections, and the one place where a graph's outputs become detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.components import components
from irforge.contract import Contract
from irforge.errors import ArtifactError
from irforge.frames.geometry import Geometry

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one frame, highest score first; equal scores keep the order they came in.

    boxes: float32 [n, 4], xyxy, half-open, 0-based pixel edges, in raw-frame pixels.
    scores: float32 [n], 0..1. classes: int64 [n], 0-based.
    centres: float32 [n, 2], (x, y) as edge coordinates (pixel index + 0.5); None where a detector gives boxes only.
    areas: float32 [n], square frame pixels: of the component for mask targets, of the box otherwise.
    mask: bool [H, W] in frame pixels; only where it was asked for.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    centres: npt.NDArray[np.float32] | None = None
    areas: npt.NDArray[np.float32] | None = None
    mask: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        scores = np.asarray(self.scores, np.float32).reshape(-1)
        columns: dict[str, Array] = {
            "boxes": boxes,
            "scores": scores,
            "classes": np.asarray(self.classes, np.int64).reshape(-1),
            "areas": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            if self.areas is None
            else np.asarray(self.areas, np.float32).reshape(-1),
        }
        if self.centres is not None:
            columns["centres"] = np.asarray(self.centres, np.float32).reshape(-1, 2)
        for name, column in columns.items():
            if len(column) != len(boxes):
                raise ValueError(f"{len(boxes)} boxes with {len(column)} {name}")
        if len(scores) > 1 and not (scores[1:] <= scores[:-1]).all():
            order = np.argsort(-scores, kind="stable")
            columns = {name: column[order] for name, column in columns.items()}
        for name, column in columns.items():
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls, with_centres: bool = True) -> Detections:
        """No detections."""
        centres = np.empty((0, 2), np.float32) if with_centres else None
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), centres)

    def take(self, rows: npt.ArrayLike) -> Detections:
        """The detections at `rows`, an index array or a bool mask."""
        index = np.asarray(rows)
        if index.dtype != np.bool_:
            index = index.astype(np.intp)
        return Detections(
            self.boxes[index],
            self.scores[index],
            self.classes[index],
            None if self.centres is None else self.centres[index],
            None if self.areas is None else self.areas[index],
            self.mask,
        )

    def rows(self, classes: Sequence[str] = ()) -> list[dict[str, Any]]:
        """One JSON-ready object a detection; `classes` are the contract's class names, for a `label` beside the number.

        Positions are rounded to 0.01 pixel, scores to six digits.
        """
        rows: list[dict[str, Any]] = []
        for i in range(len(self)):
            number = int(self.classes[i])
            row: dict[str, Any] = {
                "box": [round(float(v), 2) for v in self.boxes[i]],
                "score": round(float(self.scores[i]), 6),
                "class": number,
            }
            if classes:
                row["label"] = classes[number]
            if self.centres is not None:
                row["centre"] = [round(float(v), 2) for v in self.centres[i]]
            if self.areas is not None:
                row["area"] = round(float(self.areas[i]), 2)
            rows.append(row)
        return rows


def mask_targets(probabilities: npt.NDArray[np.floating[Any]], threshold: float, connectivity: int = 8) -> Detections:
    """The connected components of probability > `threshold` (strict), in mask pixels.

    Args:
        probabilities: H x W, 0..1. A NaN is below every threshold here; `decode` refuses it.
        threshold: the contract's score threshold.
        connectivity: 4 or 8.

    Returns:
        Detections with score = highest probability, centre = unweighted mean of the pixel centres, area = number of
        pixels, class 0; equal scores in raster order of each component's first pixel.
    """
    plane = np.asarray(probabilities, np.float32)
    found = components(plane > np.float32(threshold), connectivity)
    return Detections(
        boxes=found.boxes().astype(np.float32),
        scores=found.peaks(plane),
        classes=np.zeros(len(found), np.int64),
        centres=(found.centres + 0.5).astype(np.float32),
        areas=found.areas.astype(np.float32),
    )


def decode(
    outputs: Mapping[str, Array],
    contract: Contract,
    geometry: Geometry,
    *,
    index: int = 0,
    threshold: float | None = None,
    with_mask: bool = False,
) -> Detections:
    """One frame's outputs -> its detections in frame pixels: the only host end.

    Args:
        outputs: by name: `mask` [N, 1, H, W], or `boxes` [N, k, 4], `scores` [N, k] and `classes` [N, k].
        contract: says which kind, the score threshold (score > threshold, strict) and the classes.
        geometry: what `prepare` returned for this frame. What lies in the padding is no detection.
        index: which of the N frames.
        threshold: instead of the contract's.
        with_mask: also resize the mask to the frame (mask outputs only).

    Raises:
        ArtifactError: an output is missing, has the wrong shape, names an unknown class, or holds NaN. NaN is an error
            and never a dropped row: it means that the graph overflows, and that the next frame cannot be trusted.
    """
    level = contract.output.score_threshold if threshold is None else threshold
    if contract.output.kind == "mask":
        return _decode_mask(outputs, contract, geometry, index, level, with_mask)
    return _decode_boxes(outputs, contract, geometry, index, level)


def _decode_mask(
    outputs: Mapping[str, Array], contract: Contract, geometry: Geometry, index: int, level: float, with_mask: bool
) -> Detections:
    mask = _output(outputs, "mask", 4)
    if mask.shape[1:] != (1, geometry.model_height, geometry.model_width):
        raise ArtifactError(
            f"output 'mask' has shape {mask.shape}, expected (N, 1, {geometry.model_height}, {geometry.model_width})",
            "The graph does not belong to its contract; export it again",
        )
    plane = np.asarray(geometry.crop(mask[index, 0]), np.float32)
    peak = plane.max()
    _refuse_nan("mask", peak)
    found = mask_targets(plane, level, contract.output.connectivity) if peak > level else Detections.empty()
    if not geometry.is_identity and len(found):
        along_x, along_y = geometry.scale
        corner = np.array((geometry.left, geometry.top), np.float32)
        assert found.centres is not None and found.areas is not None
        found = Detections(
            geometry.to_frame_boxes(found.boxes + np.tile(corner, 2)),
            found.scores,
            found.classes,
            geometry.to_frame_points(found.centres + corner),
            found.areas / np.float32(along_x * along_y),
        )
    if with_mask:
        return replace(found, mask=geometry.to_frame_mask(mask[index, 0] > np.float32(level)))
    return found


def _decode_boxes(
    outputs: Mapping[str, Array], contract: Contract, geometry: Geometry, index: int, level: float
) -> Detections:
    boxes = np.asarray(_output(outputs, "boxes", 3)[index], np.float32)
    scores = np.asarray(_output(outputs, "scores", 2)[index], np.float32)
    classes = np.asarray(_output(outputs, "classes", 2)[index], np.int64)
    if boxes.shape != (len(scores), 4) or classes.shape != scores.shape:
        raise ArtifactError(
            f"outputs 'boxes' {boxes.shape}, 'scores' {scores.shape} and 'classes' {classes.shape} do not fit together",
            "The graph does not belong to its contract; export it again",
        )
    _refuse_nan("scores", scores.sum())
    kept = scores > np.float32(level)
    boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
    _refuse_nan("boxes", boxes.sum())
    known = len(contract.output.classes)
    unknown = classes[(classes < 0) | (classes >= known)]
    if len(unknown):
        raise ArtifactError(
            f"output 'classes' names class {int(unknown[0])}, the contract knows {known} from 0",
            "The graph does not belong to its contract; export it again",
        )
    boxes = geometry.to_frame_boxes(boxes)
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return Detections(boxes[inside], scores[inside], classes[inside])


def _output(outputs: Mapping[str, Array], name: str, dimensions: int) -> Array:
    if name not in outputs:
        found = ", ".join(outputs) or "nothing"
        raise ArtifactError(f"the graph returned no '{name}' (it returned {found})", "Export it again")
    value = outputs[name]
    if value.ndim != dimensions:
        raise ArtifactError(f"output '{name}' has shape {value.shape}, expected {dimensions} dimensions")
    return value


def _refuse_nan(name: str, probe: Any) -> None:
    if np.isnan(probe):
        raise ArtifactError(
            f"output '{name}' holds NaN: the graph overflows in this precision",
            "Run the FP32 file, or convert again with more FP32 islands ('irforge half')",
        )
