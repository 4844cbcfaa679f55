"""Prepared frames with their masks, held in memory, and the split of a training list into training and validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from irforge.contract import InputSpec
from irforge.datasets import BoxTruth, Dataset
from irforge.errors import InputError
from irforge.frames import Geometry, prepare, resize_mask


@dataclass(frozen=True, eq=False)
class Planes:
    """Frames as the network meets them: levels [n, H, W] of the door's dtype, masks bool [n, H, W]."""

    name: str
    levels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    masks: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.levels)


def load_planes(dataset: Dataset, spec: InputSpec) -> Planes:
    """Read and prepare a whole split with the code that the runtime uses, so that training cannot see other frames.

    Raises:
        InputError: a frame or mask cannot be used, or the dataset has no masks.
    """
    levels, masks = [], []
    for sample in dataset:
        mask = sample.mask()
        if mask is None:
            raise InputError(f"'{dataset.name}' has no mask for '{sample.id}'", "Training a mask detector needs masks")
        tensor, geometry = prepare(sample.frame(), spec, str(sample.frame_path))
        plane = np.zeros(tensor.shape[2:], bool)
        geometry.crop(plane)[...] = resize_mask(mask, geometry.content_height, geometry.content_width)
        levels.append(tensor[0, 0])
        masks.append(plane)
    name = f"{dataset.name}:{dataset.split}" if dataset.split else dataset.name
    return Planes(name, np.stack(levels), np.stack(masks))


@dataclass(frozen=True, eq=False)
class BoxFrame:
    """One frame as the network meets it: levels [H, W] of the door's dtype; boxes float32 [n, 4] in its pixels and
    classes int64 [n]; and the way back to the raw frame, with the truth there."""

    levels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    geometry: Geometry
    truth: BoxTruth


@dataclass(frozen=True, eq=False)
class BoxFrames:
    """The frames of a split with their boxes; they may be of different sizes."""

    name: str
    frames: Sequence[BoxFrame]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)


class FramesOnDisk(Sequence[BoxFrame]):
    """The prepared frames of a split; each one is read when it is asked for, and not kept."""

    def __init__(self, dataset: Dataset, spec: InputSpec) -> None:
        self.dataset = dataset
        self.spec = spec

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, index: int) -> BoxFrame: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[BoxFrame]: ...
    def __getitem__(self, index: int | slice) -> BoxFrame | Sequence[BoxFrame]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        sample = self.dataset[index]
        truth = sample.boxes()
        if truth is None:
            raise InputError(
                f"'{self.dataset.name}' has no boxes for '{sample.id}'", "Training a box detector needs boxes"
            )
        tensor, geometry = prepare(sample.frame(), self.spec, str(sample.frame_path))
        return BoxFrame(tensor[0, 0], geometry.to_model_boxes(truth.boxes), truth.classes, geometry, truth)


def load_box_frames(dataset: Dataset, spec: InputSpec, on_disk: bool = False) -> BoxFrames:
    """Read and prepare a whole split, as `load_planes` does, with its boxes; or, `on_disk`, each frame when it is asked
    for.

    Raises:
        InputError: a frame or annotation cannot be used, or the dataset has no boxes.
    """
    lazy = FramesOnDisk(dataset, spec)
    name = f"{dataset.name}:{dataset.split}" if dataset.split else dataset.name
    return BoxFrames(name, lazy if on_disk else tuple(lazy), dataset.classes)


def split_validation(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """(training part, validation part) of a training list, by a hash of each frame's name.

    The same frame falls on the same side whatever list it is in, on every machine and for every seed.
    """

    def is_validation(name: str) -> bool:
        digest = hashlib.sha256(f"{dataset.name}/{name}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < share * 2**32

    chosen = [is_validation(sample.id) for sample in dataset]
    train = dataset.subset([i for i, held in enumerate(chosen) if not held], f"{dataset.split}-train")
    held = dataset.subset([i for i, held in enumerate(chosen) if held], f"{dataset.split}-val")
    return train, held
