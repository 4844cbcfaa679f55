"""What every dataset is: a list of samples with a name, a split and a licence note."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irforge.components import components
from irforge.contract import DataNote
from irforge.errors import InputError, UsageError
from irforge.frames import Frame, frame_size, read_frame, read_mask, to_gray


@dataclass(frozen=True)
class Finding:
    """Something about a dataset that its user should know: mended or harmless, or else a fault.

    kind: a few words that are the same for all of its kind. where: the frame or file. text: what was found.
    """

    kind: str
    where: str
    text: str
    fault: bool


@dataclass(frozen=True, eq=False)
class BoxTruth:
    """True boxes of one frame: float32 [n, 4] xyxy, half-open, in frame pixels, and 0-based int64 classes [n].

    difficult: bool [n], what VOC's authors marked so: trained on like the rest, and neither right nor wrong to find by
    `voc_ap`. None where a dataset knows no such mark.
    """

    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, eq=False)
class Sample:
    """One frame and its truth; nothing is read before it is asked for.

    `background` marks a frame known to hold no target: it has an empty mask without a mask file. Where there is a mask
    it is the truth, and boxes come from it; `box_file` and `centroid_file` are what the dataset's authors wrote about
    the same targets, for `irforge data` to hold against the mask.
    """

    id: str
    frame_path: Path
    mask_path: Path | None = None
    box_truth: BoxTruth | None = None
    background: bool = False
    box_file: Path | None = None
    centroid_file: Path | None = None

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
        """The true boxes: one for each 8-connected component of the mask in raster order, or those of the annotation.

        Raises:
            InputError: as `mask`.
        """
        if self.box_truth is not None:
            return self.box_truth
        mask = self.mask()
        if mask is None:
            return None
        from irforge.detections import mask_targets

        found = mask_targets(mask.astype(np.float32), 0.5, 8)
        return BoxTruth(found.boxes, found.classes)

    def centroids(self) -> npt.NDArray[np.float32] | None:
        """The targets' centroids weighted by level, (x, y) as edge coordinates: float32 [n, 2] in the order of
        `boxes`; None where the dataset has no masks.

        The weight of a pixel is its gray level (the mean of channels); a target of level 0 has its plain centre.
        SIRST-V2 publishes the same points counted from 1, so that they are its figures less a half.

        Raises:
            InputError: mask or frame cannot be used.
        """
        mask = self.mask()
        if mask is None:
            return None
        found = components(mask)
        weights = to_gray(self.frame(), where=f"'{self.frame_path}'")[found.rows, found.columns].astype(np.float64)
        totals = np.bincount(found.owners, weights, len(found))
        sums = [np.bincount(found.owners, weights * at, len(found)) for at in (found.columns, found.rows)]
        weighted = np.stack(sums, axis=1) / np.maximum(totals, 1)[:, None]
        return (np.where(totals[:, None] > 0, weighted, found.centres) + 0.5).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A split of a dataset: `len`, iteration and indexing give samples.

    `findings` are what the reader mended or passed over while it opened the dataset.
    """

    name: str
    split: str
    root: Path
    licence: str
    samples: tuple[Sample, ...] = field(repr=False)
    classes: tuple[str, ...] = ("target",)
    findings: tuple[Finding, ...] = field(default=(), repr=False)

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

    @property
    def truth(self) -> str:
        """What is known of the targets: "masks" (and so boxes), "boxes" or "none"."""
        return "masks" if self.has_masks else "boxes" if self.has_boxes else "none"

    def subset(self, indices: Iterable[int], split: str | None = None) -> Dataset:
        """The samples at `indices`, in that order; `split` names the part, for reports."""
        return replace(
            self, samples=tuple(self.samples[i] for i in indices), split=self.split if split is None else split
        )

    def first(self, count: int) -> Dataset:
        """The first `count` samples, or all where there are fewer."""
        return self.subset(range(min(count, len(self))))

    def within(self, pixels: int) -> Dataset:
        """The samples whose frames have at most so many pixels.

        Raises:
            UsageError: there is none.
        """
        kept = [index for index, sample in enumerate(self) if prod(frame_size(sample.frame_path)) <= pixels]
        if not kept:
            raise UsageError(
                f"'{self.name}:{self.split}' has no frame of at most {pixels} pixels", "Raise --max-pixels"
            )
        return self.subset(kept)

    def note(self) -> DataNote:
        """This data as a contract's provenance records it."""
        return DataNote(name=self.name, split=self.split, frames=len(self), licence=self.licence)
