"""Metrics of a torch deployable that gives boxes: what it finds, whose truth that is held against, the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from irforge.contract import Contract
from irforge.datasets import BoxTruth, Dataset
from irforge.detections import Detections, decode
from irforge.errors import InputError
from irforge.frames import Geometry, prepare, to_gray
from irforge.metrics.boxes import BoxMetrics, BoxResult
from irforge.metrics.fewshot import FewShotResult, few_shot_ap
from irforge.metrics.nocoap import NocoMetrics, PointResult
from irforge.rescoring import Rescorer, eight_bit
from irforge.tiles import merge
from irforge.train.detectors.base import Deployable
from irforge.train.evaluation import TILE, Figures, figure_text, frame_tiles, present, protocol_spec


def detect(deployable: Deployable, contract: Contract, frame: Tensor, geometry: Geometry) -> Detections:
    """All detections of one prepared frame, 1 x 1 x H x W, in frame pixels, whatever their score."""
    names = [tensor.name for tensor in contract.output.tensors]
    outputs = {name: found.cpu().numpy() for name, found in zip(names, deployable(frame), strict=True)}
    return decode(outputs, contract, geometry, threshold=0.0)


@dataclass(frozen=True)
class Judged:
    """A dataset whose truth has the detector's numbers; the numbers of the classes that both know; and what was left
    out to get there, in a line."""

    dataset: Dataset
    shared: tuple[int, ...]
    note: str = ""


def judged_by_name(dataset: Dataset, contract: Contract) -> Judged:
    """Bring truth and detections together by the names of their classes.

    Objects of classes that the detector does not know are background; detections of classes that the dataset does not
    know are not counted. One class on each side is the same whatever it is called.

    Raises:
        InputError: a frame has no boxes, or no class has a name that the detector knows.
    """
    known = contract.output.classes
    for sample in dataset:
        if sample.box_truth is None and sample.mask_path is None and not sample.background:
            raise InputError(f"'{dataset.name}' has no boxes for '{sample.id}'", "These metrics need boxes")
    if list(dataset.classes) == known or len(known) == len(dataset.classes) == 1:
        return Judged(dataset, tuple(range(len(known))))
    shared = [name for name in known if name in dataset.classes]
    if not shared:
        raise InputError(
            f"'{dataset.name}' has the classes {', '.join(dataset.classes)}, and the detector knows {', '.join(known)}",
            "Name data that has some of these",
        )
    numbers = np.array([known.index(name) if name in shared else -1 for name in dataset.classes], np.int64)
    samples = [replace(sample, box_truth=_renumbered(sample.boxes(), numbers)) for sample in dataset]
    strange = [name for name in dataset.classes if name not in known]
    missing = [name for name in known if name not in shared]
    notes = [f"objects of {', '.join(strange)} are background to this detector"] if strange else []
    notes += [f"detections of {', '.join(missing)} are not counted, whose truth is not given"] if missing else []
    found = replace(dataset, samples=tuple(samples), classes=tuple(known))
    return Judged(found, tuple(map(known.index, shared)), "; ".join(notes))


def _renumbered(truth: BoxTruth | None, numbers: npt.NDArray[np.int64]) -> BoxTruth:
    assert truth is not None
    classes = numbers[truth.classes]
    kept = classes >= 0
    return BoxTruth(truth.boxes[kept], classes[kept], None if truth.difficult is None else truth.difficult[kept])


@torch.inference_mode()
def find_boxes(
    deployable: Deployable, contract: Contract, dataset: Dataset, protocol: str, threshold: float = 0.0
) -> list[Detections]:
    """All detections of every frame, in frame pixels.

    `squash`: frames fitted to the input size as the contract says. `native`: at their own size, padded to the stride.
    `tile`: at their own size in tiles; what two tiles see is one detection, and those above the threshold are joined
    as if there were no others.
    """
    spec = protocol_spec(contract.input, protocol, deployable.stride)
    found = []
    for sample in dataset:
        tensor, geometry = prepare(sample.frame(), spec, str(sample.frame_path))
        if protocol == TILE:
            tiling = frame_tiles(contract.input, geometry.frame_height, geometry.frame_width)
            tiles = zip(tiling.cut(tensor), tiling.geometries, strict=True)
            parts = [detect(deployable, contract, torch.from_numpy(np.ascontiguousarray(t)), g) for t, g in tiles]
            found.append(merge(parts, tiling, threshold))
        else:
            found.append(detect(deployable, contract, torch.from_numpy(tensor), geometry))
    return found


def judge_again(
    found: Sequence[Detections], dataset: Dataset, contract: Contract, rescorer: Rescorer
) -> list[Detections]:
    """The detections with the scores that an image encoder gives them, as `rescorer` says."""
    return [
        rescorer.apply(one, eight_bit(sample.frame(), contract.input, str(sample.frame_path)), threshold=0.0)
        for one, sample in zip(found, dataset, strict=True)
    ]


def score_boxes(
    found: Sequence[Detections], judged: Judged, contract: Contract, threshold: float, novel: Sequence[str] = ()
) -> Figures:
    """The figures of detections, which are in the order of the dataset's frames.

    mNoCoAP is measured where frames have 8 bits, which its contrast is defined for.

    Args:
        novel: classes that a few-shot detector learnt last; with them come nAP, nAP50, nAP75 and the base classes' AP.
    """
    classes = contract.output.classes
    metrics = BoxMetrics(classes, threshold)
    noco = {"mNoCoAP": NocoMetrics(), "mNoCoAP legacy": NocoMetrics("legacy")}
    counted = [one.take(np.isin(one.classes, judged.shared)) for one in found]
    truths = [truth for sample in judged.dataset if (truth := sample.boxes()) is not None]
    for sample, one, truth in zip(judged.dataset, counted, truths, strict=True):
        frame = sample.frame()
        metrics.update(one, truth, (frame.shape[0], frame.shape[1]))
        if frame.dtype.itemsize > 1:
            noco.clear()
        for variant in noco.values():
            variant.update(one, truth, to_gray(frame, contract.input.colour, str(sample.frame_path)))
    points = {name: variant.result() for name, variant in noco.items()}
    groups = few_shot_ap(counted, truths, classes, novel) if novel else None
    return box_figures(metrics.result(), points, groups)


def evaluate_boxes(
    deployable: Deployable,
    contract: Contract,
    dataset: Dataset,
    protocol: str,
    threshold: float,
    novel: Sequence[str] = (),
    rescorer: Rescorer | None = None,
) -> Figures:
    """Score every frame of a dataset, in frame pixels; see the functions that this is made of.

    Raises:
        InputError: a frame has no boxes, or no class is known to both sides.
    """
    judged = judged_by_name(dataset, contract)
    found = find_boxes(deployable, contract, judged.dataset, protocol, threshold)
    if rescorer is not None:
        found = judge_again(found, judged.dataset, contract, rescorer)
    return score_boxes(found, judged, contract, threshold, novel)


def box_figures(result: BoxResult, noco: dict[str, PointResult], groups: FewShotResult | None = None) -> Figures:
    points = {name: one.mean for name, one in noco.items()}
    few = {} if groups is None else groups.named()
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
        **few,
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
    if groups is not None:
        # What a few-shot table shows; the rest is in the JSON.
        short = {name: few.get(name) for name in ("nAP", "nAP50", "nAP75", "bAP", "bAP50", "AP", "AP50")}
        short["F1@.5"] = result.iou50.f1
    table = {name: figure_text(value) for name, value in short.items()}
    full = result.as_dict() | {name: one.as_dict() for name, one in noco.items()}
    if groups is not None:
        full["few_shot"] = groups.as_dict()
    return Figures(result.frames, table, present(named), full)
