"""Promises of the layouts that few-shot work keeps its lists in: drawn COCO files, files of one class, VOC's lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.datasets import Dataset, dataset_splits, open_dataset
from irforge.datasets.classes import IFSOD, VOC
from irforge.errors import InputError, UsageError

Box = tuple[int, int, Sequence[float]]


def picture(path: Path, height: int = 32, width: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width), 90, np.uint8))


def coco(path: Path, frames: Sequence[int], boxes: Sequence[Box], names: Sequence[str], **more: Any) -> None:
    """A COCO file of frames `N.png` and boxes (image, category from 1, xywh)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 32, "width": 40} for i in frames],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
        "annotations": [{"id": i, "image_id": m, "category_id": c, "bbox": b} for i, (m, c, b) in enumerate(boxes, 1)],
    }
    path.write_text(json.dumps(content | more))


def truths(dataset: Dataset) -> dict[str, list[tuple[str, float]]]:
    """Frame -> (class, left edge) of its boxes."""
    found = {}
    for sample in dataset:
        truth = sample.boxes()
        assert truth is not None
        found[sample.id] = [(dataset.classes[n], b[0]) for n, b in zip(truth.classes, truth.boxes, strict=True)]
    return found


# ---------------------------------------------------------------- IFSOD, COCO


@pytest.fixture
def ifsod(tmp_path: Path) -> Path:
    """Two frames with a person and a dog each; 1-shot files: the person of the first, the dog of the same frame."""
    root = tmp_path / "ifsod"
    for i in (1, 2):
        picture(root / "images" / f"{i}.png")
    person, dog = (1, 1, [1, 1, 4, 4]), (1, 10, [20, 20, 5, 5])
    coco(root / "annotations" / "all.json", [1, 2], [person, dog, (2, 1, [3, 3, 4, 4]), (2, 10, [9, 9, 4, 4])], IFSOD)
    for name, box in (("person", person), ("dog", dog)):
        coco(root / "ifsodsplit" / f"full_box_1shot_{name}_trainval.json", [1], [box], IFSOD)
    return tmp_path


def test_ifsod_is_read_with_its_eleven_classes_in_order(ifsod: Path) -> None:
    dataset = open_dataset("IFSOD:all", ifsod)
    assert dataset.classes == IFSOD and len(dataset) == 2 and dataset.has_boxes
    assert truths(dataset)["1"] == [("person", 1), ("dog", 20)]


def test_files_of_one_class_are_merged_by_frame(ifsod: Path) -> None:
    dataset = open_dataset("ifsod:trainval_1shot", ifsod)
    assert dataset.split == "trainval_1shot" and dataset.classes == IFSOD
    assert truths(dataset) == {"1": [("dog", 20), ("person", 1)]}


def test_the_whole_set_is_its_one_list_and_k_shot_lists_are_named_when_a_split_is_wrong(ifsod: Path) -> None:
    assert dataset_splits("ifsod", ifsod) == ["all"] and len(open_dataset("ifsod", ifsod)) == 2
    with pytest.raises(UsageError, match="Splits there: all; and 1 K-shot lists, such as trainval_1shot"):
        open_dataset("ifsod:trainval_2shot", ifsod)


def test_files_that_number_their_categories_otherwise_are_refused(ifsod: Path) -> None:
    coco(ifsod / "ifsod" / "ifsodsplit" / "full_box_1shot_car_trainval.json", [2], [], IFSOD[::-1])
    with pytest.raises(InputError, match=r"category 1 is 'person' in '.*', and another beside it"):
        open_dataset("ifsod:trainval_1shot", ifsod)


def test_coco_splits_and_shots_are_found_beside_it(tmp_path: Path) -> None:
    for i, folder in ((1, "trainval2014"), (2, "trainval2014"), (3, "val2014")):
        picture(tmp_path / "coco" / folder / f"{i}.png")
    split = tmp_path / "cocosplit"
    coco(split / "datasplit" / "trainvalno5k.json", [1, 2], [(1, 1, [0, 0, 4, 4])], ["cat", "hot dog"])
    coco(split / "datasplit" / "5k.json", [3], [(3, 2, [0, 0, 4, 4])], ["cat", "hot dog"])
    for seed, box in (("seed0", (1, 1, [0, 0, 4, 4])), ("seed3", (2, 2, [8, 8, 4, 4]))):
        name = "cat" if box[1] == 1 else "hot dog"
        coco(split / seed / f"full_box_1shot_{name}_trainval.json", [box[0]], [box], ["cat", "hot dog"])
    assert dataset_splits("coco", tmp_path) == ["5k", "trainvalno5k"]
    assert truths(open_dataset("coco:5k", tmp_path)) == {"3": [("hot dog", 0)]}
    assert truths(open_dataset("coco:trainval_1shot_seed0", tmp_path)) == {"1": [("cat", 0)]}
    assert truths(open_dataset("coco:trainval_1shot_seed3@hot dog", tmp_path)) == {"2": [("hot dog", 8)]}


def test_lists_of_ids_choose_annotations_of_the_training_split(tmp_path: Path) -> None:
    root = tmp_path / "sky"
    for i in (1, 2):
        picture(root / "images" / f"{i}.png")
    boxes = [(1, 1, [1, 1, 4, 4]), (1, 2, [9, 9, 4, 4]), (2, 2, [5, 5, 4, 4])]
    coco(root / "annotations" / "instances_train_stills.json", [1, 2], boxes, ["bird", "drone"])
    coco(root / "annotations" / "instances_test_stills.json", [1], [], ["bird", "drone"])
    (root / "fewshot").mkdir()
    listed = root / "fewshot" / "seed4_1shot.json"
    listed.write_text(json.dumps({"seed": 4, "k": 1, "annotation_ids": {"1": [1], "2": [3]}}))
    assert truths(open_dataset("sky:train_1shot_seed4", tmp_path)) == {"1": [("bird", 1)], "2": [("drone", 5)]}
    listed.write_text(json.dumps({"seed": 4, "k": 1, "annotation_ids": {"1": [1], "2": [7]}}))
    with pytest.raises(InputError, match=r"names the annotation 7, which '.*train_stills.json' does not have"):
        open_dataset("sky:train_1shot_seed4", tmp_path)


# ---------------------------------------------------------------- VOC


def voc(folder: Path, stem: str, *objects: tuple[str, Sequence[float], int], size: tuple[int, int] = (32, 40)) -> None:
    picture(folder / "JPEGImages" / f"{stem}.png")
    items = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, b, hard in objects
    )
    path = folder / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(exist_ok=True)
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    path.write_text(f"<annotation>{sides}{items}</annotation>")


def listed(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def years(tmp_path: Path) -> Path:
    """VOC2007 and VOC2012 with three frames, and lists of shots over both."""
    old, new = tmp_path / "VOC2007", tmp_path / "VOC2012"
    voc(old, "000001", ("cow", (1, 1, 4, 6), 0), ("bird", (11, 12, 40, 32), 1))
    voc(old, "000002", ("cow", (3, 3, 8, 8), 0), ("cow", (20, 20, 24, 24), 0))
    voc(new, "2008_000003", ("bird", (2, 2, 9, 9), 0))
    listed(old / "ImageSets" / "Main" / "trainval.txt", "000001", "000002")
    listed(old / "ImageSets" / "Main" / "test.txt", "000001")
    listed(old / "ImageSets" / "Main" / "cow_trainval.txt", "000001  1", "000002 -1")
    lists = tmp_path / "vocsplit" / "seed5"
    listed(lists / "box_2shot_cow_train.txt", "VOC2007/JPEGImages/000002.png", "VOC2007/JPEGImages/000001.png")
    birds = "VOC2007/JPEGImages/000001.png", "datasets/VOC2012/JPEGImages/2008_000003.png"
    listed(lists / "box_2shot_bird_train.txt", *birds)
    return tmp_path


def test_voc_boxes_lose_their_one_and_get_open_ends(years: Path) -> None:
    dataset = open_dataset("voc2007:test", years)
    first = dataset[0].boxes()
    assert dataset.classes == VOC and first is not None
    assert first.boxes.tolist() == [[0, 0, 4, 6], [10, 11, 40, 32]]
    assert [VOC[n] for n in first.classes] == ["cow", "bird"]
    assert first.difficult is not None and first.difficult.tolist() == [False, True]


def test_voc_lists_of_one_class_are_no_splits(years: Path) -> None:
    assert dataset_splits("VOC2007", years) == ["test", "trainval"]
    assert len(open_dataset("VOC2007:train", years)) == len(open_dataset("VOC2007", years)) == 2


def test_voc_shots_come_from_both_years_and_are_merged_by_frame(years: Path) -> None:
    dataset = open_dataset("VOC2007:train_2shot_seed5@voc-novel1@labelled", years)
    assert dataset.classes == ("bird", "bus", "cow", "motorbike", "sofa")
    assert truths(dataset) == {
        "000001": [("bird", 10)],
        "2008_000003": [("bird", 1)],
        "000002": [("cow", 2), ("cow", 19)],
    }


def test_voc_lists_with_too_few_objects_are_refused(years: Path) -> None:
    listed(years / "vocsplit" / "seed5" / "box_2shot_cow_train.txt", "VOC2007/JPEGImages/000001.png")
    with pytest.raises(InputError, match=r"box_2shot_cow_train.txt' hold 1 of 2 objects"):
        open_dataset("VOC2007:train_2shot_seed5", years)


def test_another_set_in_voc_layout_has_the_classes_that_it_names(tmp_path: Path) -> None:
    root = tmp_path / "thermal"
    voc(root, "a", ("van", (1, 1, 4, 6), 0))
    voc(root, "b", ("ped", (1, 1, 4, 6), 0))
    listed(root / "ImageSets" / "Main" / "train.txt", "a")
    assert open_dataset("thermal:train", tmp_path).classes == ("ped", "van")
    listed(root / "classes.txt", "van", "ped", "dog")
    assert open_dataset("thermal:train", tmp_path).classes == ("van", "ped", "dog")
    listed(root / "classes.txt", "ped")
    with pytest.raises(InputError, match=r"classes.txt' lacks the class 'van'"):
        open_dataset("thermal:train", tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "Annotations" / "000001.xml").write_text("<annotation>"), "is no annotation of VOC"),
        (lambda root: (root / "Annotations" / "000001.xml").unlink(), "'000001', which"),
        (lambda root: voc(root, "000001", ("cow", (1, 1, 4, 6), 0), size=(64, 40)), "is 40x64, and it is 40x32"),
        (lambda root: voc(root, "000001", ("cow", (1, 1, 0, 6), 0)), "object 1 of"),
    ],
)
def test_a_broken_voc_annotation_is_one_line(years: Path, change: Any, words: str) -> None:
    change(years / "VOC2007")
    with pytest.raises(InputError) as caught:
        open_dataset("VOC2007:test", years)
    assert words in caught.value.line and "000001" in caught.value.line


def test_voc_annotations_without_a_frame_are_found(years: Path) -> None:
    (years / "VOC2007" / "JPEGImages" / "000002.png").unlink()
    (finding,) = open_dataset("VOC2007", years).findings
    assert finding.fault and finding.where == "Annotations/000002"
