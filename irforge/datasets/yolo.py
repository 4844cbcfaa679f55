"""Boxes in YOLO's text files: for `images/a.png` the rows `class centre-x centre-y width height` of `labels/a.txt`, in
fractions of the frame.

Splits are the folders or lists that `data.yaml` names, else the folders in `images/`, else lists `*.txt` at the root.
Class names come from `data.yaml` or `classes.txt`. A frame without a label file is a background, as the format has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from irforge.datasets.base import Finding, Sample
from irforge.datasets.boxes import BoxRow, frame_boxes
from irforge.datasets.layout import ALL, Reading, choose_split, natural_key, normalised, read_lines, strays
from irforge.errors import EnvironmentFault, InputError
from irforge.frames import FRAME_SUFFIXES, frame_size

_DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
_SPLITS = ("train", "val", "test")
_CLASSES = "classes.txt"
_NO_LISTS = ("classes", "readme", "license", "requirements")


def matches(root: Path) -> bool:
    if not root.is_dir():
        return False
    plain = (root / "images").is_dir() and next((root / "labels").rglob("*.txt"), None) is not None
    return plain or any((root / name).is_file() for name in _DESCRIPTIONS)


def splits(root: Path) -> list[str]:
    return list(_splits(root, _description(root)))


def read(root: Path, split: str | None) -> Reading:
    description = _description(root)
    parts = _splits(root, description)
    if split is None:
        name, places = ALL, [place for part in parts.values() for place in part] or [root / "images"]
    else:
        name = choose_split(split, parts, root)
        places = parts[name]
    classes = _classes(root, description)
    frames = list(dict.fromkeys(frame for place in places for frame in _frames(place, root)))
    findings: list[Finding] = []
    for folder in filter(Path.is_dir, places):
        findings += _orphans(folder, frames)
    samples: list[Sample] = []
    unlabelled = []
    for frame in frames:
        name_of_frame, labels = _name(frame, root), _labels(frame)
        if not labels.is_file():
            unlabelled.append(name_of_frame)
        written = labels.is_file() and labels.stat().st_size
        size = frame_size(frame) if written else (0, 0)
        truth, cut = frame_boxes(_rows(labels, size, classes) if written else (), size, name_of_frame)
        findings += cut
        samples.append(Sample(name_of_frame, frame, box_truth=truth))
    if len(unlabelled) == len(frames):
        raise InputError(
            f"'{root}' has no label file for any frame", f"The first one is expected as '{_labels(frames[0])}'"
        )
    if unlabelled:
        text = f"{len(unlabelled)} frames, this one first, have none and count as free of targets"
        findings.append(Finding("no label file", unlabelled[0], text, fault=False))
    return Reading(name, tuple(samples), classes, tuple(findings))


def _description(root: Path) -> tuple[Path, dict[str, Any]] | None:
    path = next((root / name for name in _DESCRIPTIONS if (root / name).is_file()), None)
    if path is None:
        return None
    try:
        import yaml
    except ImportError:
        raise EnvironmentFault(f"'{path}' cannot be read without PyYAML", "pip install pyyaml") from None
    try:
        content = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise InputError(f"'{path}' is no YAML ({error})", "Mend or remove it") from None
    if not isinstance(content, dict):
        raise InputError(f"'{path}' describes no dataset", "Expected are train, val, test and names")
    return path, content


def _splits(root: Path, description: tuple[Path, dict[str, Any]] | None) -> dict[str, list[Path]]:
    """Split -> the folders and lists that make it up."""
    if description is not None:
        path, content = description
        stated = {split: content[split] for split in _SPLITS if content.get(split)}
        if stated:
            return {split: [_place(str(p), path, content) for p in _listed(value)] for split, value in stated.items()}
    folders = sorted(path for path in (root / "images").glob("*") if path.is_dir())
    if folders:
        return {folder.name: [folder] for folder in folders}
    lists = sorted(path for path in root.glob("*.txt") if normalised(path.stem) not in _NO_LISTS)
    return {path.stem: [path] for path in lists}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _place(stated: str, path: Path, content: dict[str, Any]) -> Path:
    # `path` is relative to wherever its author trained, and one exporter writes `../train/images` for `train/images`.
    bases = (path.parent / str(content.get("path") or ""), path.parent)
    for place in (base / text for base in bases for text in (stated, stated.removeprefix("../"))):
        if place.exists():
            return Path(os.path.normpath(place))
    raise InputError(f"'{stated}', which '{path}' names, does not exist", "Mend the description, or add the folder")


def _frames(place: Path, root: Path) -> list[Path]:
    if place.is_dir():
        found = sorted((p for p in place.rglob("*") if p.suffix.lower() in FRAME_SUFFIXES), key=natural_key)
        if not found:
            raise InputError(f"folder '{place}' holds no frames", "Check the path, or the layout of the dataset")
        return found
    frames = []
    for line in read_lines(place, lambda line: Path(line).as_posix()):
        frame = next((path for path in (root / line, place.parent / line) if path.is_file()), None)
        if frame is None:
            raise InputError(f"'{line}', which '{place}' lists, is missing", "Add it, or take its line out")
        frames.append(frame)
    return frames


def _labels(frame: Path) -> Path:
    """`.../images/part/a.png` -> `.../labels/part/a.txt`: the last folder called images counts."""
    parts = list(frame.parts)
    where = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if where:
        parts[where[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _orphans(folder: Path, frames: Iterable[Path]) -> list[Finding]:
    labels = _labels(folder / "any").parent
    if labels == folder:
        return []
    there = [path.relative_to(labels).with_suffix("").as_posix() for path in sorted(labels.rglob("*.txt"))]
    owned = [frame.relative_to(folder).with_suffix("").as_posix() for frame in frames if folder in frame.parents]
    return strays(labels, (stem for stem in there if stem != Path(_CLASSES).stem), owned)


def _name(frame: Path, root: Path) -> str:
    inside = frame.relative_to(root) if root in frame.parents else Path(frame.name)
    return Path(*(part for part in inside.parts if part != "images")).with_suffix("").as_posix()


def _rows(path: Path, size: tuple[int, int], classes: tuple[str, ...]) -> list[BoxRow]:
    rows = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of '{path}'"
        try:
            stated, x, y, width, height = (float(value) for value in line.split())
        except ValueError:
            raise InputError(
                f"{where} is '{line.strip()[:60]}'", "Expected are five numbers: class, centre x, y, width, height"
            ) from None
        if stated not in range(len(classes)):
            raise InputError(
                f"{where} is of the class {stated:g}, and there are {len(classes)} from 0: {', '.join(classes)}",
                "Mend the line or the list of names",
            )
        left, top = (x - width / 2) * size[1], (y - height / 2) * size[0]
        box = (left, top, left + width * size[1], top + height * size[0])
        rows.append(BoxRow(box, int(stated), where))
    return rows


def _classes(root: Path, description: tuple[Path, dict[str, Any]] | None) -> tuple[str, ...]:
    if description is not None and (names := description[1].get("names")):
        if isinstance(names, list):
            return tuple(str(name) for name in names)
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            return tuple(str(names[number]) for number in range(len(names)))
        raise InputError(f"the names in '{description[0]}' are not numbered from 0", "Name every class, from 0 on")
    for path in (root / _CLASSES, root / "labels" / _CLASSES):
        if path.is_file():
            return tuple(read_lines(path))
    raise InputError(f"'{root}' has no names of its classes", f"Write them to '{root / _CLASSES}', one a line")
