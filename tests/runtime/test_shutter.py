"""Promises of the recognition of a camera's shutter: no scene is taken for one, however little there is to see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from irforge.runtime.shutter import Shutter
from irforge.runtime.sources import SourceFrame

HEIGHT, WIDTH = 96, 128


def flagged(frames: Sequence[np.ndarray], shutter: Shutter | None = None) -> list[int]:
    shutter = shutter or Shutter()
    return [k for k, frame in enumerate(frames) if shutter(SourceFrame(k, "clip", None, frame)).shutter]


def shown(levels: np.ndarray, depth: int, noise: float, random: np.random.Generator) -> np.ndarray:
    """Levels as a sensor gives them."""
    noisy = np.rint(levels + random.normal(0, noise, levels.shape))
    return np.clip(noisy, 0, (1 << depth) - 1).astype(np.uint8 if depth == 8 else np.uint16)


def sky(count: int, depth: int = 8, slope: float = 0.0) -> list[np.ndarray]:
    """What is there to see: a sky that gets darker upwards by `slope` levels, drifts, and has a target of 3 pixels."""
    base = 90.0 if depth == 8 else 4000.0
    scenes = []
    for k in range(count):
        levels = base + 0.03 * k + slope * np.linspace(0, 1, HEIGHT)[:, None] + np.zeros((HEIGHT, WIDTH))
        levels[40:43, 10 + k // 4 : 13 + k // 4] += 20
        scenes.append(levels)
    return scenes


def with_shutter(scenes: list[np.ndarray], closed: Sequence[float], step: float, at: int) -> list[np.ndarray]:
    """The scene gone from frame `at` on, a flat field of these levels instead, and then an offset on all levels."""
    flats = [np.full(scenes[0].shape, level) for level in closed]
    return [*scenes[:at], *flats, *(levels + step for levels in scenes[at + len(flats) :])]


@pytest.mark.parametrize("slope", [0, 6])
@pytest.mark.parametrize("noise", [1, 2])
@pytest.mark.parametrize("depth", [8, 14])
def test_a_sky_with_a_target_is_no_shutter(depth: int, noise: float, slope: float) -> None:
    random = np.random.default_rng(0)
    assert flagged([shown(levels, depth, noise, random) for levels in sky(200, depth, slope)]) == []


@pytest.mark.parametrize("slope", [0, 6])
@pytest.mark.parametrize("noise", [1, 2])
@pytest.mark.parametrize("depth", [8, 14])
def test_a_shutter_before_a_sky_is_seen_from_its_first_frame_to_its_last(
    depth: int, noise: float, slope: float
) -> None:
    random = np.random.default_rng(0)
    base = 90 if depth == 8 else 4000
    # New offsets come while it is closed, and stay.
    closed = [base + 40.0] * 8 + [base + 30.0] * 4
    levels = with_shutter(sky(100, depth, slope), closed, step=7, at=40)
    assert flagged([shown(one, depth, noise, random) for one in levels]) == list(range(40, 52))


def test_a_repeated_frame_and_a_flat_one_are_flagged_and_no_other() -> None:
    random = np.random.default_rng(1)
    hills = 8000 + 800 * np.sin(np.linspace(0, 9, WIDTH)) * np.sin(np.linspace(0, 7, HEIGHT))[:, None]
    frames = [shown(hills, 14, 12, random) for _ in range(30)]
    for index in (10, 11, 12):
        frames[index] = frames[9].copy()
    for index in (20, 21):
        frames[index] = shown(np.full_like(hills, 8300), 14, 12, random)
    assert flagged(frames) == [10, 11, 12, 20, 21]


def test_a_step_of_the_offset_after_a_picture_that_stood_still_is_no_shutter() -> None:
    random = np.random.default_rng(0)
    frames = [shown(levels + 9 * (k >= 30), 8, 1.5, random) for k, levels in enumerate(sky(60))]
    frames[20:30] = [frames[19]] * 10
    assert flagged(frames) == list(range(20, 30))


def test_a_step_of_the_offset_leaves_the_picture_and_is_no_shutter() -> None:
    random = np.random.default_rng(0)
    scenes = sky(60, slope=6)
    assert flagged([shown(levels + 12 * (k >= 30), 8, 1.5, random) for k, levels in enumerate(scenes)]) == []


@pytest.mark.parametrize("speed", [4, 24])
def test_a_camera_that_turns_to_the_sky_has_no_shutter(speed: int) -> None:
    random = np.random.default_rng(0)
    rows = np.arange(900)[:, None]
    ground = 60 + 25 * np.sin(rows / 9) * np.sin(np.arange(WIDTH) / 7)
    world = np.where(rows < 450, 120 + rows / 200, ground)
    tops = [*range(600, 100, -speed), *[100] * 20]
    assert flagged([shown(world[top : top + HEIGHT], 8, 1.5, random) for top in tops]) == []


def test_a_blade_seen_half_way_is_neither_missed_nor_held_on_to() -> None:
    random = np.random.default_rng(0)
    levels = with_shutter(sky(60), [130.0] * 8, step=5, at=20)
    for index, part in ((20, 0.5), (27, 0.8)):
        levels[index] = np.where(np.arange(WIDTH) < part * WIDTH, 130.0, levels[0])
    assert flagged([shown(one, 8, 1.5, random) for one in levels]) == list(range(21, 27))


def test_dead_pixels_do_not_hide_a_shutter() -> None:
    random = np.random.default_rng(0)
    frames = [shown(one, 14, 2, random) for one in with_shutter(sky(40, 14, 6), [4300.0] * 6, step=5, at=20)]
    dead = random.random((HEIGHT, WIDTH)) < 0.0005
    for frame in frames:
        frame[dead] = 0
    assert flagged(frames) == list(range(20, 26))


def test_a_scene_that_stays_flat_is_a_scene() -> None:
    random = np.random.default_rng(0)
    hills = 8000 + 300 * np.sin(np.linspace(0, 9, WIDTH)) * np.ones((HEIGHT, 1))
    levels = [hills] * 5 + [np.full_like(hills, 8400)] * 40 + [hills] * 5
    frames = [shown(one, 14, 10, random) for one in levels]
    assert flagged(frames, Shutter(longest=20)) == list(range(5, 25))


def test_a_resolution_change_is_no_shutter() -> None:
    random = np.random.default_rng(0)
    frames = [shown(np.full((side, 64), 100.0 + side), 8, 1, random) for side in (48, 48, 48, 60, 60, 60)]
    assert flagged(frames) == []
