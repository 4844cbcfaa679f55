"""SIRST v1 and SIRST-V2 as their authors ship them: frames in mixed/ (v1: images/), masks called ID_pixels0.png.

A frame without a mask file is a background: it has no target.
"""

from __future__ import annotations

from pathlib import Path

from irforge.datasets.base import Sample
from irforge.datasets.layout import ALL, Reading, choose_split, files_by_stem, pick, read_list

layout = "mixed/ + annotations/masks/ID_pixels0.png, with lists of names in splits/"

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
