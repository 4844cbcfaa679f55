"""Metrics of a torch deployable on a dataset with masks, by the two protocols that published tables use."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from irforge.contract import InputSpec, PadToMultiple, Range
from irforge.datasets import Dataset
from irforge.errors import InputError, UsageError
from irforge.frames import prepare, resize_mask
from irforge.metrics import PixelMetrics, PixelResult
from irforge.train.detectors.base import Deployable

PROTOCOLS = ("squash", "native")
LARGEST_SIDE = 8192


def protocol_spec(spec: InputSpec, protocol: str, stride: int) -> InputSpec:
    """The input for a protocol: `squash` as the contract has it, `native` unresized and padded to the stride.

    Raises:
        UsageError: no such protocol.
    """
    if protocol == "squash":
        return spec
    if protocol != "native":
        raise UsageError(f"there is no protocol '{protocol}'", f"Protocols: {', '.join(PROTOCOLS)}")
    opt = -(-256 // stride) * stride
    side = Range(min=stride, opt=opt, max=LARGEST_SIDE - LARGEST_SIDE % stride, multiple=stride)
    fields = {name: getattr(spec, name) for name in type(spec).model_fields}
    return InputSpec(**fields | {"height": side, "width": side, "fit": PadToMultiple(multiple=stride)})


@torch.inference_mode()
def evaluate_masks(
    deployable: Deployable,
    spec: InputSpec,
    dataset: Dataset,
    protocol: str = "squash",
    threshold: float = 0.5,
    legacy: bool = False,
) -> PixelResult:
    """Score every frame of a dataset.

    `squash`: frame and mask are resized to the contract's size (mask by Pillow's NEAREST) and scored there, as MSHNet
    does. `native`: the frame is padded, the padding cropped off again, and scored at its own size, as BasicIRSTD does.

    Raises:
        InputError: a frame has no mask.
    """
    chosen = protocol_spec(spec, protocol, deployable.stride)
    metrics = PixelMetrics(threshold=threshold, legacy=legacy)
    for sample in dataset:
        mask = sample.mask()
        if mask is None:
            raise InputError(f"'{dataset.name}' has no mask for '{sample.id}'", "These metrics need masks")
        tensor, geometry = prepare(sample.frame(), chosen, str(sample.frame_path))
        probability = deployable(torch.from_numpy(tensor))[0, 0].numpy()
        found = np.asarray(geometry.crop(probability), np.float32)
        metrics.update(found, resize_mask(mask, geometry.content_height, geometry.content_width))
    return metrics.result()


def figures(result: PixelResult) -> dict[str, float]:
    """The figures that tables carry, by their field's names; those without a denominator are left out."""
    named = {"IoU": result.iou, "nIoU": result.niou, "Pd": result.pd, "Fa": result.fa}
    return {name: value for name, value in named.items() if value is not None}


def table_row(row: dict[str, Any]) -> str:
    """One line of the table that `evaluate` prints; a figure that does not exist is a dash."""

    def figure(name: str, scale: float, digits: int, width: int) -> str:
        value = row[name]
        return f"{'-':>{width}}" if value is None else f"{value * scale:{width}.{digits}f}"

    return (
        f"{row['data']:30} {row['frames']:5d} {row['protocol']:12} {figure('iou', 1, 4, 7)} {figure('niou', 1, 4, 7)}"
        f" {figure('pd', 1, 4, 7)} {figure('fa', 1e6, 2, 8)}"
    )
