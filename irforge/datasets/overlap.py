"""Frames that two datasets or two lists share: what must not happen between training and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from irforge.datasets.base import Dataset


@dataclass(frozen=True)
class Overlap:
    """What `second` holds of the frames of `first`, by their names there.

    same: content that is in both, under one name. renamed: content that is in both, under other names, as (name in
    `first`, name in `second`). name_only: names that are in both with different content, which is no overlap.
    """

    first: str
    second: str
    frames: int
    same: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    name_only: tuple[str, ...]

    @property
    def shared(self) -> int:
        return len(self.same) + len(self.renamed)


@dataclass(frozen=True)
class SharedNames:
    """A test list and a training list of one dataset that name some of the same frames."""

    test: str
    frames: int
    train: str
    shared: int


def overlap(first: Dataset, second: Dataset, digests: Mapping[str, Mapping[str, str]]) -> Overlap:
    """Compare two datasets by the last part of each frame's name and by content.

    Args:
        digests: `label(dataset)` -> frame name -> `frame_digest`; a frame without one is compared by name alone, and
            shares nothing.
    """
    mine, theirs = digests[label(first)], digests[label(second)]
    by_name = {_short(name): digest for name, digest in theirs.items()}
    by_content = {digest: name for name, digest in theirs.items()}
    same, renamed, name_only = [], [], []
    for name, digest in mine.items():
        if by_name.get(_short(name)) == digest:
            same.append(name)
        elif digest in by_content:
            renamed.append((name, by_content[digest]))
        elif _short(name) in by_name:
            name_only.append(name)
    return Overlap(label(first), label(second), len(first), tuple(same), tuple(renamed), tuple(name_only))


def shared_names(splits: Sequence[Dataset]) -> list[SharedNames]:
    """For each list for testing, the lists for training that name some of its frames; by name alone.

    A list is for training if its name has 'train' in it, and for testing if it has 'test' or 'val' without 'train'.
    What has both 'train' and 'test' is everything, and counts as neither; and a 'trainval' holds its 'val' by design.
    """
    names = {split.split: {sample.id for sample in split} for split in splits}
    testing = [name for name in names if "train" not in name and ("test" in name or "val" in name)]
    training = [name for name in names if "train" in name and "test" not in name]
    return [
        SharedNames(test, len(names[test]), train, len(names[test] & names[train]))
        for test in testing
        for train in training
        if names[test] & names[train] and not ("trainval" in train and "test" not in test)
    ]


def label(dataset: Dataset) -> str:
    """NAME:SPLIT, as a user types it."""
    return f"{dataset.name}:{dataset.split}"


def _short(name: str) -> str:
    return PurePosixPath(name).name
