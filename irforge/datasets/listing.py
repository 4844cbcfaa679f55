"""The named datasets there are, each in a line: frames, splits, kind of truth, licence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from irforge.datasets import Dataset, dataset_splits, named_datasets, open_dataset
from irforge.datasets.layout import ALL
from irforge.errors import InputError, UsageError


@dataclass(frozen=True)
class Listing:
    """A dataset by name: frames in all, frames of each split, "masks", "boxes" or "none"; or why it does not open."""

    name: str
    frames: int
    splits: dict[str, int]
    truth: str
    licence: str
    fault: str = ""


def list_datasets(data_root: str | os.PathLike[str] | None = None) -> Iterator[Listing]:
    """Open everything under `data_root`, or IRFORGE_DATA.

    Raises:
        UsageError: no such place is known.
    """
    for folder in named_datasets(data_root):
        try:
            whole = open_whole(folder)
            splits = {name: len(open_dataset(folder, split=name)) for name in dataset_splits(folder)}
        except InputError as error:
            yield Listing(folder.name, 0, {}, "none", "", error.what)
            continue
        frames = {sample.frame_path for dataset in whole for sample in dataset}
        yield Listing(folder.name, len(frames), splits, whole[0].truth, whole[0].licence)


def open_whole(name_or_path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> list[Dataset]:
    """`open_dataset`; or each split of a dataset that opens by splits only, and none was asked for."""
    try:
        return [open_dataset(name_or_path, data_root)]
    except UsageError:
        splits = dataset_splits(name_or_path, data_root)
        if not splits:
            raise
        return [open_dataset(name_or_path, data_root, split=split) for split in splits]


def open_splits(dataset: Dataset) -> list[Dataset]:
    """The splits of a dataset that was opened whole; none where it is one split itself, or one file."""
    if dataset.split != ALL or dataset.name != dataset.root.name:
        return []
    return [open_dataset(dataset.root, split=split) for split in dataset_splits(dataset.root)]
