"""Promises of irforge.datasets: the layouts that are read, and the data that the field uses."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.datasets import dataset_splits, open_dataset
from irforge.datasets.sirst import read_boxes, read_centroids
from irforge.errors import UsageError
from tests.datasets.layouts import coco, listed, picture


@pytest.mark.parametrize("name", ["NUDT-SIRST", "nudt_sirst", "Nudt-Sirst"])
def test_case_and_dashes_do_not_matter_in_a_name(data: Path, name: str) -> None:
    dataset = open_dataset(f"{name}:train", data)
    assert dataset.name == "nudt_sirst" and dataset.split == "train"
    assert [sample.id for sample in dataset] == ["XDU3", "XDU1"]


def test_names_lie_under_the_environments_data_root(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRFORGE_DATA", str(data))
    assert len(open_dataset("NUDT-SIRST:test")) == 1


def test_a_path_needs_no_data_root(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IRFORGE_DATA", raising=False)
    assert open_dataset(data / "nudt_sirst").split == "all"
    assert len(open_dataset(f"{data}/nudt_sirst:test")) == 1
    monkeypatch.chdir(data)
    assert len(open_dataset("nudt_sirst:train")) == 2


def test_a_split_may_be_given_apart_and_the_name_goes_first(data: Path) -> None:
    assert open_dataset("nudt-sirst", data, split="train").split == "train"
    assert open_dataset("nudt-sirst:test", data, split="train").split == "test"


def test_frames_masks_and_boxes_belong_together(data: Path) -> None:
    sample = open_dataset("NUDT-SIRST:test", data)[0]
    mask, boxes = sample.mask(), sample.boxes()
    assert sample.frame().shape == (32, 40) and mask is not None and boxes is not None
    assert mask.dtype == np.bool_ and mask.sum() == 2
    assert boxes.boxes.tolist() == [[2, 5, 4, 6]] and boxes.classes.tolist() == [0]


def test_irstd_1k_is_read_as_shipped(data: Path) -> None:
    train = open_dataset("irstd_1k:train", data)
    assert train.split == "trainval" and [sample.id for sample in train] == ["XDU1", "XDU2"]
    assert train.has_masks and train[1].mask() is not None
    assert dataset_splits("IRSTD-1k", data) == ["test", "trainval"]


def test_lists_named_after_the_dataset_are_its_splits(data: Path) -> None:
    assert sorted(dataset_splits("nudt_sirst", data)) == ["test", "train", "val"]
    assert [sample.id for sample in open_dataset("nudt_sirst:val", data)] == ["XDU1"]


def test_lists_in_a_folder_are_called_by_both_names_or_the_last(data: Path) -> None:
    assert dataset_splits("sirst", data) == ["idx_427/test", "idx_427/trainval"]
    for split in ("test", "idx_427/test"):
        assert [sample.id for sample in open_dataset(f"SIRST:{split}", data)] == ["Misc_1"]
    assert len(open_dataset("SIRST:train", data)) == 2
    listed(data / "sirst" / "idx_320" / "test.txt", "Misc_2")
    with pytest.raises(UsageError, match="idx_320/test, idx_427/test"):
        open_dataset("SIRST:test", data)


def test_sirst_v2_backgrounds_have_an_empty_mask(data: Path) -> None:
    with_target, background = open_dataset("SIRST-V2:test_full", data)
    mask, empty = with_target.mask(), background.mask()
    assert mask is not None and mask.sum() == 6
    assert empty is not None and empty.shape == (32, 40) and not empty.any()
    boxes = background.boxes()
    assert boxes is not None and len(boxes) == 0
    assert open_dataset("sirst-v2", data).has_masks


def test_a_plain_folder_has_frames_and_no_truth(tmp_path: Path) -> None:
    for name in ("f10.png", "f2.PNG", "f1.tif"):
        picture(tmp_path / "clip" / name)
    (tmp_path / "clip" / "notes.md").write_text("no frame")
    dataset = open_dataset(tmp_path / "clip")
    assert [sample.id for sample in dataset] == ["f1", "f2", "f10"]
    assert not dataset.has_masks and not dataset.has_boxes
    assert dataset[0].mask() is None and dataset[0].boxes() is None


def test_a_coco_file_is_a_dataset(tmp_path: Path) -> None:
    assert len(open_dataset(coco(tmp_path))) == 2


def test_a_subset_keeps_the_order_asked_for(data: Path) -> None:
    part = open_dataset("nudt_sirst", data).subset([2, 0], split="val")
    assert [sample.id for sample in part] == ["XDU3", "XDU1"]
    note = part.note()
    assert (note.name, note.split, note.frames) == ("nudt_sirst", "val", 2) and "DNANet" in note.licence


def test_sizes_come_from_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco(tmp_path)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("a frame was decoded"))
    assert len(open_dataset(tmp_path)) == 2


FULL = os.environ.get("IRFORGE_DATA")


@pytest.mark.skipif(not FULL, reason="IRFORGE_DATA is not set")
@pytest.mark.parametrize(("name", "frames"), [("NUDT-SIRST:test", 531), ("NUDT-SIRST:train", 663)])
def test_the_fields_splits_are_whole(name: str, frames: int) -> None:
    dataset = open_dataset(name, FULL)
    assert len(dataset) == frames and dataset.has_masks
    for sample in list(dataset)[::40]:
        mask, boxes = sample.mask(), sample.boxes()
        assert mask is not None and boxes is not None
        assert mask.any() == (len(boxes) > 0)


@pytest.mark.skipif(not FULL, reason="IRFORGE_DATA is not set")
def test_boxes_from_masks_are_those_of_the_annotation_file() -> None:
    dataset = open_dataset("SIRST-V2:nuaa_50_50_test", FULL)
    assert len(dataset) == 160
    annotated = {
        Path(sample.id).name: sample.boxes()
        for sample in open_dataset(dataset.root / "coco" / "nuaa_50_50_test.json", FULL)
    }
    for sample in dataset:
        boxes, expected = sample.boxes(), annotated[sample.id]
        assert boxes is not None and expected is not None
        assert sorted(boxes.boxes.tolist()) == sorted(expected.boxes.tolist())


@pytest.mark.skipif(not FULL, reason="IRFORGE_DATA is not set")
def test_xml_of_sirst_v2_agrees_with_its_masks_but_for_one_known_box() -> None:
    dataset = open_dataset("SIRST-V2:nuaa_50_50_test", FULL)
    targets, points, other, furthest = 0, 0, [], 0.0
    for sample in dataset:
        boxes, centroids = sample.boxes(), sample.centroids()
        assert boxes is not None and centroids is not None
        assert sample.box_file is not None and sample.centroid_file is not None
        if not np.array_equal(read_boxes(sample.box_file), boxes.boxes):
            other.append((sample.id, boxes.boxes.tolist()))
        stated = read_centroids(sample.centroid_file)
        furthest = max(furthest, float(np.abs(stated - centroids).max()))
        targets, points = targets + len(boxes), points + len(stated)
    assert targets == points == 195
    assert other == [("Misc_111", [[143, 114, 151, 120]])]
    assert furthest < 0.01
