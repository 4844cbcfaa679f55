"""Boxes in COCO's JSON: annotations/*.json beside the frames that they name. Ids may be numbers or text.

`shots` says where K-shot lists are found; few-shot work on COCO keeps its splits in `cocosplit/datasplit` as well.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from irforge.datasets.base import Finding, Sample
from irforge.datasets.boxes import BoxRow, frame_boxes
from irforge.datasets.layout import ALL, Reading, by_normalised_name, choose_split, normalised
from irforge.datasets.shots import coco_split_folders, merged, shot_lists
from irforge.errors import InputError, UsageError
from irforge.frames import frame_size


def matches(root: Path) -> bool:
    return root.is_dir() and bool(_files(root))


def splits(root: Path) -> list[str]:
    return list(_files(root))


def read(root: Path, split: str | None) -> Reading:
    files = _files(root)
    if split is None and len(files) > 1:
        raise UsageError(f"'{root.name}' needs a split", f"Splits there: {', '.join(files)}")
    if split is None:
        return read_file(next(iter(files.values())), root)
    lists = shot_lists(root)
    shots = by_normalised_name(lists, split)
    if shots is not None:
        return _read_shots(*shots, root, files)
    name = _chosen(split, files)
    if name is None:
        try:
            name = choose_split(split, files, root)
        except UsageError as error:
            more = f"; and {len(lists)} K-shot lists, such as {next(iter(lists))}" if lists else ""
            raise UsageError(error.what, error.remedy + more) from None
    return read_file(files[name], root, name)


def read_file(path: Path, root: Path, split: str = ALL) -> Reading:
    """The samples of one COCO file; classes are numbered from 0 by ascending category id.

    Boxes [x, y, w, h] become half-open xyxy; crowds (`iscrowd`) are left out.

    Raises:
        InputError: not COCO; an entry that lacks a field, which is named; a frame listed twice, missing, or of another
            size than the file says; an annotation of an unknown category or image; a box without area or outside its
            frame.
    """
    return _reading(lambda: json.loads(path.read_bytes()), path, root, split)


def _read_shots(split: str, paths: list[Path], root: Path, files: dict[str, Path]) -> Reading:
    train = files.get(_chosen("train", files) or "train")
    return _reading(lambda: merged(paths, train), paths[0], root, split)


def _reading(load: Callable[[], dict[str, Any]], path: Path, root: Path, split: str) -> Reading:
    try:
        content = load()
        names = {
            _number(entry, "id", where): str(_field(entry, "name", where))
            for entry, where in _named(content["categories"], "category", path)
        }
        images = {
            str(_field(entry, "id", where)): _stated(entry, where)
            for entry, where in _named(content["images"], "image", path)
        }
        if len(images) < len(content["images"]) or len(names) < len(content["categories"]):
            raise InputError(f"in '{path}' an id is given twice", "Give each image and category an id of its own")
        if not images:
            raise InputError(f"'{path}' lists no images", "Check the path and the file")
        numbers = {category: number for number, category in enumerate(sorted(names))}
        rows = _rows_by_image(content["annotations"], numbers, images, path)
    except KeyError as error:
        raise InputError(
            f"'{path}' is no COCO annotation file: it has no {error}", "Check the path and the file"
        ) from None
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"'{path}' is no COCO annotation file: {error}", "Check the path and the file") from None
    stem = path.stem.removeprefix("instances_")
    bases = dict.fromkeys((root, path.parent, path.parent.parent))
    places = [base / folder for base in bases for folder in ("", "images", stem, f"images/{stem}")]
    samples: list[Sample] = []
    findings: list[Finding] = []
    seen: set[Path] = set()
    for identity, (file_name, stated) in images.items():
        frame = _found(file_name, places) or _found(file_name, (p for p in root.glob("*") if p.is_dir()))
        if frame is None:
            raise InputError(
                f"frame '{file_name}', which '{path}' lists, is missing under '{root}'", "Add it, or mend the list"
            )
        if frame in seen:
            raise InputError(f"'{path}' lists the frame '{file_name}' twice", "Bring its boxes under one image id")
        seen.add(frame)
        size = frame_size(frame)
        if stated is not None and stated != size:
            raise InputError(
                f"'{path}' says that '{file_name}' is {stated[1]}x{stated[0]}, and it is {size[1]}x{size[0]}",
                "Boxes fit frames of one size: use the frames that they were made for, or mend the file",
            )
        name = Path(file_name).with_suffix("").as_posix()
        truth, cut = frame_boxes(rows[identity], size, name)
        findings += cut
        samples.append(Sample(name, frame, box_truth=truth))
    return Reading(split, tuple(samples), tuple(names[key] for key in sorted(names)), tuple(findings))


def _named(entries: list[dict[str, Any]], kind: str, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each entry, and what to call it: by its id, or where it has none, by its place."""
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{kind} number {index + 1} is {json.dumps(entry)}, not an object with fields")
        yield entry, f"{kind} {entry.get('id', f'number {index + 1}')} in '{path}'"


def _field(entry: dict[str, Any], name: str, where: str) -> Any:
    if name not in entry:
        raise InputError(f"{where} has no '{name}'", f"Give it its '{name}', or take it out")
    return entry[name]


def _number(entry: dict[str, Any], name: str, where: str) -> int:
    value = _field(entry, name, where)
    try:
        return int(value)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{where} has the '{name}' {value!r}, which is no number", "Number it") from None


def _sides(annotation: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    sides = _field(annotation, "bbox", where)
    try:
        x, y, width, height = (float(side) for side in sides)
    except (ValueError, TypeError):
        raise InputError(f"{where} has the 'bbox' {sides!r}", "Write four numbers: x, y, width, height") from None
    return x, y, width, height


def _stated(image: dict[str, Any], where: str) -> tuple[str, tuple[int, int] | None]:
    """(file name, (height, width) where the file says it)."""
    name, height, width = str(_field(image, "file_name", where)), image.get("height"), image.get("width")
    return name, None if height is None or width is None else (int(height), int(width))


def _rows_by_image(
    annotations: list[dict[str, Any]], numbers: dict[int, int], images: dict[str, Any], path: Path
) -> dict[str, list[BoxRow]]:
    rows: dict[str, list[BoxRow]] = defaultdict(list)
    for annotation, where in _named(annotations, "annotation", path):
        if annotation.get("iscrowd"):
            continue
        image, category = str(_field(annotation, "image_id", where)), _number(annotation, "category_id", where)
        if image not in images:
            raise InputError(
                f"{where} belongs to the image {image}, which is not listed", "Add the image, or take its boxes out"
            )
        if category not in numbers:
            known = ", ".join(map(str, numbers)) or "none"
            raise InputError(f"{where} is of the category {category}, which is not listed", f"Listed are: {known}")
        x, y, width, height = _sides(annotation, where)
        rows[image].append(BoxRow((x, y, x + width, y + height), numbers[category], where))
    return rows


def _found(file_name: str, places: Iterable[Path]) -> Path | None:
    return next((place / file_name for place in places if (place / file_name).is_file()), None)


def _chosen(split: str, files: Iterable[str]) -> str | None:
    """The one split whose name begins with `split_`, where none has the name itself."""
    starting = [name for name in files if normalised(name).startswith(normalised(split) + "_")]
    exact = any(normalised(name) == normalised(split) for name in files)
    return starting[0] if len(starting) == 1 and not exact else None


def _files(root: Path) -> dict[str, Path]:
    folders = [root / "annotations", *(folder / "datasplit" for folder in coco_split_folders(root))]
    found = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    return {path.stem.removeprefix("instances_"): path for path in found}
