"""Promises of irforge.datasets: what is said, in one line, about data that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irforge.datasets.sirst import read_boxes
from irforge.errors import InputError, UsageError
from tests.datasets.layouts import coco, listed, one_line, picture


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
        ({"annotations": [{"image_id": 7, "category_id": 4, "bbox": [1, 2]}]}, "annotation number 1 in '"),
        ({"annotations": [{"image_id": 7, "category_id": 4, "bbox": [1, 2]}]}, "has the 'bbox' [1, 2]"),
        ({"annotations": [{"id": 5, "image_id": 7, "category_id": 4}]}, "annotation 5 in '"),
        ({"annotations": [{"id": 5, "image_id": 7, "category_id": 4}]}, "has no 'bbox'"),
        ({"annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4]}]}, "has no 'category_id'"),
        ({"images": [{"id": 7}]}, "has no 'file_name'"),
        ({"images": [{"file_name": "stills/gone.png"}]}, "image number 1 in '"),
        ({"categories": [{"id": 2}]}, "has no 'name'"),
        ({"categories": [{"id": "two", "name": "a"}]}, "category two in '"),
        ({"images": [{"id": 7, "file_name": "stills/gone.png"}], "annotations": []}, "'stills/gone.png', which"),
        ({"images": []}, "lists no images"),
    ],
)
def test_a_broken_coco_file_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    coco(tmp_path, **changes)
    line = one_line(InputError, tmp_path)
    assert message in line and "Error(" not in line


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_a_coco_file_without_one_of_its_parts_is_told_which(tmp_path: Path, part: str) -> None:
    path = coco(tmp_path)
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != part}))
    assert f"is no COCO annotation file: it has no '{part}'" in one_line(InputError, tmp_path)


@pytest.mark.parametrize(("first", "second"), [("XDU1", "XDU1"), ("XDU1", "XDU1.png")])
def test_a_list_that_names_a_frame_twice_is_refused(data: Path, first: str, second: str) -> None:
    listed(data / "nudt_sirst" / "splits" / "train.txt", first, "XDU2", second)
    line = one_line(InputError, "nudt_sirst:train", data)
    assert "train.txt' names 'XDU1' twice, in lines 1 and 3" in line


def test_two_files_of_one_name_are_refused(data: Path) -> None:
    picture(data / "nudt_sirst" / "images" / "XDU2.bmp")
    assert "two frames of one name, 'XDU2.bmp' and 'XDU2.png'" in one_line(InputError, "nudt_sirst", data)


@pytest.mark.parametrize("text", ["<annotation>", "<a><object><bndbox><xmin>1</xmin></bndbox></object></a>"])
def test_xml_that_is_no_annotation_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=r"a\.xml' is no annotation of SIRST"):
        read_boxes(tmp_path / "a.xml")


def test_text_that_is_no_json_is_no_coco(tmp_path: Path) -> None:
    coco(tmp_path).write_text("not json")
    assert "no COCO annotation file" in one_line(InputError, tmp_path)
