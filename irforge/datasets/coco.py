"""Boxes in COCO's JSON: annotations/*.json beside the frames that they name."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from irforge.datasets.base import BoxTruth, Sample
from irforge.datasets.layout import ALL, Reading, choose_split, normalised
from irforge.errors import InputError, UsageError


def matches(root: Path) -> bool:
    return any((root / "annotations").glob("*.json"))


def splits(root: Path) -> list[str]:
    return list(_files(root))


def read(root: Path, split: str | None) -> Reading:
    files = _files(root)
    if split is None and len(files) > 1:
        raise UsageError(f"'{root.name}' needs a split", f"Splits there: {', '.join(files)}")
    if split is None:
        return Reading(ALL, *read_file(next(iter(files.values())), root))
    starting = [name for name in files if normalised(name).startswith(normalised(split) + "_")]
    exact = any(normalised(name) == normalised(split) for name in files)
    name = starting[0] if len(starting) == 1 and not exact else choose_split(split, files, root)
    return Reading(name, *read_file(files[name], root))


def read_file(path: Path, root: Path) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """The samples and class names of one COCO file; classes are numbered from 0 by ascending category id.

    Boxes [x, y, w, h] become half-open xyxy; crowds (`iscrowd`) are left out.

    Raises:
        InputError: not COCO, an unknown category or image id, or a frame that is not there.
    """
    try:
        content = json.loads(path.read_bytes())
        categories = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        images = [(int(i["id"]), str(i["file_name"])) for i in content["images"]]
        truth = _truth_by_image(content["annotations"], categories)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"'{path}' is no COCO annotation file ({error!r})", "Check the path and the file") from None
    if not images:
        raise InputError(f"'{path}' lists no images", "Check the path and the file")
    places = (root, root / "images", path.parent, path.parent.parent, root / path.stem.removeprefix("instances_"))
    samples = []
    for identity, file_name in images:
        frame = next((place / file_name for place in places if (place / file_name).is_file()), None)
        if frame is None:
            raise InputError(
                f"frame '{file_name}', which '{path}' lists, is missing under '{root}'", "Add it, or mend the list"
            )
        rows = truth.get(identity, [])
        boxes = BoxTruth(
            np.array([box for _, box in rows], np.float32).reshape(-1, 4),
            np.array([number for number, _ in rows], np.int64),
        )
        samples.append(Sample(Path(file_name).with_suffix("").as_posix(), frame, box_truth=boxes))
    return tuple(samples), tuple(categories[key] for key in sorted(categories))


def _truth_by_image(
    annotations: list[dict[str, Any]], categories: dict[int, str]
) -> dict[int, list[tuple[int, list[float]]]]:
    numbers = {category: number for number, category in enumerate(sorted(categories))}
    truth: dict[int, list[tuple[int, list[float]]]] = defaultdict(list)
    for annotation in annotations:
        if annotation.get("iscrowd"):
            continue
        x, y, width, height = (float(v) for v in annotation["bbox"])
        truth[int(annotation["image_id"])].append(
            (numbers[int(annotation["category_id"])], [x, y, x + width, y + height])
        )
    return truth


def _files(root: Path) -> dict[str, Path]:
    found = sorted((root / "annotations").glob("*.json"))
    return {path.stem.removeprefix("instances_"): path for path in found}
