"""IPI, NIPPS and RIPT find what the published algorithms find, in as many steps, on SIRST-V2's Misc_10."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from irforge.frames import read_frame, to_gray
from irforge.train.detectors.classical.lowrank import (
    Ipi,
    Nipps,
    accelerated_gradient,
    augmented_lagrangian,
    free_values,
    shrink,
)
from irforge.train.detectors.classical.patches import Patches, corners
from irforge.train.detectors.classical.ript import Ript, edgeness, reweighted_split

Plane = npt.NDArray[np.float64]

MISC_10 = Path(os.environ.get("IRFORGE_DATA", "")) / "sirst_v2" / "mixed" / "Misc_10.png"
needs_data = pytest.mark.skipif(not MISC_10.is_file(), reason="SIRST-V2 is not under IRFORGE_DATA")


@pytest.fixture(scope="module")
def misc_10() -> Plane:
    return to_gray(read_frame(MISC_10), "luma").astype(np.float64)


def peak(plane: Plane) -> tuple[int, int, float]:
    """x, y and value of the highest pixel."""
    y, x = divmod(int(plane.argmax()), plane.shape[1])
    return x, y, float(plane[y, x])


@needs_data
@pytest.mark.slow
def test_nipps_of_misc_10(misc_10: Plane) -> None:
    patches = Patches(misc_10.shape, 50, 10)
    data = patches.gather(misc_10).reshape(2500, -1)
    assert data.shape == (2500, 560)
    assert free_values(data, 0.005) == 12
    found = augmented_lagrangian(data, 2 / 560**0.5, free=12, signed=False)
    assert found.iterations == 28
    plane = patches.mean(found.targets.reshape(50, 50, -1))
    assert peak(plane) == (61, 104, pytest.approx(77.93, abs=0.005))
    # The same as a detector, whose levels are shares of 255.
    assert np.allclose(255 * Nipps().targets(misc_10 / 255), plane, atol=1e-3)


@needs_data
@pytest.mark.slow
def test_ipi_of_misc_10_by_the_augmented_lagrangian(misc_10: Plane) -> None:
    patches = Patches(misc_10.shape, 50, 10)
    found = augmented_lagrangian(patches.gather(misc_10).reshape(2500, -1), 1 / 560**0.5)
    assert found.iterations == 30
    assert peak(patches.mean(found.targets.reshape(50, 50, -1))) == (60, 102, pytest.approx(101.55, abs=0.005))


@needs_data
def test_ript_of_misc_10(misc_10: Plane) -> None:
    patches = Patches(misc_10.shape, 30, 10)
    data = patches.gather(misc_10)
    assert data.shape == (30, 30, 660)
    found = reweighted_split(data, 0.7 / 30**0.5, np.exp(patches.gather(edgeness(misc_10))), 0.01)
    assert (found.iterations, np.count_nonzero(found.targets)) == (3, 177)
    plane = patches.mean(found.targets)
    assert peak(plane) == (59, 102, pytest.approx(32.19, abs=0.005))
    assert np.allclose(255 * Ript().targets(misc_10 / 255), plane, atol=1e-3)


def planted(seed: int = 0) -> tuple[Plane, Plane]:
    """A background of rank 2 and 30 bright targets, 60 x 80."""
    rng = np.random.default_rng(seed)
    background = rng.random((60, 2)) @ rng.random((2, 80))
    targets = np.zeros((60, 80))
    targets.flat[rng.choice(targets.size, 30, replace=False)] = 0.5 + rng.random(30)
    return background, targets


def test_what_was_planted_is_found() -> None:
    background, targets = planted()
    found = augmented_lagrangian(background + targets, 1 / 80**0.5)
    assert np.abs(found.targets - targets).max() < 0.02
    assert np.abs(found.background - background).max() < 0.02


def test_the_authors_solver_finds_the_same_pixels_before_it_ends_early() -> None:
    background, targets = planted()
    found = accelerated_gradient(background + targets, 1 / 80**0.5)
    assert set(np.argsort(-found.targets.ravel())[:30]) == set(np.flatnonzero(targets))
    assert np.abs(background + targets - found.background - found.targets).max() < 0.2


def test_dark_targets_are_left_out_where_only_bright_ones_are_wanted() -> None:
    background, targets = planted()
    data = background - targets
    assert np.abs(augmented_lagrangian(data, 1 / 80**0.5).targets + targets).max() < 0.02
    bright = augmented_lagrangian(data, 1 / 80**0.5, signed=False).targets
    assert bright.min() == 0 and not bright[targets > 0].any()


def test_shrinking_is_that_of_the_singular_values() -> None:
    for shape in ((20, 30), (30, 20)):
        data = np.random.default_rng(1).standard_normal(shape)
        left, values, right = np.linalg.svd(data, full_matrices=False)
        for free in (0, 3):
            shrunk = np.where(np.arange(20) < free, values, np.maximum(values - 4, 0))
            found, rank = shrink(data, 4.0, free)
            assert np.allclose(found, (left * shrunk) @ right)
            assert rank == np.count_nonzero(shrunk)


@pytest.mark.parametrize(("length", "expected"), [(50, [0]), (70, [0, 10, 20]), (73, [0, 10, 20, 23])])
def test_the_last_patch_ends_at_the_border(length: int, expected: list[int]) -> None:
    assert corners(length, 50, 10) == expected


@pytest.mark.parametrize("shape", [(50, 50), (33, 47), (20, 61)])
@pytest.mark.parametrize("step", [3, 10])
def test_a_frame_comes_back_from_its_patches(shape: tuple[int, int], step: int) -> None:
    frame = np.random.default_rng(2).random(shape)
    patches = Patches(shape, 24, step)
    stack = patches.gather(frame)
    assert stack.shape == (min(24, *shape), min(24, *shape), len(patches))
    assert np.allclose(patches.mean(stack), frame) and np.allclose(patches.median(stack), frame)


def test_mean_and_median_are_those_of_the_patches_over_each_pixel() -> None:
    patches = Patches((11, 13), 5, 2)
    stack = np.random.default_rng(3).random((5, 5, len(patches)))
    over: dict[tuple[int, int], list[float]] = {}
    corners_of = [(row, column) for row in patches.rows for column in patches.columns]
    for n, (row, column) in enumerate(corners_of):
        for y in range(5):
            for x in range(5):
                over.setdefault((row + y, column + x), []).append(stack[y, x, n])
    mean, median = patches.mean(stack), patches.median(stack)
    assert len(over) == 11 * 13
    for where, values in over.items():
        assert mean[where] == pytest.approx(np.mean(values))
        assert median[where] == pytest.approx(np.median(values))


@pytest.mark.parametrize("method", [Ipi(24, 8), Ipi(24, 8, "ialm"), Nipps(24, 8), Ript(16, 8)])
def test_a_plain_frame_has_no_targets_and_a_black_one_neither(method: Ipi | Nipps | Ript) -> None:
    for level in (0.0, 0.4):
        assert np.abs(method.targets(np.full((40, 48), level))).max() < method.floor


@pytest.mark.parametrize("shape", [(32, 120), (120, 32)])
def test_a_step_beyond_the_side_of_a_small_frame_leaves_no_gaps(shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(4).random(shape)
    patches = Patches(shape, 50, 40)
    stack = patches.gather(frame)
    assert np.allclose(patches.mean(stack), frame) and np.allclose(patches.median(stack), frame)
    for method in (Ipi(50, 40), Nipps(50, 40), Ript(50, 40)):
        assert np.isfinite(method.targets(frame)).all()


@pytest.mark.parametrize("options", [{"patch": 1}, {"step": 0}, {"patch": 20, "step": 21}])
def test_patches_that_leave_gaps_are_refused(options: dict[str, int]) -> None:
    for method in (Ipi, Nipps, Ript):
        with pytest.raises(ValueError, match="do not cover"):
            method(**options)
