"""Promises of irforge.datasets: what COCO files, masks and XML say of a target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.datasets import open_dataset
from irforge.datasets.check import scan
from irforge.datasets.sirst import read_boxes, read_centroids
from irforge.errors import InputError, UsageError
from tests.datasets.layouts import coco, one_line, picture


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


def test_a_mask_without_its_frame_is_found_and_one_without_target_is_a_background(data: Path) -> None:
    picture(data / "nudt_sirst" / "masks" / "XDU9.png", target=(1, 1, 3, 3))
    picture(data / "nudt_sirst" / "masks" / "XDU2.png", target=(1, 1, 1, 1))
    dataset = open_dataset("nudt_sirst", data)
    assert [(finding.where, finding.fault) for finding in dataset.findings] == [("masks/XDU9", True)]
    empty, boxes, centroids = dataset[1].mask(), dataset[1].boxes(), dataset[1].centroids()
    assert empty is not None and not empty.any()
    assert boxes is not None and len(boxes) == 0
    assert centroids is not None and centroids.shape == (0, 2)


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
