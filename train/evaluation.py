"""Metrics of a torch deployable on a dataset with truth, by the two protocols that published tables use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from irforge import files
from irforge.contract import Contract, InputSpec, PadToMultiple, Range
from irforge.datasets import Dataset
from irforge.datasets.classes import named_classes, published_novel
from irforge.errors import ArtifactError, InputError, UsageError
from irforge.frames import prepare, resize_mask
from irforge.metrics import PixelMetrics, PixelResult
from irforge.rescoring import Rescorer
from irforge.tiles import Tiling, stitch, tile_overlap, whole_frame
from irforge.train.detectors.base import Deployable

PROTOCOLS = ("squash", "native")
TILE = "tile"
"""Frames at their own size, cut into tiles of the contract's; no published table is by this protocol."""

LARGEST_SIDE = 8192


def protocol_spec(spec: InputSpec, protocol: str, stride: int) -> InputSpec:
    """The input for a protocol: `squash` as the contract has it, `native` unresized and padded to the stride, `tile` a
    whole frame for an input that takes it in tiles.

    Raises:
        UsageError: no such protocol.
    """
    if protocol == "squash":
        return spec
    if protocol == TILE:
        return whole_frame(spec, tile_overlap(spec))
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
    maps: Path | None = None,
) -> PixelResult:
    """Score every frame of a dataset, and write the map of each to the folder `maps`, where there is one.

    `squash`: frame and mask are resized to the contract's size (mask by Pillow's NEAREST) and scored there, as MSHNet
    does. `native`: the frame is padded, the padding cropped off again, and scored at its own size, as BasicIRSTD does.
    `tile`: the frame is cut into tiles, their maps are stitched, and scored at the frame's own size.

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
        if protocol == TILE:
            tiling = frame_tiles(spec, *tensor.shape[2:])
            probability = stitch([_map_of(deployable, tile) for tile in tiling.cut(tensor)], tiling)
        else:
            probability = _map_of(deployable, tensor)
        found = np.asarray(geometry.crop(probability), np.float32)
        if maps is not None:
            save_map(maps / f"{sample.id}.png", found)
        metrics.update(found, resize_mask(mask, geometry.content_height, geometry.content_width))
    return metrics.result()


def _map_of(deployable: Deployable, tensor: npt.NDArray[Any]) -> npt.NDArray[np.generic]:
    plane: npt.NDArray[np.generic] = deployable(torch.from_numpy(np.ascontiguousarray(tensor)))[0, 0].numpy()
    return plane


def frame_tiles(spec: InputSpec, height: int, width: int) -> Tiling:
    """How an input of fit `tile` cuts a frame."""
    return Tiling(height, width, spec.size, tile_overlap(spec))


def save_map(path: Path, probability: npt.NDArray[np.float32]) -> None:
    """Write probabilities, H x W, as a gray PNG of 16 bits: 65535 is 1.

    Raises:
        ArtifactError: they are no probabilities.
    """
    if not (probability.min() >= 0 and probability.max() <= 1):
        raise ArtifactError(f"the mask for '{path.name}' is no map of probabilities from 0 to 1", "Train it again")
    levels = np.rint(probability * 65535).astype(np.uint16)
    files.write_bytes(path, cv2.imencode(".png", levels)[1].tobytes())


@dataclass(frozen=True)
class Figures:
    """What was measured on one set of frames: `table` for people, by column; `named` for contracts and cards, in their
    own units; `full` for JSON."""

    frames: int
    table: dict[str, str]
    named: dict[str, float]
    full: dict[str, Any]


def evaluate(
    deployable: Deployable,
    contract: Contract,
    dataset: Dataset,
    protocol: str,
    threshold: float | None = None,
    legacy: bool = False,
    maps: Path | None = None,
    novel: Sequence[str] = (),
    rescorer: Rescorer | None = None,
) -> Figures:
    """Score every frame of a dataset by the metrics of what the detector gives, masks or boxes.

    Args:
        threshold: in place of the contract's.
        legacy: count Pd and Fa of masks as the published code does. (mNoCoAP of boxes always comes in both forms.)
        maps: the folder that the masks are written to, as ID.png of 16 bits.
        novel: the classes that a few-shot detector learnt last, for AP of these and of the others.
        rescorer: judges boxes again.

    Raises:
        InputError: a frame has no truth of that kind, or data and detector have no class in common.
        UsageError: no such protocol, or what is asked for belongs to the other kind of detector.
    """
    level = contract.output.score_threshold if threshold is None else threshold
    if contract.output.kind == "mask":
        if novel or rescorer is not None:
            raise UsageError("this detector gives masks, without classes or boxes to judge again")
        return mask_figures(evaluate_masks(deployable, contract.input, dataset, protocol, level, legacy, maps))
    if maps is not None:
        raise UsageError("this detector gives boxes, and no maps to save", "Leave out --save-maps")
    from irforge.train.box_evaluation import evaluate_boxes

    return evaluate_boxes(deployable, contract, dataset, protocol, level, novel, rescorer)


def novel_classes(contract: Contract, dataset: Dataset, wanted: str = "") -> list[str]:
    """Which of the detector's classes are novel: those `wanted` (names and groups, see `irforge.datasets.classes`), or
    those that surgery gave it, or those that a published few-shot split of the data calls so; or none.

    Raises:
        UsageError: one is wanted that the detector does not have.
    """
    known = contract.output.classes
    if wanted:
        return list(named_classes(wanted, known, f"detector '{contract.provenance.detector}'"))
    surgeries = [step for step in contract.provenance.history if step.get("tool") == "surgery"]
    if surgeries:
        return [name for name in known if name not in surgeries[0]["classes_before"]]
    return [name for name in known if name in published_novel(dataset.classes)]


def mask_figures(result: PixelResult) -> Figures:
    found = {"IoU": result.iou, "nIoU": result.niou, "Pd": result.pd, "Fa": result.fa}
    table = {name: figure_text(value) for name, value in found.items() if name != "Fa"}
    table["Fa e-6"] = figure_text(None if result.fa is None else result.fa * 1e6, 2)
    return Figures(result.frames, table, present(found), result.as_dict())


def present(figures: dict[str, float | None]) -> dict[str, float]:
    """Those that exist: a figure without a denominator is None."""
    return {name: value for name, value in figures.items() if value is not None}


def figure_text(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def table_line(data: str, frames: str, protocol: str, cells: Iterable[str]) -> str:
    """One line of the table that `evaluate` prints, or its head."""
    return f"{data:30} {frames:>5} {protocol:8}" + "".join(f" {cell:>8}" for cell in cells)
