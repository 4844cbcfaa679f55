"""K boxes of each class of a dataset, drawn at random, for few-shot training.

Drawn are whole frames, each with all its boxes of the class, so that no object of the class that is drawn for goes
unlabelled; or, where no set of frames has exactly K boxes, single boxes. Objects of other classes in a drawn frame are
labelled only where they were drawn too: what losses for few-shot training (confusion-aware, BNRL) are made for.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from irforge.datasets import Dataset
from irforge.errors import InputError, UsageError
from irforge.files import write_json
from irforge.frames import frame_size

Draw = dict[int, list[int]]
"""What was drawn: frame -> its boxes, as row numbers in the dataset's truth."""


def draw_shots(dataset: Dataset, shots: Sequence[int], seed: int, single: bool = False) -> list[Draw]:
    """A draw for each of `shots`, ascending; each holds the one before it.

    A class is drawn by a generator of its own, seeded by `seed` and its name, from frames in the order of their names:
    neither other classes nor the order of a list change what is drawn.

    Args:
        single: draw boxes one by one; the other boxes of their frames go unlabelled.

    Raises:
        UsageError: not all of `shots` are positive.
        InputError: the dataset has no boxes, or not enough of a class, or no frames that add up to one of `shots`.
    """
    levels = sorted(set(shots))
    if not levels or levels[0] < 1:
        raise UsageError(f"{levels[0] if levels else 'no number of'} shots cannot be drawn", "Ask for one at least")
    draws: list[Draw] = [defaultdict(list) for _ in levels]
    for number, rows in enumerate(_rows_by_class(dataset)):
        name = dataset.classes[number]
        where = f"class '{name}' of '{dataset.name}:{dataset.split}'"
        total = sum(map(len, rows.values()))
        if total < levels[-1]:
            raise InputError(f"{where} has {total} boxes, and {levels[-1]} are to be drawn", "Draw fewer shots")
        frames = sorted(rows, key=lambda index: dataset[index].id)
        units = [(i, [r]) for i in frames for r in rows[i]] if single else [(i, rows[i]) for i in frames]
        Random(f"{seed} {name}").shuffle(units)
        order = fill([len(own) for _, own in units], levels)
        if order is None:
            sizes = ", ".join(map(str, sorted({len(own) for _, own in units})))
            wanted = ", ".join(map(str, levels))
            raise InputError(
                f"{where} has no set of frames with exactly {wanted} boxes, one within the other: frames hold {sizes}",
                "Draw other shots, or single boxes with --single",
            )
        for draw, level in zip(draws, levels, strict=True):
            count = 0
            for position in order:
                index, own = units[position]
                count += len(own)
                if count > level:
                    break
                draw[index] += own
    return [{index: sorted(draw[index]) for index in sorted(draw)} for draw in draws]


def fill(sizes: Sequence[int], levels: Sequence[int]) -> list[int] | None:
    """Positions in `sizes` whose running sum comes by each of `levels` (ascending) and ends at the last; or None.

    The first position that leaves every level within reach comes next. A choice that fails is taken back, and never
    made again from the same state: there is an answer or none, after a finite search.
    """
    waiting: dict[int, list[int]] = defaultdict(list)
    for position, size in enumerate(sizes):
        waiting[size].append(position)
    used = dict.fromkeys(waiting, 0)
    chosen: list[int] = []
    total = 0
    failed: set[tuple[int, ...]] = set()
    pending = [_next(waiting, used, levels, total)]
    while total < levels[-1]:
        if pending[-1]:
            chosen.append(pending[-1].pop())
            size = sizes[chosen[-1]]
            used[size] += 1
            total += size
            state = tuple(used.values())
            pending.append([] if state in failed else _next(waiting, used, levels, total))
            continue
        failed.add(tuple(used.values()))
        pending.pop()
        if not chosen:
            return None
        size = sizes[chosen.pop()]
        used[size] -= 1
        total -= size
    return chosen


def _next(waiting: dict[int, list[int]], used: dict[int, int], levels: Sequence[int], total: int) -> list[int]:
    """The first waiting position of each size that may come next, the best one last; none where a level is lost."""
    ahead = [level - total for level in levels if level > total]
    if not ahead:
        return []
    # Bit n of `reach` tells whether some of the waiting add up to n.
    reach, within = 1, (2 << ahead[-1]) - 1
    for size, positions in waiting.items():
        for _ in range(min(len(positions) - used[size], ahead[-1] // size)):
            reach |= reach << size & within
    if not all(reach >> level & 1 for level in ahead):
        return []
    heads = [
        positions[used[size]] for size, positions in waiting.items() if size <= ahead[0] and used[size] < len(positions)
    ]
    return sorted(heads, reverse=True)


def shots_path(dataset: Dataset, shots: int, seed: int, folder: Path) -> Path:
    """Where a draw is written: `SPLIT_Kshot_seedS.json`. What a split's name has of '/' and '@' becomes '_'."""
    split = re.sub(r"[^\w.]+", "_", dataset.split).strip("_")
    return folder / f"{split}_{shots}shot_seed{seed}.json"


def write_shots(path: Path, dataset: Dataset, draw: Draw, shots: int, seed: int) -> None:
    """Write a draw as a COCO file, which opens as a dataset: by its path, or as a split of its name in `fewshot/`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, rows in draw.items():
        sample = dataset[index]
        truth = sample.boxes()
        assert truth is not None
        height, width = frame_size(sample.frame_path)
        image = {"id": len(images) + 1, "file_name": _file_name(sample.frame_path, dataset.root, path)}
        images.append(image | {"width": width, "height": height})
        for row in rows:
            x1, y1, x2, y2 = truth.boxes[row].tolist()
            box = [x1, y1, x2 - x1, y2 - y1]
            own = {"id": len(annotations) + 1, "image_id": len(images), "category_id": int(truth.classes[row]) + 1}
            annotations.append(own | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    info = {"description": f"{shots} boxes of each class, drawn from {dataset.name}:{dataset.split}", "seed": seed}
    categories = [{"id": number, "name": name} for number, name in enumerate(dataset.classes, 1)]
    write_json(path, {"info": info, "images": images, "annotations": annotations, "categories": categories})


def _file_name(frame: Path, root: Path, path: Path) -> str:
    """Relative to the dataset where the file lies in a folder of it, else to the file."""
    base = root if path.parent.parent.resolve() == root else path.parent.resolve()
    return Path(os.path.relpath(frame, base)).as_posix()


def _rows_by_class(dataset: Dataset) -> list[dict[int, list[int]]]:
    """For each class: frame -> its boxes of the class."""
    found: list[dict[int, list[int]]] = [defaultdict(list) for _ in dataset.classes]
    for index, sample in enumerate(dataset):
        truth = sample.boxes()
        if truth is None:
            raise InputError(f"'{dataset.name}' has no boxes for '{sample.id}'", "Shots are boxes")
        for row, number in enumerate(truth.classes.tolist()):
            found[number][index].append(row)
    return found
