"""Promises of YOLO's layouts: how folders, lists and names are found, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.datasets import dataset_splits, open_dataset
from irforge.errors import EnvironmentFault, InputError

HEIGHT, WIDTH = 32, 40
# Centre (10, 8), 4 wide and 2 high.
ROW = "1 0.25 0.25 0.1 0.0625\n"


def put(root: Path, name: str, labels: str | None = ROW) -> None:
    """A frame `images/NAME.png` and its label file; a name may have folders."""
    frame = root / "images" / f"{name}.png"
    frame.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(frame), np.full((HEIGHT, WIDTH), 90, np.uint8))
    if labels is not None:
        write(root / "labels" / f"{name}.txt", labels)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Three frames with names of classes, without splits; the last one is a background."""
    put(tmp_path, "a2")
    put(tmp_path, "a10", "0 0.5 0.5 0.5 0.5\n\n1 0.25 0.25 0.1 0.0625\n")
    put(tmp_path, "b", None)
    write(tmp_path / "classes.txt", "bird\ndrone\n")
    return tmp_path


def line(root: Path, split: str | None = None, kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        open_dataset(root, split=split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_become_half_open_boxes_in_frame_pixels(plain: Path) -> None:
    dataset = open_dataset(plain)
    assert dataset.classes == ("bird", "drone") and dataset.has_boxes and not dataset.has_masks
    assert [sample.id for sample in dataset] == ["a2", "a10", "b"]
    first, second, background = (sample.boxes() for sample in dataset)
    assert first is not None and second is not None and background is not None
    np.testing.assert_allclose(first.boxes, [[8, 7, 12, 9]], atol=1e-5)
    assert first.boxes.dtype == np.float32 and first.classes.tolist() == [1]
    np.testing.assert_allclose(second.boxes, [[10, 8, 30, 24], [8, 7, 12, 9]], atol=1e-5)
    assert len(background) == 0
    assert [(finding.kind, finding.where, finding.fault) for finding in dataset.findings] == [
        ("no label file", "b", False)
    ]


def test_folders_in_images_are_splits(plain: Path) -> None:
    put(plain, "train/c")
    put(plain, "val/d")
    assert dataset_splits(plain) == ["train", "val"]
    assert [sample.id for sample in open_dataset(plain, split="val")] == ["val/d"]
    assert [sample.id for sample in open_dataset(plain)] == ["train/c", "val/d"]


def test_lists_at_the_root_are_splits(plain: Path) -> None:
    write(plain / "train.txt", "images/a10.png\n./images/b.png\n")
    assert dataset_splits(plain) == ["train"]
    assert [sample.id for sample in open_dataset(plain, split="train")] == ["a10", "b"]
    write(plain / "train.txt", "images/a10.png\n./images/a10.png\n")
    assert "names 'images/a10.png' twice, in lines 1 and 2" in line(plain, "train")
    write(plain / "train.txt", "images/a11.png\n")
    assert "'images/a11.png', which" in line(plain, "train")


@pytest.mark.parametrize("names", ["[bird, drone]", "{0: bird, 1: drone}", "\n  - bird\n  - drone"])
def test_a_description_names_folders_lists_and_classes(plain: Path, names: str) -> None:
    put(plain / "valid", "e")
    write(plain / "test.txt", "images/a2.png\n")
    described = f"path: ../elsewhere\ntrain: images\nval: ../valid/images\ntest: [test.txt]\nnames: {names}\n"
    write(plain / "data.yaml", described)
    (plain / "classes.txt").unlink()
    assert dataset_splits(plain) == ["train", "val", "test"]
    assert [sample.id for sample in open_dataset(plain, split="val")] == ["valid/e"]
    test = open_dataset(plain, split="test")
    assert [sample.id for sample in test] == ["a2"] and test.classes == ("bird", "drone")
    assert len(open_dataset(plain)) == 4


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("train: pictures\nnames: [bird]", "'pictures', which"),
        ("train: images\nnames: {1: bird, 2: drone}", "are not numbered from 0"),
        ("train: [", "is no YAML"),
        ("- train", "describes no dataset"),
    ],
)
def test_a_description_that_cannot_be_followed_is_one_line(plain: Path, description: str, message: str) -> None:
    write(plain / "data.yaml", description)
    assert message in line(plain, "train")


def test_a_description_without_yaml_says_what_to_install(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(plain / "data.yaml", "train: images\nnames: [bird, drone]")
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    assert "pip install pyyaml" in line(plain, "train", EnvironmentFault)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "of the class 2, and there are 2 from 0: bird, drone"),
        ("-1 0.5 0.5 0.1 0.1", "of the class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "of the class 0.5"),
        ("1 0.5 0.5 0 0.1", "has no area"),
        ("1 0.5 0.5 0.1 -0.1", "has no area"),
        ("1 20 16 4 4", "lies outside its frame of 40x32"),
        ("1 0.5 0.5 nan 0.1", "is not finite"),
        ("1 0.5 0.5 0.1", "Expected are five numbers"),
        ("1 0.1 0.1 0.2 0.1 0.2 0.2", "Expected are five numbers"),
        ("drone 0.5 0.5 0.1 0.1", "line 2 of"),
    ],
)
def test_rows_that_would_spoil_training_are_refused(plain: Path, labels: str, message: str) -> None:
    write(plain / "labels" / "a2.txt", f"{ROW}{labels}\n")
    assert message in line(plain)


def test_edges_of_rounded_fractions_are_no_finding(plain: Path) -> None:
    write(plain / "labels" / "a2.txt", "0 0.0500004 0.5 0.1 1\n0 0.049999 0.5 0.1 1\n")
    dataset = open_dataset(plain)
    boxes = dataset[0].boxes()
    assert boxes is not None and boxes.boxes.min() == 0
    assert all(finding.kind != "box beyond its frame" for finding in dataset.findings)


def test_labels_without_a_frame_are_found(plain: Path) -> None:
    write(plain / "labels" / "gone.txt", ROW)
    write(plain / "labels" / "classes.txt", "bird\ndrone\n")
    faults = [(finding.kind, finding.where) for finding in open_dataset(plain).findings if finding.fault]
    assert faults == [("annotation without a frame", "labels/gone")]


def test_frames_without_any_labels_are_no_dataset_of_backgrounds(plain: Path) -> None:
    put(plain, "train/c", None)
    assert "no label file for any frame" in line(plain, "train")


def test_classes_without_names_are_refused(plain: Path) -> None:
    (plain / "classes.txt").unlink()
    assert "has no names of its classes" in line(plain)
