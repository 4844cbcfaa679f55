"""What every dataset is: a list of samples with a name, a split and a licence note."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irforge.contract import DataNote
from irforge.errors import InputError
from irforge.frames import Frame, frame_size, read_frame, read_mask


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """True boxes of one frame: float32 [n, 4] xyxy, half-open, in frame pixels, and 0-based int64 classes [n]."""

    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, eq=False)
class Sample:
    """One frame and its truth; nothing is read before it is asked for.

    `background` marks a frame known to hold no target: it has an empty mask without a mask file.
    """

    id: str
    frame_path: Path
    mask_path: Path | None = None
    box_truth: BoxTruth | None = None
    background: bool = False

    def frame(self) -> Frame:
        """The raw frame as `read_frame` gives it: H x W or H x W x 3, uint8 or uint16."""
        return read_frame(self.frame_path)

    def mask(self) -> npt.NDArray[np.bool_] | None:
        """The true mask, bool H x W of the frame's size; None where the dataset has no masks.

        Raises:
            InputError: mask and frame differ in size, or the mask is not binary.
        """
        if self.mask_path is None:
            return np.zeros(frame_size(self.frame_path), np.bool_) if self.background else None
        mask = read_mask(self.mask_path)
        size = frame_size(self.frame_path)
        if mask.shape != size:
            raise InputError(
                f"mask '{self.mask_path}' is {mask.shape[1]}x{mask.shape[0]}, its frame '{self.frame_path}' is"
                f" {size[1]}x{size[0]}",
                "Mask and frame must be of one size: make the mask again, or take the pair out of the list",
            )
        return mask

    def boxes(self) -> BoxTruth | None:
        """The true boxes, from the annotation or else one for each 8-connected component of the mask."""
        if self.box_truth is not None:
            return self.box_truth
        mask = self.mask()
        if mask is None:
            return None
        from irforge.detections import mask_targets

        found = mask_targets(mask.astype(np.float32), 0.5, 8)
        return BoxTruth(found.boxes, found.classes)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A split of a dataset: `len`, iteration and indexing give samples."""

    name: str
    split: str
    root: Path
    licence: str
    samples: tuple[Sample, ...] = field(repr=False)
    classes: tuple[str, ...] = ("target",)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def has_masks(self) -> bool:
        return all(sample.mask_path is not None or sample.background for sample in self.samples)

    @property
    def has_boxes(self) -> bool:
        """True boxes are known, be it through masks."""
        return self.has_masks or all(sample.box_truth is not None for sample in self.samples)

    def subset(self, indices: Iterable[int], split: str | None = None) -> Dataset:
        """The samples at `indices`, in that order; `split` names the part, for reports."""
        return replace(
            self, samples=tuple(self.samples[i] for i in indices), split=self.split if split is None else split
        )

    def note(self) -> DataNote:
        """This data as a contract's provenance records it."""
        return DataNote(name=self.name, split=self.split, frames=len(self), licence=self.licence)
