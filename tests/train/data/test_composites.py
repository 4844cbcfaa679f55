"""Promises of the rendered targets and of the composites made with them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from irforge.datasets import open_dataset
from irforge.detections import mask_targets
from irforge.samples import FRAMES
from irforge.train.data.composites import square_without
from irforge.train.data.rendering import AREAS, add_targets, profile


def sky(seed: int = 0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(90, 3, (256, 256)), 0, 255).astype(np.uint8)


def test_mask_is_where_the_profile_exceeds_half_its_peak() -> None:
    for seed in range(20):
        background = sky(seed)
        frame, mask, targets = add_targets(background, 2, np.random.default_rng(seed))
        components = mask_targets(mask.astype(np.float32), 0.5, 8)
        assert sorted(int(a) for a in components.areas) == sorted(target.area for target in targets)
        added = frame.astype(int) - background
        for box, target in zip(components.boxes, components.areas, strict=True):
            assert AREAS[0] <= target <= AREAS[1]
            left, top, right, bottom = (int(v) for v in box)
            patch = added[top - 3 : bottom + 3, left - 3 : right + 3]
            inside = mask[top - 3 : bottom + 3, left - 3 : right + 3]
            peak = patch.max()
            # Levels are rounded after rendering: half a level each way.
            assert patch[inside].min() >= peak / 2 - 1
            assert patch[~inside].max() <= peak / 2 + 1


def test_targets_are_brighter_than_their_surroundings_and_apart() -> None:
    background = sky()
    frame, mask, targets = add_targets(background, 3, np.random.default_rng(1))
    assert len(targets) == 3
    assert (frame >= background).all()
    for target in targets:
        assert 24 <= target.contrast <= 120
        assert mask[int(target.y), int(target.x)]
    distances = [np.hypot(a.x - b.x, a.y - b.y) for a in targets for b in targets if a is not b]
    assert min(distances) > 20


def test_no_target_saturates() -> None:
    assert add_targets(np.full((256, 256), 240, np.uint8), 3, np.random.default_rng(0))[2] == []


def test_profile_moves_with_its_sub_pixel_centre() -> None:
    rows, columns = np.mgrid[0:15, 0:15] + 0.5
    for kind in ("spot", "soft-edged"):
        for x in (7.1, 7.5, 7.9):
            shape = profile(kind, (x, 7.5), (1.5, 1.5), 0.0, 15)
            assert (shape * columns).sum() / shape.sum() == pytest.approx(x, abs=0.02)
            assert (shape * rows).sum() / shape.sum() == pytest.approx(7.5, abs=0.02)
            assert shape.max() == 1


def test_backgrounds_avoid_annotated_boxes() -> None:
    rng = np.random.default_rng(0)
    # 1-based corner: covers 0-based pixels 100..119.
    for boxes in ([], [[3, 101.0, 121.0, 20.0, 10.0]], [[3, 101.0, 121.0, 20.0, 10.0], [2, 281.0, 11.0, 9.0, 9.0]]):
        found = square_without(boxes, 320, 256, rng)
        assert found is not None
        left, top, side = found
        for _, x, y, w, h in boxes:
            assert x - 1 + w <= left or x - 1 >= left + side or y - 1 + h <= top or y - 1 >= top + side
    assert square_without([[3, 1.0, 1.0, 320.0, 256.0]], 320, 256, rng) is None


def test_sample_frames_are_whole_and_small() -> None:
    videos: list[str] = []
    for split, frames in (("test", 24), ("calib", 16)):
        dataset = open_dataset(FRAMES, split=split)
        assert len(dataset) == frames
        rows = list(csv.DictReader((FRAMES / f"{split}.csv").read_text().splitlines()))
        for sample, row in zip(dataset, rows, strict=True):
            mask = sample.mask()
            assert sample.id == row["id"] and mask is not None
            assert sample.frame().shape == mask.shape == (256, 256)
            areas = mask_targets(mask.astype(np.float32), 0.5, 8).areas
            assert sorted(int(a) for a in areas) == sorted(int(a) for a in row["areas"].split())
        videos += [row["video"] for row in rows]
    assert len(set(videos)) == len(videos)
    assert sum(path.stat().st_size for path in FRAMES.rglob("*") if path.is_file()) < 1_500_000


def test_sample_frames_can_be_made_again(tmp_path: Path) -> None:
    root = os.environ.get("IRFORGE_DATA")
    if not root:
        pytest.skip("IRFORGE_DATA is not set")
    command = ["train/data/composites.py", "--data-root", root, "--split", "test", "--frames", "3", "--seed", "2"]
    subprocess.run(
        [sys.executable, *command, "-o", str(tmp_path)], check=True, cwd=Path(__file__).parents[3], capture_output=True
    )
    made = sorted(tmp_path.glob("*/*.png"))
    assert len(made) == 6
    for path in made:
        shipped, again = (
            cv2.imread(str(p), cv2.IMREAD_UNCHANGED).astype(int) for p in (FRAMES / path.relative_to(tmp_path), path)
        )
        # Another build of OpenCV or FFmpeg may round the video's colours differently.
        assert abs(shipped - again).max() <= 2
