"""RoIAlign against its definition written out in NumPy, in both forms."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from irforge.train.ops.roi_align import pool_boxes, roi_align

Array = npt.NDArray[np.float64]
SCALE = 1 / 16


def sample(plane: Array, y: float, x: float) -> float:
    """One bilinear sample; 0 further than a cell outside, the border's value nearer."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
    lower = plane[bottom, left] * (1 - (x - left)) + plane[bottom, right] * (x - left)
    return float(upper * (1 - (y - top)) + lower * (y - top))


def defined(plane: Array, box: Array, bins: int, scale: float, sampling: int) -> Array:
    x0, y0, x1, y1 = box * scale - 0.5
    high, wide = (y1 - y0) / bins, (x1 - x0) / bins
    down, across = (sampling, sampling) if sampling else (math.ceil(high), math.ceil(wide))
    found = np.zeros((bins, bins))
    for i in range(bins):
        for j in range(bins):
            found[i, j] = np.mean(
                [
                    sample(plane, y0 + (i + (m + 0.5) / down) * high, x0 + (j + (n + 0.5) / across) * wide)
                    for m in range(down)
                    for n in range(across)
                ]
            )
    return found


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    return torch.rand(2, 3, 9, 13, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def boxes() -> torch.Tensor:
    """Inside, one cell large, over the whole map, less than a cell, at the far corner."""
    rows = [[20, 10, 150, 100], [32, 48, 48, 64], [0, 0, 208, 144], [100, 60, 103, 64], [190, 120, 208, 144]]
    return torch.tensor([rows, rows[::-1]], dtype=torch.float32)


@pytest.mark.parametrize("sampling", [0, 2, 3])
def test_training_pools_what_the_definition_says(maps: torch.Tensor, boxes: torch.Tensor, sampling: int) -> None:
    found = pool_boxes(maps[0], boxes[0], 7, SCALE, sampling).numpy()
    for box, pooled in zip(boxes[0].double().numpy(), found, strict=True):
        for plane, one in zip(maps[0].double().numpy(), pooled, strict=True):
            np.testing.assert_allclose(one, defined(plane, box, 7, SCALE, sampling), atol=1e-5)


def test_samples_far_outside_count_as_zero_in_training(maps: torch.Tensor) -> None:
    box = torch.tensor([[-100.0, -80, 260, 200]])
    found = pool_boxes(maps[0], box, 7, SCALE).numpy()[0, 0]
    np.testing.assert_allclose(found, defined(maps[0, 0].double().numpy(), box[0].numpy(), 7, SCALE, 0), atol=1e-5)


@pytest.mark.parametrize("every", [1, 2])
def test_the_deployed_form_equals_training_at_the_same_samples(
    maps: torch.Tensor, boxes: torch.Tensor, every: int
) -> None:
    found = roi_align(maps, boxes, SCALE, 7, every, 2)
    expected = torch.cat([pool_boxes(m, b, 7, SCALE, 2) for m, b in zip(maps, boxes, strict=True)])
    assert torch.allclose(found, expected[:, :, ::every, ::every], atol=1e-5)


@pytest.mark.parametrize("sampling", [1, 2, 4])
def test_on_a_ramp_every_bin_is_the_ramp_at_its_centre(sampling: int) -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    ramp = (0.5 * x - 0.25 * y + 3)[None]
    box = torch.tensor([[100.0, 70, 340, 230]])
    centres = torch.arange(7) + 0.5
    across, down = 100 / 16 + 240 / 16 / 7 * centres - 0.5, 70 / 16 + 160 / 16 / 7 * centres - 0.5
    expected = 0.5 * across[None] - 0.25 * down[:, None] + 3
    assert torch.allclose(pool_boxes(ramp, box, 7, SCALE, sampling)[0, 0], expected, atol=1e-5)
    assert torch.allclose(roi_align(ramp[None], box[None], SCALE, 7, 1, sampling)[0, 0], expected, atol=1e-5)
    assert torch.allclose(pool_boxes(ramp, box, 7, SCALE)[0, 0], expected, atol=1e-5)


def test_the_gradient_is_that_of_the_definition(boxes: torch.Tensor) -> None:
    x = torch.rand(2, 9, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: pool_boxes(m, boxes[0], 3, SCALE), (x,), eps=1e-6, atol=1e-5)


def test_no_box_gives_no_bins_and_one_without_area_empty_ones(maps: torch.Tensor) -> None:
    assert pool_boxes(maps[0], torch.zeros(0, 4), 7, SCALE).shape == (0, 3, 7, 7)
    assert not pool_boxes(maps[0], torch.full((1, 4), 16.0), 7, SCALE).any()


def test_many_boxes_are_pooled_in_parts_with_the_same_result(
    maps: torch.Tensor, boxes: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pool_boxes(maps[0], boxes[0], 7, SCALE)
    monkeypatch.setattr("irforge.train.ops.roi_align.CHUNK", 7 * 3 * 13 * 2)
    assert torch.allclose(pool_boxes(maps[0], boxes[0], 7, SCALE), whole, atol=1e-6)


def test_half_maps_are_pooled_in_float32_and_rounded_once(maps: torch.Tensor, boxes: torch.Tensor) -> None:
    half = roi_align(maps.half(), boxes, SCALE, 7)
    assert half.dtype == torch.float16
    assert torch.equal(half, roi_align(maps.half().float(), boxes, SCALE, 7).half())
    with pytest.raises(TypeError, match="float32"):
        roi_align(maps, boxes.half(), SCALE, 7)
