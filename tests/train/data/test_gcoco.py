"""Promises of gray-COCO: gray frames, no boxes of the classes to come, and a run that goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.datasets import open_dataset
from irforge.datasets.classes import COCO, COCO_THERMAL
from irforge.errors import InputError, UsageError
from irforge.train.data.gcoco import convert_split, gcoco

COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two colour frames; a person, a truck and an airplane in the first, a toothbrush in the second."""
    root = tmp_path / "coco"
    rng = np.random.default_rng(0)
    (root / "train2017").mkdir(parents=True)
    for i in (1, 2):
        frame = cv2.resize(rng.integers(0, 256, (4, 5, 3), np.uint8), (40, 32), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(root / "train2017" / f"00{i}.jpg"), frame)
    boxes = [(1, 1), (1, 8), (1, 5), (2, 90)]
    content = {
        "images": [{"id": i, "file_name": f"00{i}.jpg", "width": 40, "height": 32} for i in (1, 2)],
        "categories": [{"id": i, "name": name} for i, name in zip(COCO_IDS, COCO, strict=True)],
        "annotations": [
            {"id": i, "image_id": m, "category_id": c, "bbox": [i, 2, 5, 5]} for i, (m, c) in enumerate(boxes)
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root


def test_72_classes_stay_and_those_of_ifsod_lose_their_boxes(source: Path, tmp_path: Path) -> None:
    gcoco(source, tmp_path / "gcoco", split=["train2017"])
    dataset = open_dataset("gcoco:train", tmp_path)
    assert len(dataset.classes) == 72 and dataset.classes == tuple(n for n in COCO if n not in COCO_THERMAL)
    numbers = [truth.classes.tolist() for sample in dataset if (truth := sample.boxes()) is not None]
    assert [[dataset.classes[n] for n in row] for row in numbers] == [["airplane"], ["toothbrush"]]
    assert numbers[1] == [71]


def test_frames_are_gray_by_the_published_weights(source: Path, tmp_path: Path) -> None:
    convert_split(source, tmp_path / "gcoco", "train2017", COCO_THERMAL)
    gray = open_dataset("gcoco", tmp_path)[0].frame()
    colour = cv2.imread(str(source / "train2017" / "001.jpg")).astype(np.float64)
    expected = 0.114 * colour[..., 0] + 0.587 * colour[..., 1] + 0.299 * colour[..., 2]
    assert gray.ndim == 2 and np.abs(gray - expected).mean() < 1


def test_a_run_goes_on_where_it_stopped_and_annotations_come_last(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "gcoco"
    whole = (source / "train2017" / "002.jpg").read_bytes()
    (source / "train2017" / "002.jpg").unlink()
    with pytest.raises(InputError, match=r"002.jpg"):
        convert_split(source, out, "train2017", COCO_THERMAL)
    assert [path.name for path in out.rglob("*.*")] == ["001.jpg"]
    (source / "train2017" / "002.jpg").write_bytes(whole)
    stamp = (out / "train" / "001.jpg").stat().st_mtime_ns
    convert_split(source, out, "train2017", COCO_THERMAL, workers=2)
    assert (out / "train" / "001.jpg").stat().st_mtime_ns == stamp and len(open_dataset(out)) == 2


def test_a_class_that_is_not_there_and_a_missing_split_are_one_line(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no class 'uav'"):
        convert_split(source, tmp_path / "g", "train2017", ("uav",))
    with pytest.raises(InputError, match=r"there is no '.*instances_val2017.json'"):
        convert_split(source, tmp_path / "g", "val2017", COCO_THERMAL)
