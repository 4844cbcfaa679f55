"""FKRW: walks solve the Dirichlet problem; targets of some pixels stand out, single pixels and edges do not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from irforge.train.detectors.classical.fkrw import FACET, Fkrw, smoothed, walk_contrast, walk_probability


def levels_with(rows: slice, columns: slice, level: float = 0.8) -> Tensor:
    levels = torch.full((1, 1, 48, 64), 0.3)
    levels[..., rows, columns] = level
    return levels


def test_the_facet_kernel_ignores_the_level_and_the_slope() -> None:
    kernel = np.array(FACET)
    rows, columns = np.mgrid[:5, :5]
    assert [int((kernel * plane).sum()) for plane in (np.ones((5, 5)), rows, columns)] == [0, 0, 0]
    assert (kernel == kernel.T).all() and (kernel == kernel[::-1]).all()


def test_the_border_is_mirrored_without_its_edge() -> None:
    levels = torch.rand(1, 1, 12, 15, generator=torch.Generator().manual_seed(1))
    found = Fkrw(walk=False)(levels)[0, 0].numpy()
    smooth = np.pad(smoothed(levels)[0, 0].numpy().astype(float), 2, mode="reflect")
    expected = [[(smooth[y : y + 5, x : x + 5] * FACET).sum() for x in range(15)] for y in range(12)]
    assert np.allclose(found, expected, atol=1e-5)


def test_a_walk_solves_the_dirichlet_problem() -> None:
    patch = np.random.default_rng(0).random((11, 11)) * 0.02
    found = walk_probability(patch, 200.0)
    assert found[5, 5] == 1
    border = np.ones_like(found, bool)
    border[1:-1, 1:-1] = False
    assert not found[border].any()
    for y, x in np.argwhere(~border):
        if (y, x) == (5, 5):
            continue
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        weights = [np.exp(-200 * abs(patch[y, x] - patch[one])) + 1e-5 for one in near]
        mean = sum(w * found[one] for w, one in zip(weights, near, strict=True)) / sum(weights)
        assert abs(found[y, x] - mean) < 1e-9


def test_a_walk_fills_its_target_and_its_contrast_is_the_formulas() -> None:
    patch = np.full((11, 11), 0.3)
    patch[4:7, 4:7] = 0.6
    probability = walk_probability(patch, 200.0)
    target = probability > 0.5
    assert (target == (patch > 0.5)).all()
    others = target.copy()
    others[5, 5] = False
    expected = probability[others].mean() / probability[~target].mean() * 2.0**6
    assert np.isclose(walk_contrast(patch, probability, target, 6.0), expected)
    alone = np.zeros_like(target)
    alone[5, 5] = True
    assert walk_contrast(patch, probability, alone, 6.0) == 0
    patch[0:11, 8] = 0.7
    assert walk_contrast(patch, probability, target, 6.0) == 0


def test_a_small_target_stands_out_and_an_edge_does_not() -> None:
    levels = levels_with(slice(20, 23), slice(30, 33))
    levels[..., 40:, :] = 0.9
    found = Fkrw()(levels)[0, 0]
    row, column = divmod(int(found.argmax()), 64)
    # Means of 2 x 2 pixels move a target by half a pixel, up and left.
    assert row in (20, 21) and column in (30, 31)
    assert found[36:].abs().max() < 1e-3 * found.max()
    assert (Fkrw(walk=False)(levels)[0, 0, 36:].max()) > 0.1


def test_a_single_pixel_is_noise() -> None:
    assert not Fkrw()(levels_with(slice(20, 21), slice(30, 31))).any()
