"""COCO's average precision, computed by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from irforge.datasets.base import BoxTruth
from irforge.detections import Detections
from irforge.errors import EnvironmentFault
from irforge.metrics.matching import box_areas


class SizeBucket(NamedTuple):
    """True boxes of area > `above` and <= `up_to`, in square frame pixels."""

    name: str
    above: float
    up_to: float


SIZE_BUCKETS = (
    SizeBucket("up to 25 px2", 0, 25),
    SizeBucket("26 to 100 px2", 25, 100),
    SizeBucket("over 100 px2", 100, np.inf),
)


@dataclass(frozen=True)
class CocoAP:
    """Average precisions, 0..1; None where no target counts."""

    ap: float | None
    ap50: float | None
    ap75: float | None
    by_class: dict[str, float | None]
    by_class50: dict[str, float | None]
    by_class75: dict[str, float | None]
    by_size: dict[str, float | None]


def coco_ap(found: Sequence[Detections], truth: Sequence[BoxTruth], classes: Sequence[str]) -> CocoAP:
    """Average precision as COCO defines it (Lin et al., ECCV 2014).

    At IoU 0.50, 0.55 .. 0.95, the monotone envelope of precision is sampled at the 101 recalls 0, 0.01 .. 1; the mean
    is over samples, thresholds and the classes that have targets. Each frame counts its 100 best detections of a class.
    A size bucket counts the true boxes of that area only: a detection that matches one of another size is neither right
    nor wrong, and an unmatched detection is wrong only where its own area lies in the bucket. No target is a crowd.

    Args:
        found: all detections of each frame, not only those above a threshold.
        truth: the true boxes of the same frames.
        classes: their names.

    Raises:
        EnvironmentFault: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise EnvironmentFault(
            "average precision needs the package faster-coco-eval, which is not here",
            "Install it: pip install 'irforge[measure]'",
        ) from error

    targets: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    # Identifiers start at 1: the package takes an annotation numbered 0 for an unmatched one.
    for image, (detections, true) in enumerate(zip(found, truth, strict=True), 1):
        for box, area, number in _rows(true.boxes, true.classes):
            targets.append(
                {"id": len(targets) + 1, "image_id": image, "category_id": number, "bbox": box, "area": area}
            )
            targets[-1]["iscrowd"] = 0
        boxes = _rows(detections.boxes, detections.classes)
        for (box, _, number), score in zip(boxes, detections.scores.tolist(), strict=True):
            answers.append({"image_id": image, "category_id": number, "bbox": box, "score": score, "segmentation": []})
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    images = [{"id": image} for image in range(1, len(found) + 1)]
    true_set = COCO({"images": images, "annotations": targets, "categories": categories})
    # Both ends of COCO's ranges count.
    ranges = {b.name: [np.nextafter(b.above, np.inf) if b.above else 0.0, min(b.up_to, 1e10)] for b in SIZE_BUCKETS}
    evaluation = COCOeval_faster(true_set, true_set.loadRes(answers), "bbox", ranges)
    evaluation.evaluate()
    evaluation.accumulate()
    # [10 IoU thresholds, 101 recalls, classes, all + size buckets], -1 where a class has no target there.
    precision = np.asarray(evaluation.eval["precision"])[..., -1]
    everything = precision[..., 0]
    return CocoAP(
        ap=_mean(everything),
        ap50=_mean(everything[0]),
        ap75=_mean(everything[5]),
        by_class={name: _mean(everything[..., i]) for i, name in enumerate(classes)},
        by_class50={name: _mean(everything[0, ..., i]) for i, name in enumerate(classes)},
        by_class75={name: _mean(everything[5, ..., i]) for i, name in enumerate(classes)},
        by_size={bucket.name: _mean(precision[..., i]) for i, bucket in enumerate(SIZE_BUCKETS, 1)},
    )


def _rows(boxes: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]) -> list[tuple[list[float], float, int]]:
    exact = np.asarray(boxes, np.float64)
    corners = np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], axis=1)
    return list(zip(corners.tolist(), box_areas(exact).tolist(), (classes + 1).tolist(), strict=True))


def _mean(precision: npt.NDArray[np.float64]) -> float | None:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else None
