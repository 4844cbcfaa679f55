"""Crops hold targets, turn with their masks, repeat exactly, and come from every source in its share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from irforge.contract import InputSpec, Normalization, Squash
from irforge.datasets import open_dataset
from irforge.train.data.augment import change_levels, random_crop, turn
from irforge.train.data.frames import Planes, load_planes, split_validation
from irforge.train.data.masks import CropDataset, WholeFrames, target_centres
from irforge.train.recipe import Augment

PLAIN = Augment(flip=False, transpose=False, target_share=1, scale_share=0, contrast_share=0, noise_share=0)


def planes(name: str = "a", count: int = 6, side: int = 64, level: int = 100) -> Planes:
    rng = np.random.default_rng(3)
    levels = np.full((count, side, side), level, np.uint8)
    masks = np.zeros((count, side, side), bool)
    for frame, mask in zip(levels, masks, strict=True):
        row, column = rng.integers(4, side - 4, 2)
        mask[row - 1 : row + 2, column - 1 : column + 2] = True
        frame[mask] = 250
    return Planes(name, levels, masks)


def spec(side: int = 32) -> InputSpec:
    return InputSpec(height=side, width=side, fit=Squash(), normalization=Normalization(mean=100, std=30))


def test_target_crops_hold_their_target() -> None:
    crops = CropDataset([planes()], [1], 40, 32, PLAIN, seed=1, epoch=0)
    for levels, mask in (crops[i] for i in range(len(crops))):
        assert levels.shape == mask.shape == (1, 32, 32)
        assert mask.sum() > 0
        assert bool(((levels == 250) == (mask == 1)).all())


@pytest.mark.parametrize("zoom", [0.8, 1.3, 2.0])
def test_zoom_changes_the_targets_area_with_its_square(zoom: float) -> None:
    source = planes(side=96, count=1)
    wanted = PLAIN.model_copy(update={"scale": (zoom, zoom), "scale_share": 1.0})
    areas = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        levels, mask = random_crop(source.levels[0], source.masks[0], 32, target_centres(source.masks[0]), wanted, rng)
        assert levels.shape == mask.shape == (32, 32)
        assert levels[mask].mean() > 150 if mask.any() else True
        areas.append(int(mask.sum()))
    assert np.median(areas) == pytest.approx(9 * zoom**2, rel=0.5)


def test_crops_larger_than_the_frame_are_filled_without_target() -> None:
    source = planes(side=32, count=1)
    rng = np.random.default_rng(0)
    levels, mask = random_crop(source.levels[0], source.masks[0], 48, target_centres(source.masks[0]), PLAIN, rng)
    assert levels.shape == (48, 48)
    assert mask.sum() == 9 and not mask[32:].any() and not mask[:, 32:].any()


def test_frames_turn_together_with_their_masks() -> None:
    source = planes(count=1)
    wanted = Augment(flip=True, transpose=True)
    seen = set()
    for seed in range(60):
        levels, mask = turn(source.levels[0], source.masks[0], wanted, np.random.default_rng(seed))
        assert np.array_equal(levels == 250, mask)
        seen.add(tuple(int(i) for i in np.argwhere(mask).mean(0)))
    assert len(seen) == 8


def test_changed_levels_stay_levels() -> None:
    rng = np.random.default_rng(0)
    wanted = Augment(contrast_share=1, gain=0.9, offset=200, noise_share=1, noise=50, blur_share=1)
    frame = rng.uniform(0, 255, (16, 16)).astype(np.float32)
    for _ in range(20):
        changed = change_levels(frame, wanted, rng)
        assert changed.dtype == np.float32 and changed.min() >= 0 and changed.max() <= 255


def test_a_sample_depends_on_seed_epoch_and_index_alone() -> None:
    def sample(seed: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        return CropDataset([planes()], [1], 8, 32, Augment(), seed, epoch)[5]

    for one, other in zip(sample(1, 2), sample(1, 2), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(sample(1, 2)[0], sample(1, 3)[0])
    assert not torch.equal(sample(1, 2)[0], sample(2, 2)[0])


def test_sources_give_their_share_and_each_frame_comes_before_any_repeats() -> None:
    crops = CropDataset([planes("a"), planes("b", count=4)], [0.75, 0.25], 16, 32, PLAIN, seed=1, epoch=0)
    drawn = [source for source, _ in crops.plan]
    assert drawn.count(0) == 12 and drawn.count(1) == 4
    assert sorted(frame for source, frame in crops.plan if source == 0) == sorted([*range(6)] * 2)


def test_without_a_number_an_epoch_has_as_many_samples_as_frames() -> None:
    assert len(CropDataset([planes(), planes()], [1, 1], 0, 32, PLAIN, seed=1, epoch=0)) == 12


def test_target_centres_are_those_of_eight_connected_targets() -> None:
    mask = np.zeros((8, 8), bool)
    mask[1, 1] = mask[2, 2] = mask[6, 5] = True
    assert target_centres(mask).tolist() == [[1.5, 1.5], [6.0, 5.0]]


def test_validation_frames_are_the_same_for_every_run_and_never_trained_on(small_data: Path) -> None:
    dataset = open_dataset(f"{small_data}:train")
    train, held = split_validation(dataset, 0.3)
    again = split_validation(dataset.subset(reversed(range(len(dataset)))), 0.3)[1]
    assert {s.id for s in held} == {s.id for s in again} and len(held)
    assert {s.id for s in train} | {s.id for s in held} == {s.id for s in dataset}
    assert not {s.id for s in train} & {s.id for s in held}


def test_prepared_frames_are_what_the_runtime_prepares(small_data: Path) -> None:
    from irforge.frames import prepare

    dataset = open_dataset(f"{small_data}:train")
    loaded = load_planes(dataset, spec(24))
    expected: list[npt.NDArray[np.uint8]] = [prepare(s.frame(), spec(24))[0][0, 0] for s in dataset]  # type: ignore[misc]
    assert np.array_equal(loaded.levels, np.stack(expected))
    assert loaded.masks.shape == (12, 24, 24) and loaded.masks.any(axis=(1, 2)).all()


def test_whole_frames_say_which_source_they_are_from() -> None:
    whole = WholeFrames([planes("a", count=2), planes("b", count=1, level=50)])
    assert [whole[i][2] for i in range(len(whole))] == [0, 0, 1]
    assert float(whole[2][0].min()) == 50
