"""Metrics of a torch deployable that gives boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from irforge.contract import Contract
from irforge.datasets import Dataset
from irforge.detections import Detections, decode
from irforge.errors import InputError
from irforge.frames import Geometry, prepare, to_gray
from irforge.metrics.boxes import BoxMetrics, BoxResult
from irforge.metrics.nocoap import NocoMetrics, PointResult
from irforge.train.detectors.base import Deployable
from irforge.train.evaluation import Figures, figure_text, present, protocol_spec


def detect(deployable: Deployable, contract: Contract, frame: Tensor, geometry: Geometry) -> Detections:
    """All detections of one prepared frame, 1 x 1 x H x W, in frame pixels, whatever their score."""
    names = [tensor.name for tensor in contract.output.tensors]
    outputs = {name: found.cpu().numpy() for name, found in zip(names, deployable(frame), strict=True)}
    return decode(outputs, contract, geometry, threshold=0.0)


@torch.inference_mode()
def evaluate_boxes(
    deployable: Deployable, contract: Contract, dataset: Dataset, protocol: str, threshold: float
) -> Figures:
    """Score every frame of a dataset, in frame pixels.

    `squash`: frames fitted to the input size as the contract says. `native`: at their own size, padded to the stride.
    mNoCoAP is measured where frames have 8 bits, which its contrast is defined for.

    Raises:
        InputError: a frame has no boxes.
    """
    spec = protocol_spec(contract.input, protocol, deployable.stride)
    metrics = BoxMetrics(contract.output.classes, threshold)
    noco = {"mNoCoAP": NocoMetrics(), "mNoCoAP legacy": NocoMetrics("legacy")}
    for sample in dataset:
        truth = sample.boxes()
        if truth is None:
            raise InputError(f"'{dataset.name}' has no boxes for '{sample.id}'", "These metrics need boxes")
        frame = sample.frame()
        tensor, geometry = prepare(frame, spec, str(sample.frame_path))
        found = detect(deployable, contract, torch.from_numpy(tensor), geometry)
        metrics.update(found, truth, (geometry.frame_height, geometry.frame_width))
        if frame.dtype.itemsize > 1:
            noco.clear()
        for variant in noco.values():
            variant.update(found, truth, to_gray(frame, contract.input.colour, str(sample.frame_path)))
    return box_figures(metrics.result(), {name: variant.result() for name, variant in noco.items()})


def box_figures(result: BoxResult, noco: dict[str, PointResult]) -> Figures:
    points = {name: one.mean for name, one in noco.items()}
    named = {
        "AP": result.ap,
        "AP50": result.ap50,
        "F1 at IoU 0.5": result.iou50.f1,
        "F1 at IoU 0.3": result.iou30.f1,
        "F1 at 3 px": result.centre.f1,
        "Pd at 3 px": result.pd,
        "false boxes a frame": result.false_boxes_per_frame,
        "centre error median, px": result.centre_error_median,
        "centre error p95, px": result.centre_error_p95,
        **points,
    }
    short = {
        "AP": result.ap,
        "AP50": result.ap50,
        "F1@.5": result.iou50.f1,
        "F1@.3": result.iou30.f1,
        "F1@3px": result.centre.f1,
        "Pd@3px": result.pd,
        "NoCoAP": points.get("mNoCoAP"),
        "legacy": points.get("mNoCoAP legacy"),
    }
    table = {name: figure_text(value) for name, value in short.items()}
    full = result.as_dict() | {name: one.as_dict() for name, one in noco.items()}
    return Figures(result.frames, table, present(named), full)
