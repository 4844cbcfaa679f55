"""Frames cut out of drone_ir's videos carry its boxes, counted from 0 and within the frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from irforge.datasets import open_dataset
from irforge.errors import InputError, UsageError
from irforge.train.data.stills import clipped, stills


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two videos of 12 frames whose level tells the frame; the first shows a bird, from frame 6 on a drone too."""
    root = tmp_path / "data" / "drone_ir"
    listed: dict[str, Any] = {}
    for name, bird, drone in (("ONE", 0, 6), ("TWO", 3, 99)):
        path = root / "videos" / f"{name}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
        rows = []
        for index in range(12):
            writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
            rows.append([[2, 11.0, 6.0, 8.0, 4.0]] * (index >= bird) + [[3, 60.0, 1.0, 9.0, 5.0]] * (index >= drone))
        writer.release()
        listed[name] = {"video": f"videos/{name}.avi", "boxes": rows}
    categories = [{"id": 2, "name": "bird"}, {"id": 3, "name": "drone"}]
    (root / "labels").mkdir()
    (root / "labels" / "train.json").write_text(json.dumps({"categories": categories, "videos": listed}))
    return root.parent


def test_frames_are_the_ones_asked_for_and_open_as_a_dataset(videos: Path, tmp_path: Path) -> None:
    stills(tmp_path / "out", videos, every=4, start=2)
    dataset = open_dataset(f"{tmp_path / 'out'}:train")
    assert [sample.id for sample in dataset] == [
        f"frames/{name}" for name in ("ONE_0002", "ONE_0006", "ONE_0010", "TWO_0006", "TWO_0010")
    ]
    assert dataset.classes == ("bird", "drone")
    for sample in dataset:
        assert abs(float(sample.frame().mean()) - 20 * int(sample.id[-4:])) < 3
    truth = dataset[1].boxes()
    assert truth is not None and truth.classes.tolist() == [0, 1]
    assert truth.boxes.tolist() == [[10, 5, 18, 9], [59, 0, 64, 5]]


def test_frames_with_a_barred_class_are_left_out(videos: Path, tmp_path: Path) -> None:
    stills(tmp_path / "out", videos, every=4, start=2, without=["drone"])
    names = [sample.id for sample in open_dataset(f"{tmp_path / 'out'}:train")]
    assert names == ["frames/ONE_0002", "frames/TWO_0006", "frames/TWO_0010"]
    with pytest.raises(UsageError, match="has no class 'kite'"):
        stills(tmp_path / "other", videos, without=["kite"])
    with pytest.raises(UsageError, match="no frame is left"):
        stills(tmp_path / "other", videos, start=50)


def test_a_video_that_ends_early_is_named(videos: Path, tmp_path: Path) -> None:
    path = videos / "drone_ir" / "labels" / "train.json"
    content = json.loads(path.read_text())
    content["videos"]["TWO"]["boxes"] += [[[2, 1.0, 1.0, 5.0, 5.0]]] * 8
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"cannot read frame 12 of '.*TWO.avi'"):
        stills(tmp_path / "out", videos, every=4, start=2)
    assert not (tmp_path / "out" / "annotations").exists()


def test_boxes_lose_what_lies_beyond_the_frame() -> None:
    rows = [[1, 0.5, 1.0, 4.0, 4.0], [1, 70.0, 1.0, 4.0, 4.0]]
    assert list(clipped(rows, 64, 48)) == [(1, [0.0, 0.0, 3.5, 4.0])]
