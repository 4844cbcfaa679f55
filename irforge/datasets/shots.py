"""K-shot lists beside a COCO set: a few boxes of each class, merged by frame, and nothing else labelled.

- `fewshot/SPLIT_Kshot_seedS.json`, COCO files as `irforge shots` writes them: the split of that name.
- `fewshot/seedS_Kshot.json`, which name annotations of the training split: the split `train_Kshot_seedS`.
- `full_box_Kshot_CLASS_trainval.json`, a COCO file for each class: in `ifsodsplit/` the split `trainval_Kshot`, and in
  `cocosplit/seedS/` (or beside a folder called coco) `trainval_Kshot_seedS`; those right in `cocosplit/` are seed 0's.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from irforge.errors import InputError

FOLDER = "fewshot"

_BY_ANNOTATION = re.compile(r"seed(?P<seed>\d+)_(?P<shots>\d+)shot")
_OF_A_CLASS = re.compile(r"full_box_(?P<shots>\d+)shot_(?P<name>.+)_trainval")


def shot_lists(root: Path) -> dict[str, list[Path]]:
    """Split -> the files that make it up."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((root / FOLDER).glob("*.json")):
        parts = _BY_ANNOTATION.fullmatch(path.stem)
        found[path.stem if parts is None else f"train_{parts['shots']}shot_seed{parts['seed']}"].append(path)
    for folder, seed in _folders(root):
        for path in sorted(folder.glob("full_box_*shot_*_trainval.json")):
            parts = _OF_A_CLASS.fullmatch(path.stem)
            if parts is not None:
                found[f"trainval_{parts['shots']}shot{seed}"].append(path)
    return dict(found)


def coco_split_folders(root: Path) -> list[Path]:
    """Where few-shot work on COCO keeps its lists: `cocosplit` in the set, or beside a set called coco."""
    beside = [root.parent / "cocosplit"] if root.name.casefold() == "coco" else []
    return [folder for folder in (root / "cocosplit", *beside) if folder.is_dir()]


def merged(paths: Sequence[Path], train: Path | None) -> dict[str, Any]:
    """The COCO content of a K-shot list; `train` is the annotation file that lists of ids refer to.

    Raises:
        InputError: the files disagree on categories, or name an annotation that is not there.
        ValueError, KeyError, TypeError: no COCO content.
    """
    parts = [json.loads(path.read_bytes()) for path in paths]
    if "annotation_ids" in parts[0]:
        return _by_annotation(parts[0], paths[0], train)
    categories: dict[int, dict[str, Any]] = {}
    for path, part in zip(paths, parts, strict=True):
        for category in part["categories"]:
            if categories.setdefault(category["id"], category)["name"] != category["name"]:
                raise InputError(
                    f"category {category['id']} is '{category['name']}' in '{path}', and another beside it",
                    "Take all files from one archive",
                )
    images = {image["id"]: image for part in parts for image in part["images"]}
    annotations = [annotation for part in parts for annotation in part["annotations"]]
    return {"images": list(images.values()), "annotations": annotations, "categories": list(categories.values())}


def _by_annotation(listed: dict[str, Any], path: Path, train: Path | None) -> dict[str, Any]:
    if train is None:
        raise InputError(f"'{path}' names annotations of a training split, and there is not one", "Add its COCO file")
    content: dict[str, Any] = json.loads(train.read_bytes())
    wanted = set(_flat(listed["annotation_ids"].values()))
    annotations = [annotation for annotation in content["annotations"] if annotation["id"] in wanted]
    missing = wanted - {annotation["id"] for annotation in annotations}
    if missing:
        raise InputError(
            f"'{path}' names the annotation {min(missing)}, which '{train}' does not have", "Copy both files again"
        )
    held = {annotation["image_id"] for annotation in annotations}
    images = [image for image in content["images"] if image["id"] in held]
    return content | {"images": images, "annotations": annotations}


def _flat(rows: Iterable[Iterable[int]]) -> Iterable[int]:
    return (number for row in rows for number in row)


def _folders(root: Path) -> Iterable[tuple[Path, str]]:
    """(folder of files of one class, the end of their split's name)."""
    yield root / "ifsodsplit", ""
    for folder in coco_split_folders(root):
        yield folder, "_seed0"
        for seed in sorted(folder.glob("seed*")):
            yield seed, f"_{seed.name}"
