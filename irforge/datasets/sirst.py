"""SIRST-V2 as its authors ship it: mixed/ID.png, annotations/masks/ID_pixels0.png, lists of names in splits/.

A frame without a mask file is a background: it has no target. (SIRST v1 has the layout that `masks` reads.)
"""

from __future__ import annotations

from pathlib import Path

from irforge.datasets.base import Sample
from irforge.datasets.layout import ALL, Reading, choose_split, files_by_stem, pick, read_list

_MASK_END = "_pixels0"


def matches(root: Path) -> bool:
    return (root / "mixed").is_dir() and (root / "annotations" / "masks").is_dir()


def splits(root: Path) -> list[str]:
    return list(_lists(root))


def read(root: Path, split: str | None) -> Reading:
    images, masks = root / "mixed", root / "annotations" / "masks"
    frames, truths = files_by_stem(images), files_by_stem(masks)
    if split is None:
        name, listed_in, stems = ALL, None, list(frames)
    else:
        lists = _lists(root)
        name = choose_split(split, lists, root)
        listed_in = lists[name]
        stems = read_list(listed_in)
    samples = []
    for stem in stems:
        mask = truths.get(stem + _MASK_END)
        samples.append(Sample(stem, pick(stem, frames, images, listed_in), mask, background=mask is None))
    return Reading(name, tuple(samples))


def _lists(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted((root / "splits").glob("*.txt"))}
