"""Promises of the choice of classes: `NAME:SPLIT@CLASSES@REST`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.datasets import Dataset, dataset_splits, open_dataset
from irforge.datasets.classes import COCO, COCO_NOVEL, COCO_THERMAL, GROUPS, IFSOD, VOC, named_classes, select_classes
from irforge.datasets.listing import open_whole
from irforge.errors import UsageError

# COCO numbers its 80 classes from 1 to 90, with gaps.
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three frames: a bird and a drone, a drone, nothing. Two annotation files name them."""
    root = tmp_path / "sky"
    for name in "abc":
        (root / "images").mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / "images" / f"{name}.png"), np.full((32, 40), 90, np.uint8))
    boxes = [(1, 1, [0, 0, 4, 4]), (1, 3, [10, 10, 5, 5]), (2, 3, [20, 20, 6, 6])]
    content = {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("abc", 1)],
        "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "Kite"}, {"id": 3, "name": "drone"}],
        "annotations": [{"id": i, "image_id": m, "category_id": c, "bbox": b} for i, (m, c, b) in enumerate(boxes, 1)],
    }
    for split in ("train", "test"):
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def truths(dataset: Dataset) -> dict[str, list[tuple[str, float]]]:
    """Frame -> (class, left edge) of its boxes."""
    found = {}
    for sample in dataset:
        truth = sample.boxes()
        assert truth is not None
        found[sample.id] = [(dataset.classes[n], b[0]) for n, b in zip(truth.classes, truth.boxes, strict=True)]
    return found


def test_only_boxes_of_the_classes_asked_for_are_left(data: Path) -> None:
    dataset = open_dataset("sky:train@drone", data)
    assert dataset.classes == ("drone",) and dataset.split == "train@drone"
    assert truths(dataset) == {"a": [("drone", 10)], "b": [("drone", 20)], "c": []}


def test_classes_are_numbered_in_the_order_asked_for(data: Path) -> None:
    whole, turned = open_dataset("sky:train", data), open_dataset("sky:train@drone,kite,bird", data)
    assert turned.classes == ("drone", "Kite", "bird")
    assert truths(turned) == truths(whole)
    first = turned[0].boxes()
    assert first is not None and first.classes.tolist() == [2, 0]


def test_classes_can_be_taken_away(data: Path) -> None:
    dataset = open_dataset("sky:train@-drone", data)
    assert dataset.classes == ("bird", "Kite") and truths(dataset) == {"a": [("bird", 0)], "b": [], "c": []}


@pytest.mark.parametrize(("rest", "frames"), [("@boxes", "abc"), ("@labelled", "a"), ("@frames", "c"), ("", "abc")])
def test_what_becomes_of_frames_is_said_behind_the_classes(data: Path, rest: str, frames: str) -> None:
    assert "".join(truths(open_dataset(f"sky:train@-drone{rest}", data))) == frames


def test_frames_without_a_box_can_be_left_out_where_all_classes_stay(data: Path) -> None:
    assert "".join(truths(open_dataset("sky:train@bird,kite,drone@labelled", data))) == "ab"


def test_objects_that_lose_their_label_and_stay_in_sight_are_counted(data: Path) -> None:
    (finding,) = open_dataset("sky:train@-drone", data).findings
    assert finding.kind == "objects without a label" and finding.text.startswith("2 of classes")
    assert not open_dataset("sky:train@-drone@frames", data).findings


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("@plane", "'sky' has no class 'plane'. It has: bird, Kite, drone"),
        ("@drone,DRONE", "class 'drone' is named twice"),
        ("@drone,-bird", "class 'bird' is not there to be taken away"),
        ("@-bird,-kite,-drone", "leaves no class of 'sky'"),
        ("@kite@labelled", "no frame of 'sky:train' is left with Kite"),
        ("@drone@frame", "It may be @boxes, @labelled, @frames"),
        ("@coco", "'sky' has no class 'person'"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(data: Path, selection: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_dataset(f"sky:train{selection}", data)
    assert words in caught.value.line and "\n" not in caught.value.line


def test_classes_without_a_split_choose_from_every_split(data: Path) -> None:
    assert dataset_splits("sky@drone", data) == ["test", "train"]
    assert [part.split for part in open_whole("sky@drone", data)] == ["test@drone", "train@drone"]


def test_a_path_may_hold_an_at_sign(data: Path) -> None:
    there = (data / "sky").rename(data / "user@host")
    assert open_dataset(there / "annotations" / "instances_train.json").classes == ("bird", "Kite", "drone")
    assert open_dataset(f"{there}:train").split == "train"
    assert open_dataset(f"{there}:train@bird").classes == ("bird",)


def test_masks_have_no_classes_to_choose_from(data: Path) -> None:
    for folder in ("images", "masks"):
        (data / "m" / folder).mkdir(parents=True)
        cv2.imwrite(str(data / "m" / folder / "a.png"), np.zeros((8, 8), np.uint8))
    assert open_dataset("m@target", data).classes == ("target",)
    with pytest.raises(UsageError, match="no class 'drone'"):
        open_dataset("m@drone", data)


def test_a_selection_keeps_the_marks_of_difficult_boxes(data: Path) -> None:
    from dataclasses import replace

    whole = open_dataset("sky:train", data)
    first = whole[0].boxes()
    assert first is not None
    marked = replace(whole[0], box_truth=replace(first, difficult=np.array([False, True])))
    kept = select_classes(replace(whole, samples=(marked,)), ["drone"])[0].boxes()
    assert kept is not None and kept.difficult is not None and kept.difficult.tolist() == [True]


# ---------------------------------------------------------------- what the field calls its classes


def test_coco_novel_classes_have_the_published_numbers() -> None:
    assert len(COCO) == len(set(COCO)) == 80
    numbers = [COCO.index(name) for name in COCO_NOVEL]
    assert numbers == [0, 1, 2, 3, 4, 5, 6, 8, 14, 15, 16, 17, 18, 19, 39, 56, 57, 58, 60, 62]
    ids = [COCO_IDS[number] for number in numbers]
    assert ids == [1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72]
    assert named_classes("coco-base", COCO, "coco") == named_classes("-coco-novel", COCO, "coco")
    assert len(GROUPS["coco-base"]) == 60 and GROUPS["coco-base"][0] == "truck"


def test_gray_coco_drops_the_published_ids() -> None:
    assert [COCO_IDS[COCO.index(name)] for name in COCO_THERMAL] == [1, 2, 3, 4, 6, 8, 9, 18]
    assert set(COCO_THERMAL) == set(IFSOD) & set(COCO)
    assert len(IFSOD) == 11 and IFSOD.index("uav") == 3


@pytest.mark.parametrize("split", [1, 2, 3])
def test_voc_puts_15_base_classes_first_and_5_novel_behind(split: int) -> None:
    base, novel, every = (GROUPS[f"voc-{kind}{split}"] for kind in ("base", "novel", "all"))
    assert (len(base), len(novel)) == (15, 5) and every == base + novel
    assert sorted(every) == list(VOC) == sorted(VOC) and list(base) == sorted(base)
    assert GROUPS["voc-novel1"] == ("bird", "bus", "cow", "motorbike", "sofa")


# ---------------------------------------------------------------- DRONE-IR


@pytest.fixture(scope="module")
def drone_ir() -> str:
    root = os.environ.get("IRFORGE_DATA", "")
    if not root or not (Path(root) / "drone_ir").is_dir():
        pytest.skip("drone_ir is not under IRFORGE_DATA")
    return root


def test_drone_ir_opens_as_three_base_classes_and_a_novel_one(drone_ir: str) -> None:
    base = open_dataset("DRONE-IR:train@-drone@frames", drone_ir)
    novel = open_dataset("DRONE-IR:train@drone@labelled", drone_ir)
    assert base.classes == ("airplane", "bird", "helicopter") and novel.classes == ("drone",)
    assert not {s.id for s in base} & {s.id for s in novel}
    assert len(base) + len(novel) == len(open_dataset("DRONE-IR:train", drone_ir)) == 228
    grown = open_dataset("DRONE-IR:test@airplane,bird,helicopter,drone", drone_ir)
    assert grown.classes == (*base.classes, "drone") and len(grown) == 177


@pytest.mark.parametrize("shots", [1, 10])
def test_drone_ir_has_its_k_shot_lists_as_splits(drone_ir: str, shots: int) -> None:
    draws = [open_dataset(f"DRONE-IR:train_{shots}shot_seed{seed}", drone_ir) for seed in range(3)]
    for dataset in draws:
        numbers = np.concatenate([sample.boxes().classes for sample in dataset if sample.boxes() is not None])
        assert np.bincount(numbers).tolist() == [shots] * 4
        assert {s.frame_path for s in dataset} <= {s.frame_path for s in open_dataset("DRONE-IR:train", drone_ir)}
    assert len({tuple(s.id for s in dataset) for dataset in draws}) == 3
