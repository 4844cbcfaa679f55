"""Promises of irforge.datasets: the layouts that are read, and what is said about those that cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.datasets import dataset_splits, open_dataset
from irforge.datasets.check import scan
from irforge.datasets.sirst import read_boxes, read_centroids
from irforge.errors import InputError, IrforgeError, UsageError


def picture(path: Path, height: int = 32, width: int = 40, target: tuple[int, int, int, int] | None = None) -> None:
    """A gray frame, or with `target` (x1, y1, x2, y2) a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.arange(height * width, dtype=np.int64).reshape(height, width) % 251
    if target is not None:
        levels[...] = 0
        levels[target[1] : target[3], target[0] : target[2]] = 255
    assert cv2.imwrite(str(path), levels.astype(np.uint8))


def listed(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root with one dataset of every layout."""
    for i in range(1, 4):
        for images, masks, folder in (
            ("images", "masks", "nudt_sirst"),
            ("IRSTD1k_Img", "IRSTD1k_Label", "IRSTD-1k"),
        ):
            picture(tmp_path / folder / images / f"XDU{i}.png")
            picture(tmp_path / folder / masks / f"XDU{i}.png", target=(i, 5, i + 2, 6))
        picture(tmp_path / "sirst" / "images" / f"Misc_{i}.png")
        picture(tmp_path / "sirst" / "masks" / f"Misc_{i}_pixels0.png", target=(i, 5, i + 2, 6))
        picture(tmp_path / "sirst_v2" / "mixed" / f"Misc_{i}.png")
    listed(tmp_path / "nudt_sirst" / "splits" / "train.txt", "XDU3", "XDU1")
    listed(tmp_path / "nudt_sirst" / "splits" / "test.txt", "XDU2")
    listed(tmp_path / "nudt_sirst" / "img_idx" / "val_NUDT-SIRST.txt", "XDU1")
    listed(tmp_path / "IRSTD-1k" / "trainval.txt", "XDU1.png", "", "XDU2.png ")
    listed(tmp_path / "IRSTD-1k" / "test.txt", "XDU3")
    listed(tmp_path / "sirst" / "idx_427" / "test.txt", "Misc_1")
    listed(tmp_path / "sirst" / "idx_427" / "trainval.txt", "Misc_2", "Misc_3")
    picture(tmp_path / "sirst_v2" / "annotations" / "masks" / "Misc_1_pixels0.png", target=(1, 1, 4, 3))
    listed(tmp_path / "sirst_v2" / "splits" / "test_full.txt", "Misc_1", "Misc_2")
    return tmp_path


def coco(root: Path, split: str = "test_stills", **changes: Any) -> Path:
    picture(root / "stills" / "a_0030.png")
    picture(root / "stills" / "b_0030.png")
    content = {
        "images": [{"id": 7, "file_name": "stills/a_0030.png"}, {"id": 9, "file_name": "stills/b_0030.png"}],
        "categories": [{"id": 4, "name": "helicopter"}, {"id": 2, "name": "bird"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 4, "bbox": [1.5, 2, 3, 4]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [10, 10, 5, 5]},
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | changes))
    return path


# ---------------------------------------------------------------- layouts


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


def test_coco_boxes_are_half_open_and_classes_start_at_0(tmp_path: Path) -> None:
    coco(tmp_path / "drone_ir")
    coco(tmp_path / "drone_ir", "train_stills")
    dataset = open_dataset("drone-ir:test", tmp_path)
    assert dataset.split == "test_stills" and dataset.classes == ("bird", "helicopter")
    assert dataset.has_boxes and not dataset.has_masks and dataset.licence.startswith("CC0")
    first, second = (sample.boxes() for sample in dataset)
    assert first is not None and second is not None
    assert first.boxes.tolist() == [[1.5, 2, 4.5, 6], [10, 10, 15, 15]] and first.classes.tolist() == [1, 0]
    assert len(second) == 0 and second.boxes.shape == (0, 4)
    with pytest.raises(UsageError, match=r"needs a split.*test_stills, train_stills"):
        open_dataset("drone_ir", tmp_path)


def test_a_coco_file_is_a_dataset(tmp_path: Path) -> None:
    assert len(open_dataset(coco(tmp_path))) == 2


def test_a_subset_keeps_the_order_asked_for(data: Path) -> None:
    part = open_dataset("nudt_sirst", data).subset([2, 0], split="val")
    assert [sample.id for sample in part] == ["XDU3", "XDU1"]
    note = part.note()
    assert (note.name, note.split, note.frames) == ("nudt_sirst", "val", 2) and "DNANet" in note.licence


# ---------------------------------------------------------------- what cannot be used


def one_line(kind: type[IrforgeError], name: Any, data: Path | None = None) -> str:
    with pytest.raises(kind) as caught:
        for sample in open_dataset(name, data):
            sample.frame(), sample.mask()
    assert "\n" not in caught.value.line
    return caught.value.line


def test_an_unknown_name_lists_the_datasets_there_are(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = one_line(UsageError, "ITD-1k:test", data)
    assert "no dataset 'ITD-1k'" in line and "IRSTD-1k, nudt_sirst, sirst, sirst_v2" in line
    assert "not a folder" in one_line(UsageError, "nudt_sirst", data / "nowhere")
    monkeypatch.delenv("IRFORGE_DATA", raising=False)
    assert "--data-root" in one_line(UsageError, "ITD-1k")


def test_an_unknown_split_lists_the_splits_there_are(data: Path) -> None:
    assert "no split 'dev'" in one_line(UsageError, "nudt_sirst:dev", data)
    assert "test, train, val" in one_line(UsageError, "nudt_sirst:dev", data)
    assert "leave the split out" in one_line(UsageError, f"{data}/sirst/images:test")


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    assert "does not exist" in one_line(InputError, f"{tmp_path}/nowhere")
    assert "does not exist" in one_line(InputError, f"{tmp_path}/nowhere:test")


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    assert "holds no frames" in one_line(InputError, tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert "images' holds no frames" in one_line(InputError, tmp_path)


def test_a_listed_frame_that_is_missing_is_named_with_its_list(data: Path) -> None:
    (data / "nudt_sirst" / "images" / "XDU2.png").unlink()
    line = one_line(InputError, "nudt_sirst:test", data)
    assert "'XDU2', which" in line and "test.txt' lists, is missing" in line
    (data / "sirst_v2" / "mixed" / "Misc_2.png").unlink()
    assert "'Misc_2', which" in one_line(InputError, "sirst_v2:test_full", data)


def test_a_missing_mask_is_one_line(data: Path) -> None:
    (data / "nudt_sirst" / "masks" / "XDU2.png").unlink()
    assert "masks" in one_line(InputError, "nudt_sirst:test", data)
    assert "'XDU2'" in one_line(InputError, "nudt_sirst", data)


def test_an_empty_list_is_one_line(data: Path) -> None:
    listed(data / "nudt_sirst" / "splits" / "test.txt", "", " ")
    assert "test.txt' is empty" in one_line(InputError, "nudt_sirst:test", data)


def test_a_mask_of_another_size_is_one_line(data: Path) -> None:
    picture(data / "nudt_sirst" / "masks" / "XDU2.png", 16, 20, (1, 1, 3, 3))
    line = one_line(InputError, "nudt_sirst:test", data)
    assert "XDU2.png' is 20x16, its frame" in line and "is 40x32" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 2, "name": "a"}, {"id": 2, "name": "b"}]}, "an id is given twice"),
        ({"annotations": {"bbox": 1}}, "no COCO annotation file"),
        ({"annotations": [{"image_id": 7, "category_id": 4, "bbox": [1, 2]}]}, "no COCO annotation file"),
        ({"images": [{"id": 7, "file_name": "stills/gone.png"}], "annotations": []}, "'stills/gone.png', which"),
        ({"images": []}, "lists no images"),
    ],
)
def test_a_broken_coco_file_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    coco(tmp_path, **changes)
    assert message in one_line(InputError, tmp_path)


A, B = {"id": 7, "file_name": "stills/a_0030.png"}, {"id": 9, "file_name": "stills/b_0030.png"}


def box(*sides: float, **changes: Any) -> dict[str, Any]:
    return {"annotations": [{"id": 5, "image_id": 7, "category_id": 4, "bbox": sides} | changes]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (box(40, 3, 4, 4), "[40, 3, 44, 7] of 'stills/a_0030', annotation 5 in|lies outside its frame of 40x32"),
        (box(3, -9, 4, 4), "lies outside its frame"),
        (box(3, 3, 0, 4), "[3, 3, 3, 7] of|has no area"),
        (box(3, 3, 4, -4), "has no area"),
        (box(3, float("nan"), 4, 4), "is not finite"),
        (box(3, 3, float("inf"), 4), "is not finite"),
        (box(3, 3, 4, 4, category_id=3), "annotation 5 in|of the category 3, which is not listed. Listed are: 2, 4"),
        (box(3, 3, 4, 4, image_id=8), "annotation 5 in|belongs to the image 8, which is not listed"),
        ({"images": [A, B, A | {"id": 8}]}, "lists the frame 'stills/a_0030.png' twice"),
        ({"images": [A, B, B | {"id": 7}]}, "an id is given twice"),
        ({"images": [A | {"width": 32, "height": 40}, B]}, "'stills/a_0030.png' is 32x40, and it is 40x32"),
    ],
)
def test_annotations_that_would_spoil_training_or_metrics_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    coco(tmp_path, **changes)
    line = one_line(InputError, tmp_path)
    for word in words.split("|"):
        assert word in line


def test_a_box_at_the_border_is_cut_and_one_far_beyond_is_a_fault(tmp_path: Path) -> None:
    sides = ([-0.001, 0, 4, 4], [38, 5, 3, 4], [-3, 5, 9, 4])
    annotations = [{"id": i, "image_id": 7, "category_id": 4, "bbox": side} for i, side in enumerate(sides)]
    coco(tmp_path, annotations=annotations)
    dataset = open_dataset(tmp_path)
    boxes = dataset[0].boxes()
    assert boxes is not None
    np.testing.assert_allclose(boxes.boxes, [[0, 0, 3.999, 4], [38, 5, 40, 9], [0, 5, 6, 9]], rtol=1e-6)
    assert [(finding.kind, finding.fault) for finding in dataset.findings] == [
        ("box beyond its frame", False),
        ("box beyond its frame", True),
    ]


def test_sizes_come_from_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco(tmp_path)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("a frame was decoded"))
    assert len(open_dataset(tmp_path)) == 2


def test_coco_ids_may_be_text_and_a_category_0(tmp_path: Path) -> None:
    picture(tmp_path / "ITT" / "images" / "1_11_5.png")
    content = {
        "images": [{"id": "1_11_5", "file_name": "1_11_5.png", "height": 32, "width": 40}],
        "categories": [{"id": 0, "name": "target"}],
        "annotations": [{"id": 0, "image_id": "1_11_5", "category_id": 0, "bbox": [3, 4, 3, 2]}],
    }
    for split in ("train", "val"):
        path = tmp_path / "ITT" / "annotations" / f"{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    dataset = open_dataset("itt:val", tmp_path)
    boxes = dataset[0].boxes()
    assert dataset.classes == ("target",) and dataset[0].id == "1_11_5"
    assert boxes is not None and boxes.boxes.tolist() == [[3, 4, 6, 6]] and boxes.classes.tolist() == [0]


@pytest.mark.parametrize(("first", "second"), [("XDU1", "XDU1"), ("XDU1", "XDU1.png")])
def test_a_list_that_names_a_frame_twice_is_refused(data: Path, first: str, second: str) -> None:
    listed(data / "nudt_sirst" / "splits" / "train.txt", first, "XDU2", second)
    line = one_line(InputError, "nudt_sirst:train", data)
    assert "train.txt' names 'XDU1' twice, in lines 1 and 3" in line


def test_two_files_of_one_name_are_refused(data: Path) -> None:
    picture(data / "nudt_sirst" / "images" / "XDU2.bmp")
    assert "two frames of one name, 'XDU2.bmp' and 'XDU2.png'" in one_line(InputError, "nudt_sirst", data)


def test_a_mask_without_its_frame_is_found_and_one_without_target_is_a_background(data: Path) -> None:
    picture(data / "nudt_sirst" / "masks" / "XDU9.png", target=(1, 1, 3, 3))
    picture(data / "nudt_sirst" / "masks" / "XDU2.png", target=(1, 1, 1, 1))
    dataset = open_dataset("nudt_sirst", data)
    assert [(finding.where, finding.fault) for finding in dataset.findings] == [("masks/XDU9", True)]
    empty, boxes, centroids = dataset[1].mask(), dataset[1].boxes(), dataset[1].centroids()
    assert empty is not None and not empty.any()
    assert boxes is not None and len(boxes) == 0
    assert centroids is not None and centroids.shape == (0, 2)


# ---------------------------------------------------------------- boxes and centroids beside masks


def sirst_xml(path: Path, element: str = "", fields: str = "", *rows: tuple[float, ...]) -> None:
    """Objects with one element each; without rows one object that has none, as a background has."""
    objects = [
        f"<{element}>" + "".join(f"<{f}>{v}</{f}>" for f, v in zip(fields.split(), row, strict=True)) + f"</{element}>"
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    inside = "".join(f"<object><name>Target</name>{content}</object>" for content in objects or [""])
    path.write_text(f"<annotation><filename>{path.stem}</filename>{inside}</annotation>")


def test_centroids_are_weighted_by_level_and_half_a_pixel_from_the_edge(data: Path) -> None:
    frame = np.full((32, 40), 10, np.uint8)
    frame[5, 20:22] = (50, 150)
    frame[20, 30:33] = 0
    mask = np.zeros_like(frame)
    mask[5, 20:22] = mask[20, 30:33] = 255
    folder = data / "sirst_v2"
    cv2.imwrite(str(folder / "mixed" / "Misc_1.png"), frame)
    cv2.imwrite(str(folder / "annotations" / "masks" / "Misc_1_pixels0.png"), mask)
    centroids = open_dataset("sirst-v2:test_full", data)[0].centroids()
    # Level 0 throughout has no weights: the plain centre.
    assert centroids is not None and centroids.tolist() == [[21.25, 5.5], [31.5, 20.5]]


def test_xml_boxes_and_centroids_count_from_1(tmp_path: Path) -> None:
    sirst_xml(tmp_path / "a.xml", "bndbox", "xmin ymin xmax ymax", (2, 2, 5, 4), (9, 8, 10, 9))
    assert read_boxes(tmp_path / "a.xml").tolist() == [[1, 1, 4, 3], [8, 7, 9, 8]]
    sirst_xml(tmp_path / "b.xml", "centroid", "yc xc", (1, 1), (4, 7.25))
    assert read_centroids(tmp_path / "b.xml").tolist() == [[0.5, 0.5], [6.75, 3.5]]


def test_an_object_without_a_box_is_no_target(data: Path) -> None:
    path = data / "sirst_v2" / "annotations" / "bboxes" / "Misc_2.xml"
    sirst_xml(path)
    assert read_boxes(path).shape == (0, 4)
    boxes = open_dataset("sirst-v2:test_full", data)[1].boxes()
    assert boxes is not None and len(boxes) == 0


def test_a_target_whose_mask_is_missing_is_no_background(data: Path) -> None:
    sirst_xml(
        data / "sirst_v2" / "annotations" / "bboxes" / "Misc_2.xml", "bndbox", "xmin ymin xmax ymax", (2, 2, 5, 4)
    )
    assert "the mask of 'Misc_2' is missing" in one_line(InputError, "sirst_v2:test_full", data)


def test_the_mask_counts_where_boxes_do_not_belong_to_it(data: Path) -> None:
    folder = data / "sirst_v2" / "annotations" / "bboxes"
    sirst_xml(folder / "Misc_1.xml", "bndbox", "xmin ymin xmax ymax", (12, 12, 15, 14))
    dataset = open_dataset("sirst-v2:test_full", data)
    boxes = dataset[0].boxes()
    assert boxes is not None and boxes.boxes.tolist() == [[1, 1, 4, 3]]
    _, findings = scan(dataset.subset([0]))
    assert [(finding.kind, finding.fault) for finding in findings] == [("stale box", False)]
    assert "has [11, 11, 14, 13], the mask [1, 1, 4, 3]" in findings[0].text
    sirst_xml(folder / "Misc_1.xml", "bndbox", "xmin ymin xmax ymax", (2, 2, 5, 4))
    assert scan(dataset.subset([0]))[1] == []
    picture(data / "sirst_v2" / "annotations" / "masks" / "Misc_1_pixels0.png", target=(1, 1, 1, 1))
    _, findings = scan(dataset.subset([0]))
    assert [(finding.kind, finding.fault) for finding in findings] == [("mask without its target", True)]


@pytest.mark.parametrize("text", ["<annotation>", "<a><object><bndbox><xmin>1</xmin></bndbox></object></a>"])
def test_xml_that_is_no_annotation_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=r"a\.xml' is no annotation of SIRST"):
        read_boxes(tmp_path / "a.xml")


def test_text_that_is_no_json_is_no_coco(tmp_path: Path) -> None:
    coco(tmp_path).write_text("not json")
    assert "no COCO annotation file" in one_line(InputError, tmp_path)


# ---------------------------------------------------------------- the real sets


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
