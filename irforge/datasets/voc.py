"""Boxes in Pascal VOC's layout: JPEGImages/ID.jpg, Annotations/ID.xml, lists of IDs in ImageSets/Main.

Classes are VOC's 20 in a folder called VOC..., else those of `classes.txt`, else all that the annotations name, sorted.
Boxes count pixels from 1 with inclusive ends, which become half-open edges from 0. K-shot lists are read where few-shot
work on VOC keeps them: ../vocsplit/seedS/box_Kshot_CLASS_train.txt is part of the split `train_Kshot_seedS`.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from irforge.datasets.base import Finding, Sample
from irforge.datasets.boxes import BoxRow, frame_boxes
from irforge.datasets.classes import VOC
from irforge.datasets.layout import (
    ALL,
    Reading,
    by_normalised_name,
    choose_split,
    files_by_stem,
    pick,
    read_lines,
    read_list,
    strays,
)
from irforge.errors import InputError
from irforge.frames import frame_size

_CLASSES = "classes.txt"
_SHOT_FILE = re.compile(r"box_(?P<shots>\d+)shot_(?P<name>.+)_train")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    where: str


def matches(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()


def splits(root: Path) -> list[str]:
    return list(_lists(root))


def shot_splits(root: Path) -> list[str]:
    """The K-shot lists beside a set, which open as splits of it."""
    return list(_shot_lists(root))


def read(root: Path, split: str | None) -> Reading:
    shots = by_normalised_name(_shot_lists(root), split)
    if shots is not None:
        return _read_shots(root, *shots)
    frames, written = _files(root)
    findings: list[Finding] = []
    if split is None:
        name, listed_in, stems = ALL, None, list(frames)
        findings = strays(root / "Annotations", written, frames)
    else:
        lists = _lists(root)
        name = choose_split(split, lists, root)
        listed_in = lists[name]
        stems = read_list(listed_in)
    paths = [pick(stem, frames, root / "JPEGImages", listed_in) for stem in stems]
    notes = [pick(stem, written, root / "Annotations", listed_in) for stem in stems]
    objects = [_objects(note, path) for note, path in zip(notes, paths, strict=True)]
    classes = _classes(root, (found.name for row in objects for found in row))
    samples = []
    for stem, path, row in zip(stems, paths, objects, strict=True):
        sample, cut = _sample(stem, path, row, classes)
        samples.append(sample)
        findings += cut
    return Reading(name, tuple(samples), classes, tuple(findings))


def _read_shots(root: Path, split: str, lists: Mapping[str, Path]) -> Reading:
    """K objects of each class that has a list: the first K of the frames in the list's order. A frame that is listed
    for several objects or classes is one sample with the boxes of all."""
    shots = int(split.removeprefix("train_").split("shot")[0])
    drawn: dict[Path, list[_Object]] = defaultdict(list)
    for name, path in lists.items():
        wanted = shots
        for line in read_lines(path):
            frame, objects = _listed(Path(line), path, root)
            own = [found for found in objects if found.name == name][:wanted]
            drawn[frame] += own
            wanted -= len(own)
        if wanted:
            raise InputError(f"the frames of '{path}' hold {shots - wanted} of {shots} objects", "Copy the lists again")
    classes = _classes(root, lists)
    samples: list[Sample] = []
    findings: list[Finding] = []
    for frame, row in drawn.items():
        sample, cut = _sample(frame.stem, frame, row, classes)
        samples.append(sample)
        findings += cut
    return Reading(split, tuple(samples), classes, tuple(findings))


def _listed(line: Path, listed_in: Path, root: Path) -> tuple[Path, list[_Object]]:
    """The frame of a line such as `datasets/VOC2012/JPEGImages/2008_000123.jpg`, which may be of another year."""
    year = root.parent / line.parts[-3] if len(line.parts) > 2 else root
    folder = year if matches(year) else root
    frame = folder / "JPEGImages" / line.name
    if not frame.is_file():
        raise InputError(f"'{line}', which '{listed_in}' lists, is missing", f"It is expected as '{frame}'")
    return frame, _objects(folder / "Annotations" / f"{line.stem}.xml", frame)


def _sample(
    name: str, frame: Path, objects: Iterable[_Object], classes: tuple[str, ...]
) -> tuple[Sample, list[Finding]]:
    rows = [BoxRow(found.box, classes.index(found.name), found.where) for found in objects]
    truth, cut = frame_boxes(rows, frame_size(frame), name)
    difficult = np.array([found.difficult for found in objects], np.bool_)
    return Sample(name, frame, box_truth=replace(truth, difficult=difficult)), cut


def _objects(path: Path, frame: Path) -> list[_Object]:
    try:
        content = ElementTree.parse(path).getroot()
        stated = [int(content.findtext(f"size/{side}", "0")) for side in ("height", "width")]
        objects = []
        for number, item in enumerate(content.iterfind("object"), 1):
            box = [float(item.findtext(f"bndbox/{side}", "")) for side in _SIDES]
            hard = item.findtext("difficult", "0").strip() == "1"
            where = f"object {number} of '{path}'"
            objects.append(
                _Object(item.findtext("name", "").strip(), (box[0] - 1, box[1] - 1, box[2], box[3]), hard, where)
            )
    except FileNotFoundError:
        raise InputError(f"'{frame}' has no annotation '{path}'", "Add it, or take the frame out of its list") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"'{path}' is no annotation of VOC ({error})", "Copy the file again") from None
    size = frame_size(frame)
    if all(stated) and tuple(stated) != size:
        raise InputError(
            f"'{path}' says that its frame is {stated[1]}x{stated[0]}, and it is {size[1]}x{size[0]}",
            "Boxes fit frames of one size: use the frames that they were made for, or mend the file",
        )
    return objects


def _classes(root: Path, names: Iterable[str]) -> tuple[str, ...]:
    """The classes of the whole set, of which `names` are some."""
    named = dict.fromkeys(names)
    if root.name.casefold().startswith("voc") and set(named) <= set(VOC):
        return VOC
    if not (root / _CLASSES).is_file():
        files = _files(root)
        every = (
            found for stem, path in files[1].items() if stem in files[0] for found in _objects(path, files[0][stem])
        )
        return tuple(sorted({found.name for found in every} | set(named)))
    classes = tuple(read_lines(root / _CLASSES))
    unknown = [name for name in named if name not in classes]
    if unknown:
        raise InputError(f"'{root / _CLASSES}' lacks the class '{unknown[0]}'", "Add it, or mend the annotation")
    return classes


def _files(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Frames and annotations by stem."""
    written = {path.stem: path for path in sorted((root / "Annotations").glob("*.xml"))}
    return files_by_stem(root / "JPEGImages"), written


def _lists(root: Path) -> dict[str, Path]:
    """The lists of frames; VOC's lists of one class (`cat_train.txt`, with +1 or -1 in each line) are none."""
    found = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    return {path.stem: path for path in found if not _is_of_one_class(path)}


def _is_of_one_class(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as lines:
        return len(next((line for line in lines if line.strip()), "").split()) == 2


def _shot_lists(root: Path) -> dict[str, dict[str, Path]]:
    """Split -> class -> list."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    if root.name.casefold().startswith("voc"):
        for path in sorted((root.parent / "vocsplit").glob("seed*/box_*shot_*_train.txt")):
            parts = _SHOT_FILE.fullmatch(path.stem)
            if parts is not None:
                found[f"train_{parts['shots']}shot_{path.parent.name}"][parts["name"]] = path
    return found
