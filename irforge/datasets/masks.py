"""Frames and masks in two folders, with lists of names: NUDT-SIRST, IRSTD-1k (as shipped or renamed), SIRST v1.

`images/NAME.png` with `masks/NAME.png` (or `NAME_pixels0.png`, `NAME_mask.png`, `NAME_gt.png`) and lists `*.txt` at the
root or in a folder of it. Every frame needs its mask.
"""

from __future__ import annotations

from pathlib import Path

from irforge.datasets.base import Finding, Sample
from irforge.datasets.layout import ALL, Reading, choose_split, files_by_stem, normalised, pick, read_list, strays

_FOLDERS = (("images", "masks"), ("IRSTD1k_Img", "IRSTD1k_Label"), ("image", "mask"))
_PLAIN_LIST_FOLDERS = ("splits", "img_idx", "lists")
_NO_LISTS = ("readme", "license", "licence", "requirements", "classes")
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
    findings: list[Finding] = []
    if split is None:
        name, listed_in, stems = ALL, None, list(frames)
        findings = strays(masks, truths, frames, _MASK_SUFFIXES)
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
    return Reading(name, tuple(samples), findings=tuple(findings))


def _folders(root: Path) -> tuple[Path, Path] | None:
    for images, masks in _FOLDERS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks
    return None


def _lists(root: Path) -> dict[str, Path]:
    """Split name -> list. Lists in other folders than the usual are called by both names: `idx_427/test`."""
    found: dict[str, Path] = {}
    others = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name not in _PLAIN_LIST_FOLDERS)
    for folder in ("", *_PLAIN_LIST_FOLDERS, *others):
        prefix = f"{folder}/" if folder in others else ""
        for path in sorted((root / folder).glob("*.txt")):
            if normalised(path.stem) not in _NO_LISTS:
                found.setdefault(prefix + _without_name(path.stem, root.name), path)
    return found


def _without_name(stem: str, dataset: str) -> str:
    """BasicIRSTD calls the lists of NUDT-SIRST `train_NUDT-SIRST.txt` and `test_NUDT-SIRST.txt`."""
    return stem[: -len(dataset) - 1] if normalised(stem).endswith("_" + normalised(dataset)) else stem
