"""LCM, MPCM and WLDM give the published formulas' values: worked examples, and the formulas pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from irforge.train.detectors.classical.contrast import AROUND, GAIN, Lcm, Mpcm, Wldm

Plane = npt.NDArray[np.float64]

CENTRE, SIDEWAYS, DIAGONAL = (12, 12), (12, 13), (13, 13)
SQUARED = (255 / GAIN) ** 2


def spot() -> Tensor:
    """25 x 25 pixels of level 40 with a target of 3 x 3 in the middle."""
    levels = torch.full((25, 25), 40.0)
    levels[11:14, 11:14] = torch.tensor([[80.0, 100, 80], [100, 160, 100], [80, 100, 80]])
    return levels[None, None] / 255


def noise(height: int = 17, width: int = 21) -> npt.NDArray[np.uint8]:
    # Few levels, so that windows of WLDM hold some more than once.
    return np.random.default_rng(0).integers(1, 12, (height, width)).astype(np.uint8) * 20


def at(frame: Plane, row: int, column: int) -> float:
    return float(frame[np.clip(row, 0, frame.shape[0] - 1), np.clip(column, 0, frame.shape[1] - 1)])


def cell(frame: Plane, row: int, column: int, side: int) -> list[float]:
    reach = side // 2
    return [at(frame, row + y, column + x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]


def test_mpcm_of_a_spot() -> None:
    found = Mpcm()(spot())[0, 0] * SQUARED
    assert found[CENTRE].item() == pytest.approx(3338.2716, rel=1e-5)
    assert found[SIDEWAYS].item() == pytest.approx(1125.9259, rel=1e-5)
    assert found[DIAGONAL].item() == pytest.approx(622.2222, rel=1e-5)
    assert found[0, 0].item() == pytest.approx(0, abs=1e-6)
    for side, value in ((3, 3338.272), (5, 432.640), (7, 112.620), (9, 41.213)):
        assert Mpcm([side])(spot())[0, 0][CENTRE].item() * SQUARED == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("side", [3, 5, 7, 9])
def test_lcm_of_a_spot_is_a_plateau(side: int) -> None:
    found = Lcm([side])(spot())[0, 0] * 255
    assert found[CENTRE].item() == pytest.approx(640, rel=1e-5)
    plateau = Lcm()(spot())[0, 0] * 255
    assert plateau[0, 0].item() == pytest.approx(40, rel=1e-5)
    assert (
        plateau[CENTRE].item() == plateau[SIDEWAYS].item() == plateau[DIAGONAL].item() == pytest.approx(640, rel=1e-5)
    )


def test_wldm_of_a_spot() -> None:
    found = Wldm()(spot())[0, 0] * SQUARED
    assert found[CENTRE].item() == pytest.approx(10163.9485, rel=1e-5)
    assert found[SIDEWAYS].item() == pytest.approx(2321.3667, rel=1e-5)
    assert found[DIAGONAL].item() == pytest.approx(2017.3427, rel=1e-5)


def lcm_at(frame: Plane, row: int, column: int, side: int) -> float:
    means = [np.mean(cell(frame, row + side * y, column + side * x, side)) for y, x in AROUND]
    return float(max(cell(frame, row, column, side)) ** 2 / max(means))


def mpcm_at(frame: Plane, row: int, column: int, side: int) -> float:
    own = np.mean(cell(frame, row, column, side))
    steps = [own - np.mean(cell(frame, row + side * y, column + side * x, side)) for y, x in AROUND]
    return float(min(steps[k] * steps[k + 4] for k in range(4)))


def wldm_at(frame: Plane, row: int, column: int) -> float:
    means = [np.mean(cell(frame, row, column, 2 * k + 1)) for k in range(1, 5)]
    contrast = max((mean - means[-1]) ** 2 for mean in means[:-1]) / (max(means) - min(means)) ** 2
    values, counts = np.unique(cell(frame, row, column, 5), return_counts=True)
    shares = counts / 25
    return float(contrast * -((values - frame[row, column]) ** 2 * shares * np.log2(shares)).sum())


@pytest.mark.parametrize(
    ("method", "formula", "unit"),
    [
        (Lcm([3, 5]), lambda *where: max(lcm_at(*where, side) for side in (3, 5)), 255),
        (Mpcm([3, 5]), lambda *where: max(mpcm_at(*where, side) for side in (3, 5)), SQUARED),
        (Wldm(), wldm_at, SQUARED),
    ],
    ids=["lcm", "mpcm", "wldm"],
)
def test_every_pixel_up_to_the_border_follows_the_formula(
    method: torch.nn.Module, formula: Callable[..., float], unit: float
) -> None:
    frame = noise()
    found = method(torch.from_numpy(frame)[None, None] / 255)[0, 0].numpy() * unit
    expected = [[formula(frame.astype(float), row, column) for column in range(21)] for row in range(17)]
    assert np.allclose(found, expected, rtol=1e-3, atol=2e-2)


def test_a_dark_target_responds_unless_only_bright_ones_are_wanted() -> None:
    dark = 200 / 255 - spot()
    assert Mpcm()(dark)[0, 0][CENTRE].item() * SQUARED == pytest.approx(3338.2716, rel=1e-4)
    assert Mpcm(bright_only=True)(dark)[0, 0][CENTRE].item() == 0
    bright = Mpcm(bright_only=True)(spot())[0, 0]
    assert bright[CENTRE].item() * SQUARED == pytest.approx(3338.2716, rel=1e-5)


def test_a_speck_on_black_does_not_stand_out_without_end() -> None:
    levels = torch.zeros(1, 1, 32, 32)
    levels[..., 16, 16] = 1 / 255
    assert Lcm()(levels).max().item() == pytest.approx(1 / 255)


@pytest.mark.parametrize("method", [Lcm, Mpcm, Wldm])
def test_frames_of_a_batch_do_not_touch(method: Callable[[], torch.nn.Module]) -> None:
    pair = torch.cat([spot(), torch.rand(1, 1, 25, 25, generator=torch.Generator().manual_seed(0))])
    assert torch.allclose(method()(pair)[:1], method()(spot()))


@pytest.mark.parametrize("cells", [[], [4], [1], [3, -5], [3.0]])
def test_cells_that_have_no_middle_are_refused(cells: list[int]) -> None:
    for method in (Lcm, Mpcm):
        with pytest.raises(ValueError, match="odd sides"):
            method(cells)
