"""Datasets by name or path: `open_dataset("NUDT-SIRST:test")`, `open_dataset("frames/")`.

One reader is one module; `READERS` tries them in order. No torch here.
"""

from __future__ import annotations

import os
from pathlib import Path

from irforge.datasets import coco, folder, masks, sirst, voc, yolo
from irforge.datasets.base import BoxTruth, Dataset, Finding, Sample
from irforge.datasets.classes import select, split_selection
from irforge.datasets.layout import Reader, normalised
from irforge.datasets.shots import shot_lists
from irforge.errors import InputError, UsageError

__all__ = [
    "BoxTruth",
    "Dataset",
    "Finding",
    "Sample",
    "dataset_splits",
    "named_datasets",
    "open_dataset",
    "shot_splits",
]

READERS: tuple[Reader, ...] = (sirst, masks, coco, voc, yolo, folder)

DATA_ROOT = "IRFORGE_DATA"

LICENCES = {
    "nudt_sirst": "no data licence stated; authors' code MIT; cite Li et al., DNANet, TIP 2022",
    "sirst": "no licence stated; cite Dai et al., ACM (WACV 2021), ALCNet (TGRS 2021)",
    "sirst_v2": "no licence stated; cite Dai et al., OSCAR (TGRS 2023), ACM (WACV 2021), ALCNet (TGRS 2021)",
    "irstd_1k": "no licence stated; cite Zhang et al., ISNet, CVPR 2022",
    "coco": "annotations CC BY 4.0, images under Flickr's terms; cite Lin et al., ECCV 2014",
    "gcoco": "made from COCO: annotations CC BY 4.0, images under Flickr's terms; cite Lin et al., ECCV 2014",
    "voc2007": "images under Flickr's terms; cite Everingham et al., IJCV 2010",
    "voc2012": "images under Flickr's terms; cite Everingham et al., IJCV 2010",
    "drone_ir": "CC0 1.0; please cite Svanstrom et al., Data in Brief 2021",
}
"""What is known of the licences of well-known sets, by normalised folder name, also for folders inside them."""


def open_dataset(
    name_or_path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None, *, split: str | None = None
) -> Dataset:
    """Open `NAME[:SPLIT][@CLASSES[@REST]]`, or the same with a path for the name.

    Args:
        name_or_path: an existing path, or the name of a folder under `data_root`; case and '-' or '_' do not matter.
            What '@' chooses says `irforge.datasets.classes`.
        data_root: where named datasets lie; otherwise the environment variable IRFORGE_DATA says so.
        split: the split where `name_or_path` names none; None means everything there is.

    Raises:
        UsageError: no such dataset, split or class; the message lists those there are.
        InputError: a folder is missing or empty, a listed file is missing or listed twice, or an annotation cannot
            be used. What would spoil training or metrics in silence is refused here; what can be mended is mended, and
            is among the dataset's findings.
    """
    text, selection = _parts(os.fspath(name_or_path))
    root, wanted = _resolve(text, data_root)
    if root.suffix.lower() == ".json" and root.is_file():
        if wanted:
            raise UsageError(f"'{root}' is one annotation file and has no split '{wanted}'", "Leave the split out")
        reading = coco.read_file(root, root.parent)
        name, folder_of_frames = root.stem, root.parent
    else:
        reading = _reader(root).read(root, wanted or split)
        name, folder_of_frames = root.name, root
    dataset = Dataset(
        name, reading.split, folder_of_frames, _licence(root), reading.samples, reading.classes, reading.findings
    )
    return select(dataset, selection) if selection else dataset


def dataset_paths(name_or_path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> list[Path]:
    """The file and folders that `open_dataset` reads, found without reading them; none where there is no such set."""
    try:
        root, _ = _resolve(_parts(os.fspath(name_or_path))[0], data_root)
    except (InputError, UsageError):
        return []
    # The frames of one annotation file lie beside it.
    return [root, root.parent] if root.suffix.lower() == ".json" and root.is_file() else [root]


def dataset_splits(name_or_path: str | os.PathLike[str], data_root: str | os.PathLike[str] | None = None) -> list[str]:
    """The names of the splits of a dataset; empty where there are no lists."""
    root, _ = _resolve(_parts(os.fspath(name_or_path))[0], data_root)
    return _reader(root).splits(root)


def shot_splits(root: str | os.PathLike[str]) -> list[str]:
    """The names of the K-shot lists that belong to the dataset in a folder; `dataset_splits` does not list them."""
    return [*shot_lists(Path(root)), *voc.shot_splits(Path(root))]


def named_datasets(data_root: str | os.PathLike[str] | None = None) -> list[Path]:
    """The folders under `data_root`, or IRFORGE_DATA, by name.

    Raises:
        UsageError: no such place is known, or it is no folder.
    """
    base = data_root or os.environ.get(DATA_ROOT)
    if base is None:
        raise UsageError("no place for named datasets is known", f"Give --data-root, set {DATA_ROOT}, or name a path")
    if not Path(base).is_dir():
        raise UsageError(f"the data root '{base}' is not a folder", f"Mend --data-root or {DATA_ROOT}")
    return sorted(path for path in Path(base).iterdir() if path.is_dir())


def _licence(root: Path) -> str:
    names = [normalised(folder.name) for folder in (root, *root.parents[:2])]
    return next((LICENCES[name] for name in names if name in LICENCES), "not stated")


def _reader(root: Path) -> Reader:
    for reader in READERS:
        if reader.matches(root):
            return reader
    raise InputError(f"'{root}' is not a folder", "Name a dataset, a folder of frames or a COCO annotation file")


def _parts(text: str) -> tuple[str, str]:
    """What to open, and the choice of classes from it; a path may have an '@' in it."""
    return (text, "") if Path(text).exists() else split_selection(text)


def _resolve(text: str, data_root: str | os.PathLike[str] | None) -> tuple[Path, str | None]:
    if Path(text).exists():
        return Path(text).resolve(), None
    head, separator, split = text.rpartition(":")
    name = head if separator else text
    wanted = split if separator else None
    if separator and Path(head).exists():
        return Path(head).resolve(), wanted
    if any(mark in name for mark in ("/", os.sep)) or name in ("", ".", ".."):
        raise InputError(f"'{name}' does not exist", "Check the path")
    base = data_root or os.environ.get(DATA_ROOT)
    if base is None:
        raise UsageError(
            f"there is no folder '{name}' here, and no place for named datasets is known",
            f"Give --data-root, set {DATA_ROOT}, or name a path",
        )
    folders = named_datasets(base)
    for candidate in folders:
        if normalised(candidate.name) == normalised(name):
            return candidate.resolve(), wanted
    there = ", ".join(p.name for p in folders) or "nothing"
    raise UsageError(f"there is no dataset '{name}' under '{base}'", f"Datasets there: {there}")
