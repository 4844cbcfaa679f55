"""ITD's targets against worked examples."""

from __future__ import annotations

import time

import numpy as np
import pytest

from irforge.train.detectors.itd.encode import CHANNELS, centre_of_light, dense_targets, encode, spread

BOX = np.array([8, 10, 18, 18], np.float32)


def scene(inside: float | np.ndarray) -> np.ndarray:
    """Level 40 with `inside` in the pixels of BOX."""
    levels = np.full((32, 32), 40, np.float32)
    levels[10:18, 8:18] = inside
    return levels


def targets(*boxes: list[float], centres: list[list[float]] | None = None) -> dict[str, np.ndarray]:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    middles = (array[:, :2] + array[:, 2:]) / 2
    return dense_targets((32, 32), array, middles if centres is None else np.array(centres, np.float32))


def uneven() -> np.ndarray:
    levels = scene(100)
    levels[12:14, 15:17] = 200
    return levels


@pytest.mark.parametrize(
    ("levels", "x", "y"),
    [
        (scene(np.linspace(60, 240, 10)), 14.4444, 13.5),
        (uneven(), 12.6429, 13.4524),
        (scene(100), 12.5, 13.5),
    ],
    ids=["ramp", "bright corner", "uniform"],
)
def test_centre_of_light_equals_the_published_one_half_a_pixel_further(levels: np.ndarray, x: float, y: float) -> None:
    assert centre_of_light(levels, BOX, legacy_half_pixel=True) == pytest.approx((x, y), abs=1e-4)
    assert centre_of_light(levels, BOX) == pytest.approx((x + 0.5, y + 0.5), abs=1e-4)


def test_centre_of_a_uniform_target_is_its_middle_whatever_its_size() -> None:
    large, small = np.array([8, 10, 18, 18]), np.array([8, 10, 15, 17])
    assert centre_of_light(scene(100), large) == pytest.approx((13, 14))
    assert centre_of_light(scene(100), small) == (11.5, 13.5)


def test_light_of_the_largest_part_alone_counts() -> None:
    levels = scene(40)
    levels[11:15, 9:12] = 200
    levels[11:13, 15:17] = 250
    assert centre_of_light(levels, BOX) == pytest.approx((10.5, 13.0), abs=1e-4)


def test_parts_that_touch_at_a_corner_are_two() -> None:
    levels = scene(40)
    levels[11:15, 9:12] = 200
    levels[15:17, 12:15] = 200
    assert centre_of_light(levels, BOX) == pytest.approx((10.5, 13.0), abs=1e-4)


@pytest.mark.parametrize(
    "box",
    [[8, 10, 14, 18], [8, 18, 18, 10], [8, 10, 8, 18], [40, 40, 60, 60]],
    ids=["48 square pixels", "upside down", "no width", "outside"],
)
def test_small_and_impossible_boxes_have_their_middle(box: list[float]) -> None:
    x1, y1, x2, y2 = box
    levels = scene(np.linspace(60, 240, 10))
    assert centre_of_light(levels, np.array(box)) == ((x1 + x2) / 2, (y1 + y2) / 2)


def test_a_flat_image_has_no_light() -> None:
    assert centre_of_light(np.full((32, 32), 7, np.float32), BOX) == (13, 14)


def test_centre_of_a_target_at_the_border_is_found() -> None:
    levels = np.full((32, 32), 40, np.float32)
    levels[0:8, 0:8] = 100
    assert centre_of_light(levels, np.array([0, 0, 8, 8])) == pytest.approx((4, 4))


@pytest.mark.parametrize(
    ("side_x", "side_y", "sigma_x", "sigma_y", "beside", "below"),
    [
        (3, 2, 0.8026, 0.5351, 0.4601, 0.1744),
        (4, 3, 1.0701, 0.8026, 0.6462, 0.4601),
        (6, 4, 1.6051, 1.0701, 0.8236, 0.6462),
        (8, 4, 1.3894, 0.6948, 0.7718, 0.3549),
        (10, 5, 0.9707, 0.4854, 0.5882, 0.1198),
        (24, 14, 2.3294, 1.3589, 0.9120, 0.7628),
    ],
)
def test_heat_spreads_as_published(
    side_x: int, side_y: int, sigma_x: float, sigma_y: float, beside: float, below: float
) -> None:
    assert spread(np.array([[side_x, side_y]], np.float32) / 2)[0] == pytest.approx((sigma_x, sigma_y), abs=1e-4)
    x, y = 16.5 - side_x / 2, 16.5 - side_y / 2
    heat = targets([x, y, x + side_x, y + side_y])["heat"][0]
    assert heat[8, 8] == 1
    assert heat[8, 9] == heat[8, 7] == pytest.approx(beside, abs=1e-4)
    assert heat[9, 8] == heat[7, 8] == pytest.approx(below, abs=1e-4)


def test_a_box_is_written_into_the_cell_of_its_centre() -> None:
    maps = targets([6, 8, 20, 16], centres=[[11.3, 12.6]])
    assert np.argwhere(maps["weight"][0]).tolist() == [[6, 5]]
    assert maps["ltrb"][:, 6, 5] == pytest.approx((2.65, 2.30, 4.35, 1.70), abs=1e-5)
    assert maps["offset"][:, 6, 5] == pytest.approx((0.65, 0.30), abs=1e-5)
    assert maps["heat"][0, 6, 6] == pytest.approx(0.76279, abs=1e-5)
    assert maps["heat"][0, 7, 5] == pytest.approx(0.43642, abs=1e-5)


def test_a_box_in_the_corner_is_written_whole() -> None:
    maps = targets([0, 0, 4, 3])
    assert np.argwhere(maps["weight"][0]).tolist() == [[0, 1]]
    assert maps["ltrb"][:, 0, 1].tolist() == [1, 0.75, 1, 0.75]
    assert maps["offset"][:, 0, 1].tolist() == [0, 0.75]
    assert maps["heat"][0, 0, 0] == pytest.approx(0.64620, abs=1e-5)


def test_neighbouring_targets_keep_a_peak_each() -> None:
    maps = targets([10, 12, 13, 14], [12, 12, 15, 14])
    assert np.argwhere(maps["heat"][0] == 1).tolist() == [[6, 5], [6, 6]]
    assert np.array_equal(maps["heat"] == 1, maps["weight"] == 1)


def test_of_two_targets_in_one_cell_the_later_is_written() -> None:
    maps = targets([8, 8, 12, 12], [7, 7, 13, 13])
    assert maps["weight"].sum() == (maps["heat"] == 1).sum() == 1
    assert maps["ltrb"][:, 5, 5].tolist() == [1.5, 1.5, 1.5, 1.5]


@pytest.mark.parametrize(
    ("box", "centre"),
    [([10, 10, 10, 12], [10, 11]), ([28, 8, 36, 12], [32, 10]), ([-4, 8, 0, 12], [-3, 10])],
    ids=["no width", "centre on the right border", "centre left of the image"],
)
def test_boxes_that_cannot_be_written_are_left_out(box: list[float], centre: list[float]) -> None:
    assert not any(plane.any() for plane in targets(box, centres=[centre]).values())


def test_an_image_without_boxes_gives_empty_maps() -> None:
    maps = encode(np.zeros((64, 32), np.float32), np.empty((0, 4), np.float32))
    assert {name: plane.shape for name, plane in maps.items()} == {name: (c, 32, 16) for name, c in CHANNELS.items()}
    assert all(plane.dtype == np.float32 and not plane.any() for plane in maps.values())


def test_light_moves_the_peak_and_the_box_stays() -> None:
    levels = scene(np.linspace(60, 240, 10))
    lit, plain = encode(levels, BOX[None]), encode(levels, BOX[None], light=False)
    assert np.argwhere(lit["weight"][0]).tolist() == [[7, 7]]
    assert np.argwhere(plain["weight"][0]).tolist() == [[7, 6]]
    for maps in (lit, plain):
        ((_, y, x),) = np.argwhere(maps["weight"])
        centre = np.array([x, y]) + maps["offset"][:, y, x]
        reach = maps["ltrb"][:, y, x]
        assert np.concatenate([centre - reach[:2], centre + reach[2:]]) * 2 == pytest.approx(BOX, abs=1e-5)


def test_a_crop_is_encoded_in_a_fraction_of_a_training_step() -> None:
    rng = np.random.default_rng(0)
    levels = rng.normal(100, 3, (128, 128)).astype(np.float32)
    boxes = np.array([[10, 10, 22, 21], [40, 60, 43, 62], [90, 80, 104, 92]], np.float32)
    best = min(_seconds(levels, boxes) for _ in range(20))
    assert best < 5e-3


def _seconds(levels: np.ndarray, boxes: np.ndarray) -> float:
    start = time.process_time()
    encode(levels, boxes)
    return time.process_time() - start
