"""Promises of tiles: they cover every pixel, and no target is lost or doubled at a seam."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from irforge.contract import MinMaxGain, Tile
from irforge.detections import Detections
from irforge.errors import UsageError
from irforge.runtime.detector import load
from irforge.runtime.pipeline import Pipeline
from irforge.runtime.sources import open_source
from irforge.runtime.tiling import TiledDetector
from irforge.tiles import Tiling, merge, starts, stitch
from tests.box_model import box_frame, write_box_model

Model = Callable[..., Path]


@pytest.fixture(scope="module")
def box_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_box_model(tmp_path_factory.mktemp("tiles") / "peaks.onnx")


def boxes(*rows: tuple[float, ...], scores: list[float] | None = None) -> Detections:
    array = np.array(rows, np.float32).reshape(-1, 4)
    return Detections(array, np.array(scores or np.linspace(0.9, 0.6, len(array))), np.zeros(len(array)))


@pytest.mark.parametrize("length", [64, 65, 100, 111, 500, 1080, 1920])
@pytest.mark.parametrize("overlap", [0, 1, 16, 32])
def test_tiles_cover_a_side_and_overlap_enough(length: int, overlap: int) -> None:
    firsts = starts(length, 64, overlap)
    assert firsts[0] == 0 and firsts[-1] + 64 == length
    assert all(one + 64 - following >= overlap for one, following in pairwise(firsts))
    # One fewer would not do.
    assert len(firsts) == 1 or (len(firsts) - 1) * (64 - overlap) + overlap < length


def test_a_small_frame_is_one_tile() -> None:
    assert starts(40, 64, 16) == [0]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 130), (211, 64), (40, 200)])
def test_every_target_of_half_the_overlap_lies_whole_in_what_counts_of_a_tile(height: int, width: int) -> None:
    tiling = Tiling(height, width, (64, 64), 24)
    reach = np.zeros((height - 11, width - 11), bool)
    for rows, columns in tiling.parts:
        # Where a target of 12 pixels may begin so that this part holds it.
        reach[rows.start : max(rows.stop - 11, 0), columns.start : max(columns.stop - 11, 0)] = True
    assert reach.all()


def test_stitching_gives_back_the_plane_that_tiles_were_cut_from() -> None:
    plane = np.random.default_rng(0).random((150, 201)).astype(np.float32)
    tiling = Tiling(150, 201, (64, 64), 16)
    tiles = np.stack([plane[top : top + 64, left : left + 64] for top, left in tiling.corners])
    assert np.array_equal(stitch(tiles, tiling), plane)


def test_what_a_network_sees_at_its_own_border_does_not_count() -> None:
    tiling = Tiling(64, 104, (64, 64), 24)
    tiles = np.zeros((2, 64, 64), np.float32)
    tiles[:, :, -3:] = tiles[:, :, :3] = 1
    stitched = stitch(tiles, tiling)
    assert stitched[:, :3].all() and stitched[:, -3:].all() and not stitched[:, 3:-3].any()


def sweep(detector: TiledDetector, targets: list[tuple[int, int]], size: tuple[int, int]) -> None:
    """Every target alone in a frame is found once, in its place."""
    for x, y in targets:
        found = detector(box_frame((x, y), size=size))
        centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        assert len(found) == 1, (x, y, found.boxes)
        assert np.abs(centres[0] - (x + 1.5, y + 1.5)).max() <= 1, (x, y)


# Across the seam between the tiles that begin at 0 and at 46 (rows at 36), a step of one pixel at a time, and corners.
SEAMS = [(x, 30) for x in range(40, 70)] + [(20, y) for y in range(30, 66, 2)] + [(k + 6, k) for k in range(36, 62, 2)]


@pytest.mark.parametrize("kind", ["mask", "boxes"])
def test_a_target_on_a_seam_is_neither_lost_nor_doubled(kind: str, box_model: Path, spot_model: Model) -> None:
    path = box_model if kind == "boxes" else spot_model()
    with TiledDetector(load(path, threads=1), 16) as detector:
        sweep(detector, SEAMS, (100, 110))


def test_tiles_find_what_a_larger_model_finds_in_the_whole_frame(spot_model: Model) -> None:
    random = np.random.default_rng(1)
    frame = random.normal(90, 4, (150, 180)).astype(np.uint8)
    for y, x in random.integers(5, 140, (40, 2)):
        frame[y : y + 3, x : x + 2] = 200
    with load(spot_model(size=(150, 180)), threads=1) as whole, load(spot_model(), threads=1, with_mask=True) as small:
        expected, found = whole(frame), TiledDetector(small, 20)(frame)
    for column in ("boxes", "scores", "centres", "areas"):
        assert np.array_equal(getattr(found, column), getattr(expected, column)), column
    assert found.mask is not None and found.mask.shape == (150, 180) and found.mask.sum() == expected.areas.sum()


def test_gain_control_is_that_of_the_whole_frame(spot_model: Model) -> None:
    frame = np.full((100, 110), 8000, np.uint16)
    frame[20, 20] = 9000
    frame[80, 90:93] = 8300
    model = spot_model(bit_depth=14, gain=MinMaxGain())
    with TiledDetector(load(model, threads=1), 16) as detector:
        # A tile's own gain would make the dimmer spot white.
        assert len(detector(frame)) == 1


def test_two_targets_side_by_side_on_a_seam_stay_two() -> None:
    tiling = Tiling(64, 104, (64, 64), 24)
    left, right = boxes((50, 30, 53, 33), (53.5, 30, 56.5, 33)), boxes((10.4, 30, 13.4, 33), (13, 30.2, 16, 33.2))
    found = merge([left, right], tiling)
    assert sorted(found.boxes[:, 0].tolist()) == pytest.approx([50, 53.5])
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])


def test_what_scores_below_the_level_changes_nothing_above_it() -> None:
    tiling = Tiling(64, 104, (64, 64), 24)
    high, low = (50.0, 30.0, 53.0, 33.0), (51.0, 30.0, 54.0, 33.0)
    # Of the other tile, the low one is nearer to the first tile's; and one that could join two.
    left = boxes(high, scores=[0.9])
    right = boxes((12, 30, 15, 33), (10, 30, 13, 33), scores=[0.8, 0.2])
    assert merge([left, right], tiling).scores.tolist() == pytest.approx([0.9, 0.8])
    assert merge([left, right], tiling, 0.5).scores.tolist() == pytest.approx([0.9, 0.2])
    apart = [boxes(high, scores=[0.9]), boxes((14, 30, 17, 33), scores=[0.8]), boxes(low, scores=[0.2])]
    three = Tiling(64, 144, (64, 64), 24)
    assert merge(apart[:2], tiling, 0.5).scores.tolist() == pytest.approx([0.9, 0.8])
    assert len(three.corners) == 3


def test_thousands_of_boxes_are_joined_block_by_block() -> None:
    tiling = Tiling(64, 104, (64, 64), 24)
    random = np.random.default_rng(0)
    corners = random.uniform((42, 2), (58, 58), (700, 2)).round(1)
    sides = np.concatenate([corners, corners + 3], axis=1)
    scores = np.linspace(0.9, 0.1, 700)
    left = Detections(sides, scores, np.zeros(700))
    right = Detections(sides - (40, 0, 40, 0), scores + 0.01, np.zeros(700))
    inside = (sides[:, 0] + 1.5 <= 58) & (sides[:, 0] + 1.5 >= 46)
    only_left = (sides[:, 0] + 1.5 < 46).sum()
    only_right = (sides[:, 0] + 1.5 > 58).sum()
    assert len(merge([left, right], tiling)) == inside.sum() + only_left + only_right


def test_classes_and_tiles_apart_are_not_one_target() -> None:
    tiling = Tiling(64, 104, (64, 64), 24)
    one = boxes((50, 30, 53, 33))
    other = Detections(np.array([[10, 30, 13, 33]], np.float32), np.array([0.8]), np.array([1]))
    assert merge([one, other], tiling).classes.tolist() == [0, 1]
    # Within one tile nothing is merged: its own suppression has been at work.
    twice = boxes((50, 30, 53, 33), (51, 30, 54, 33))
    assert len(merge([twice, boxes()], tiling)) == 2
    assert len(merge([boxes(), boxes()], tiling)) == 0


def test_large_boxes_merge_by_their_own_size() -> None:
    tiling = Tiling(64, 104, (64, 64), 24)
    found = merge([boxes((40, 20, 62, 44), scores=[0.7]), boxes((3, 22, 23, 45), scores=[0.9])], tiling)
    assert found.boxes.tolist() == [[43, 22, 63, 45]]


@pytest.mark.parametrize(("batch", "asked"), [("N", 2), ("N", None), (4, None)])
def test_any_batch_gives_the_same(batch: int | str, asked: int | None, spot_model: Model) -> None:
    frames = [np.full((120, 140), 90, np.uint8) for _ in range(3)]
    for k, frame in enumerate(frames):
        frame[50 + k, 30 + k : 33 + k] = 200
    with TiledDetector(load(spot_model(batch=batch), threads=1), 16, asked) as detector:
        for k, frame in enumerate(frames):
            assert detector(frame).boxes.tolist() == [[30 + k, 50 + k, 33 + k, 51 + k]]
        assert detector.last_times.infer > 0


def test_a_frame_smaller_than_the_model_is_padded(spot_model: Model, box_model: Path, spot_frame: Model) -> None:
    with TiledDetector(load(spot_model(), threads=1), 16) as detector:
        assert detector(spot_frame(height=40, width=50)).boxes.tolist() == [[20, 30, 23, 31]]
    with TiledDetector(load(box_model, threads=1), 16) as detector:
        found = detector(box_frame((20, 20), size=(40, 50)))
        assert any(np.abs(box - (20, 20, 23, 23)).max() <= 1 for box in found.boxes)
        assert (found.boxes[:, 2:] <= (50, 40)).all()


def test_a_pipeline_takes_tiles(spot_model: Model) -> None:
    with TiledDetector(load(spot_model(), threads=1), 16) as detector:
        with open_source("synthetic:150x100,frames=12,targets=3") as source, Pipeline(detector, [source]) as pipeline:
            results = list(pipeline)
        assert [result.record.index for result in results] == list(range(12))
        for result in results:
            assert np.array_equal(result.detections.boxes, detector(result.record.frame).boxes)
            assert len(result.detections)


def test_what_does_not_fit_is_refused(spot_model: Model) -> None:
    with load(spot_model(batch=4), threads=1) as detector:
        with pytest.raises(UsageError, match="tiles of 64x64 cannot overlap by 40"):
            TiledDetector(detector, 40)
        with pytest.raises(UsageError, match="batches of 4, not of 3"):
            TiledDetector(detector, 8, batch=3)
        tiled = TiledDetector(detector, 8)
        assert tiled.contract.input.fit == Tile(overlap=8) and "overlap by 8" in repr(tiled)
