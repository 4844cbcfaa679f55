"""Frames and masks in two folders, with split lists: NUDT-SIRST, IRSTD-1k (as shipped or renamed), and the like."""

from __future__ import annotations

from pathlib import Path

from irforge.datasets.base import Sample
from irforge.datasets.layout import ALL, Reading, choose_split, files_by_stem, normalised, pick, read_list

layout = "images/ + masks/ (or IRSTD1k_Img/ + IRSTD1k_Label/), with lists of names as *.txt"

_FOLDERS = (("images", "masks"), ("IRSTD1k_Img", "IRSTD1k_Label"), ("image", "mask"), ("images", "labels"))
_LIST_FOLDERS = (".", "splits", "img_idx", "lists")
_MASK_SUFFIXES = ("", "_pixels0", "_mask", "_gt")


def matches(root: Path) -> bool:
    return _folders(root) is not None


def splits(root: Path) -> list[str]:
    return list(_lists(root))


def read(root: Path, split: str | None) -> Reading:
    folders = _folders(root)
    assert folders is not None
    images, masks = folders
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
        frame = pick(stem, frames, images, listed_in)
        mask = next((truths[stem + end] for end in _MASK_SUFFIXES if stem + end in truths), None)
        samples.append(Sample(stem, frame, pick(stem, truths, masks, listed_in) if mask is None else mask))
    return Reading(name, tuple(samples))


def _folders(root: Path) -> tuple[Path, Path] | None:
    for images, masks in _FOLDERS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks
    return None


def _lists(root: Path) -> dict[str, Path]:
    """Split name -> list. `train_NUDT-SIRST.txt` inside a folder of that name is split `train`."""
    found: dict[str, Path] = {}
    for folder in _LIST_FOLDERS:
        for path in sorted((root / folder).glob("*.txt")):
            name = path.stem
            if normalised(name).endswith("_" + normalised(root.name)):
                name = name[: -len(root.name) - 1]
            if normalised(name) not in ("readme", "license", "licence", "requirements", "classes"):
                found.setdefault(name, path)
    return found
