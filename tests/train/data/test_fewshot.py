"""Promises of the K-shot sampler: exact counts, nested draws, the same for a seed, and always an end."""

from __future__ import annotations

import json
from itertools import combinations, pairwise
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.datasets import BoxTruth, Dataset, Sample, open_dataset
from irforge.errors import InputError, UsageError
from irforge.train.data.fewshot import fewshot
from irforge.train.data.shots import draw_shots, fill, shots_path, write_shots


def dataset(counts: list[list[int]], classes: tuple[str, ...] = ("bird", "drone")) -> Dataset:
    """Frames with `counts[frame][class]` boxes; nothing of them is on disk."""
    samples = []
    for index, row in enumerate(counts):
        numbers = np.repeat(np.arange(len(row)), row)
        boxes = np.array([[i, i, i + 3.25, i + 5.5] for i in range(len(numbers))], np.float32).reshape(-1, 4)
        samples.append(Sample(f"f{index:03d}", Path(f"f{index:03d}.png"), box_truth=BoxTruth(boxes, numbers)))
    return Dataset("sky", "train", Path(), "", tuple(samples), classes)


def drawn(data: Dataset, draw: dict[int, list[int]]) -> list[int]:
    """Boxes of each class in a draw."""
    numbers = [data[i].box_truth.classes[rows] for i, rows in draw.items()]  # type: ignore[union-attr]
    return np.bincount(np.concatenate(numbers), minlength=len(data.classes)).tolist()


def random_counts(random: Random, frames: int) -> list[list[int]]:
    return [[random.choice([0, 0, 1, 1, 2, 3]), random.choice([0, 1, 2, 2, 5])] for _ in range(frames)]


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("case", range(30))
def test_a_draw_has_exactly_k_boxes_of_each_class_and_holds_the_smaller_draw(case: int, single: bool) -> None:
    data = dataset(random_counts(Random(case), 40))
    draws = draw_shots(data, [10, 1, 5, 3], case, single)
    assert [drawn(data, draw) for draw in draws] == [[k, k] for k in (1, 3, 5, 10)]
    for small, large in pairwise(draws):
        assert all(set(rows) <= set(large[index]) for index, rows in small.items())
    assert all(len(set(rows)) == len(rows) for rows in draws[-1].values())


def test_frames_come_with_all_their_boxes_of_the_class_drawn_for() -> None:
    data = dataset([[2, 0], [2, 0], [0, 2], [0, 2]])
    (draw,) = draw_shots(data, [2], 0)
    assert len(draw) == 2 and all(rows == [0, 1] for rows in draw.values())


def test_a_seed_gives_one_draw_and_other_seeds_others() -> None:
    data = dataset([[1, 1]] * 30)
    draws = [draw_shots(data, [3], seed)[0] for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1] and len({str(draw) for draw in draws}) == 3


def test_neither_the_order_of_a_list_nor_other_classes_change_a_draw() -> None:
    counts = random_counts(Random(3), 30)
    data = dataset(counts)
    names = {data[i].id: rows for i, rows in draw_shots(data, [3], 5)[0].items()}
    turned = data.subset(range(len(data) - 1, -1, -1))
    assert {turned[i].id: rows for i, rows in draw_shots(turned, [3], 5)[0].items()} == names
    alone = dataset([[row[0], 0] for row in counts], ("bird",))
    birds = {name: [r for r in rows if r < counts[int(name[1:])][0]] for name, rows in names.items()}
    assert {alone[i].id: rows for i, rows in draw_shots(alone, [3], 5)[0].items()} == {
        n: r for n, r in birds.items() if r
    }


# The published sampler runs for ever on these.
ENDLESS = {
    "every frame has two": [[2, 2]] * 6,
    "nine single ones, then pairs": [[1, 1]] * 9 + [[2, 2]] * 4,
    "larger than wanted": [[7, 7]] * 3,
}


@pytest.mark.parametrize("case", ENDLESS)
@pytest.mark.parametrize("shots", [[1], [1, 2, 3, 5, 10]])
def test_where_the_published_sampler_never_ends_this_one_draws_or_says_why_not(case: str, shots: list[int]) -> None:
    data = dataset(ENDLESS[case])
    if case.startswith("nine"):
        assert drawn(data, draw_shots(data, shots, 0)[-1]) == [shots[-1]] * 2
        return
    with pytest.raises(InputError) as caught:
        draw_shots(data, shots, 0)
    assert "has no set of frames with exactly 1" in caught.value.line and "--single" in caught.value.line
    assert drawn(data, draw_shots(data, shots, 0, single=True)[-1]) == [shots[-1]] * 2


def test_too_few_boxes_and_no_shots_are_refused() -> None:
    data = dataset([[1, 3]] * 4)
    with pytest.raises(InputError, match="class 'bird' of 'sky:train' has 4 boxes, and 5 are to be drawn"):
        draw_shots(data, [5], 0)
    with pytest.raises(UsageError, match="0 shots cannot be drawn"):
        draw_shots(data, [0, 3], 0)


def chains(sizes: list[int], levels: list[int]) -> bool:
    """Whether disjoint parts of `sizes` add up to each step between levels, by trying all parts."""
    if not levels:
        return True
    for count in range(1, len(sizes) + 1):
        for part in combinations(range(len(sizes)), count):
            if sum(sizes[i] for i in part) == levels[0]:
                rest = [size for i, size in enumerate(sizes) if i not in part]
                if chains(rest, [level - levels[0] for level in levels[1:]]):
                    return True
    return False


def test_an_answer_is_found_exactly_where_there_is_one() -> None:
    random = Random(11)
    verdicts = []
    for _ in range(400):
        sizes = [random.choice([1, 2, 2, 3, 4, 4, 6]) for _ in range(random.randint(1, 7))]
        levels = sorted(random.sample(range(1, 13), random.randint(1, 3)))
        order = fill(sizes, levels)
        assert (order is not None) == chains(sizes, levels), (sizes, levels)
        verdicts.append(order is not None)
        if order is not None:
            sums = np.cumsum([sizes[i] for i in order]).tolist()
            assert len(set(order)) == len(order) and sums[-1] == levels[-1] and set(levels) <= set(sums)
    assert 0.2 < np.mean(verdicts) < 0.8


@pytest.mark.parametrize(
    "sizes", [[2] * 500, [2, 4, 6, 8] * 50, [1, *[2] * 400], [3] * 7 + [5] * 6 + [6] * 90 + [10] * 80]
)
def test_hopeless_and_large_cases_end_at_once(sizes: list[int]) -> None:
    from time import process_time

    start = process_time()
    order = fill(sizes, [1, 2, 3, 5, 10, 30, 101])
    assert order is None and process_time() - start < 2


# ---------------------------------------------------------------- files


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A COCO set of twelve frames with a bird each, and a drone with odd decimals in every other."""
    root = tmp_path / "sky"
    (root / "stills").mkdir(parents=True)
    annotations: list[dict[str, Any]] = []
    for i in range(12):
        assert cv2.imwrite(str(root / "stills" / f"{i}.png"), np.full((32, 40), 90, np.uint8))
        boxes = [(1, [1.1, 2.3, 3.7, 4.9]), (4, [20.07, 10.3, 5.55, 6.01])][: 1 + i % 2]
        annotations += [
            {"id": len(annotations) + n, "image_id": i, "category_id": c, "bbox": b} for n, (c, b) in enumerate(boxes)
        ]
    images = [{"id": i, "file_name": f"stills/{i}.png"} for i in range(12)]
    categories = [{"id": 1, "name": "bird"}, {"id": 4, "name": "drone"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "test"):
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def test_what_was_drawn_is_read_again_box_for_box(on_disk: Path, tmp_path: Path) -> None:
    fewshot(f"{on_disk}/sky:train", shots=[3, 1], seed=[0, 7])
    there = sorted(path.name for path in (on_disk / "sky" / "fewshot").iterdir())
    assert there == [f"train_{k}shot_seed{s}.json" for k in (1, 3) for s in (0, 7)]
    data = open_dataset("sky:train", on_disk)
    for path in (None, tmp_path / "elsewhere"):
        if path is not None:
            fewshot("sky:train", shots=[3, 1], seed=[0, 7], out=path, data_root=on_disk)
        for number, shots in enumerate((1, 3)):
            name = f"train_{shots}shot_seed7"
            again = open_dataset(f"sky:{name}" if path is None else path / f"{name}.json", on_disk)
            draw = draw_shots(data, [1, 3], 7)[number]
            assert [s.frame_path.resolve() for s in again] == [data[i].frame_path for i in draw]
            assert again.classes == ("bird", "drone")
            for sample, (index, rows) in zip(again, draw.items(), strict=True):
                mine, theirs = sample.boxes(), data[index].boxes()
                assert mine is not None and theirs is not None
                np.testing.assert_array_equal(mine.boxes, theirs.boxes[rows])
                assert mine.classes.tolist() == theirs.classes[rows].tolist()


def test_a_draw_from_some_classes_says_so_in_its_name(on_disk: Path, tmp_path: Path) -> None:
    data = open_dataset("sky:train@drone@labelled", on_disk)
    path = shots_path(data, 2, 3, tmp_path)
    assert path.name == "train_drone_labelled_2shot_seed3.json"
    write_shots(path, data, draw_shots(data, [2], 3)[0], 2, 3)
    assert open_dataset(path).classes == ("drone",)
    assert json.loads(path.read_text())["info"]["seed"] == 3
