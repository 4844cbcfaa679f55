"""A plain folder of frames, without truth."""

from __future__ import annotations

from pathlib import Path

from irforge.datasets.base import Sample
from irforge.datasets.layout import ALL, Reading, choose_split, files_by_stem


def matches(root: Path) -> bool:
    return root.is_dir()


def splits(root: Path) -> list[str]:
    return []


def read(root: Path, split: str | None) -> Reading:
    if split is not None:
        choose_split(split, {}, root)
    frames = files_by_stem(root / "images" if (root / "images").is_dir() else root)
    return Reading(ALL, tuple(Sample(stem, path) for stem, path in frames.items()))
