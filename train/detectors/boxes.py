"""What detectors that give boxes share: how classes are counted, and how the contract describes their outputs."""

from __future__ import annotations

from collections.abc import Sequence

from irforge.contract import NonMaximumSuppression, OutputSpec, TensorSpec


def count_of(classes: Sequence[str], count: int) -> int:
    """How many classes a network has by its options `classes` and `class_count`; 1 without either.

    Raises:
        ValueError: a name twice, or a count that is not that of the names.
    """
    if isinstance(classes, str) or len(set(classes)) != len(classes):
        raise ValueError(f"classes is a list of different names, not {classes!r}")
    if classes and count and len(classes) != count:
        raise ValueError(f"{len(classes)} names for {count} classes: {', '.join(classes)}")
    if count < 0:
        raise ValueError(f"class_count is a positive number, not {count}")
    return len(classes) or count or 1


def box_output(
    score_threshold: float, score: str, slots: int, suppression: NonMaximumSuppression | None = None
) -> OutputSpec:
    """Boxes, scores and classes of `slots` detections a frame; `score` says what a score is."""
    n, k = "N", slots
    tensors = [
        TensorSpec(
            name="boxes",
            dtype="float32",
            shape=[n, k, 4],
            meaning="x0, y0, x1, y1, half-open, of the input frame",
            unit="pixel",
        ),
        TensorSpec(name="scores", dtype="float32", shape=[n, k], meaning=f"{score}, descending; 0 marks an empty slot"),
        TensorSpec(name="classes", dtype="int64", shape=[n, k], meaning="index into the classes"),
    ]
    return OutputSpec(
        kind="boxes", classes=["target"], score_threshold=score_threshold, tensors=tensors, nms=suppression
    )
