"""The contract that is written into an adopted model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
from onnx import ModelProto, helper

import irforge
from irforge.contract import Contract, NonMaximumSuppression, OutputSpec, Provenance, TensorSpec
from irforge.errors import UsageError
from irforge.export.adopt.decode import Limits
from irforge.export.adopt.door import Door
from irforge.export.adopt.reading import Peaks, Plane, Reading, Rows
from irforge.export.adopt.source import Source
from irforge.files import sha256_of_file
from irforge.graph import Graph

Array = npt.NDArray[Any]


def contract_of(
    model: ModelProto,
    source: Source,
    door: Door,
    reading: Reading,
    limits: Limits,
    classes: Sequence[str],
    threshold: float | None,
    raw: Mapping[str, Array],
) -> Contract:
    """The contract of an assembled model.

    Args:
        raw: the original's outputs on a few frames.
        classes: names, if they are known.
        threshold: score threshold; None for 0.25 with boxes and 0.5 with a mask.

    Raises:
        UsageError: names are missing, or are not as many as the outputs' classes.
    """
    is_mask = isinstance(reading, Plane)
    graph = Graph(model)
    meanings = {
        "boxes": ("left, top, right, bottom edge, half-open", "frame pixels"),
        "scores": ("probability of a target, descending; 0 in empty slots", ""),
        "classes": ("index into the class names", ""),
        "mask": ("target probability", ""),
    }
    tensors = [
        TensorSpec(
            name=name,
            dtype=helper.tensor_dtype_to_np_dtype(graph.dtype(name)).name,
            shape=[side if isinstance(side, int | str) else "?" for side in graph.shape(name) or ()],
            meaning=meanings[name][0],
            unit=meanings[name][1],
        )
        for name in graph.outputs
    ]
    suppressed = isinstance(reading, Rows) and reading.suppress
    output = OutputSpec(
        kind="mask" if is_mask else "boxes",
        classes=_named(reading, classes, raw),
        score_threshold=(0.5 if is_mask else 0.25) if threshold is None else threshold,
        tensors=tensors,
        nms=NonMaximumSuppression(iou_threshold=limits.iou, max_detections=limits.detections) if suppressed else None,
    )
    provenance = Provenance(
        detector=source.title,
        weights_sha256=sha256_of_file(source.path),
        irforge_version=irforge.__version__,
    )
    return Contract(input=door.spec, output=output, provenance=provenance)


def _named(reading: Reading, classes: Sequence[str], raw: Mapping[str, Array]) -> list[str]:
    """Class names, as many as the outputs have.

    Raises:
        UsageError: another number of names, or their number cannot be found out.
    """
    count = reading.class_count
    if isinstance(reading, Plane):
        return list(classes) if len(classes) == 1 else ["target"]
    if count is None:
        if not classes:
            raise UsageError(
                "the graph chooses the classes itself, so that their number cannot be found out",
                "Name them with --classes, in the order of their numbers",
            )
        count = max(len(classes), _highest_label(reading, raw) + 1)
    if classes and len(classes) != count:
        raise UsageError(f"the outputs have {count} classes, {len(classes)} are named", f"Name {count} with --classes")
    return list(classes) or (["target"] if count == 1 else [f"class {i}" for i in range(count)])


def _highest_label(reading: Rows | Peaks, raw: Mapping[str, Array]) -> int:
    assert isinstance(reading, Rows) and reading.labels
    labels = raw[reading.labels.tensor]
    return int((labels if reading.labels.flat else labels[..., reading.labels.start]).max())
