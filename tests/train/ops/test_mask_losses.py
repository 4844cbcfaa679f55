"""Golden values of the SLS loss as published, its edge cases, and the other mask losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from irforge.train.ops.mask_losses import (
    batch_iou_loss,
    bce_loss,
    deep_supervision,
    dice_loss,
    location_loss,
    mixed_loss,
    scale_weight,
    sls_loss,
    soft_iou_loss,
)


def square(rows: slice, columns: slice, inside: float, outside: float, side: int = 4) -> Tensor:
    plane = torch.full((1, 1, side, side), outside, dtype=torch.float64)
    plane[..., rows, columns] = inside
    return plane


TARGET = square(slice(1, 3), slice(1, 3), 1, 0)
EMPTY = torch.zeros_like(TARGET)
CASES = {
    "A1": (square(slice(1, 3), slice(1, 3), 0.9, 0.1), TARGET, 0.307692, 0.586022),
    "A2": (square(slice(1, 3), slice(2, 4), 0.9, 0.1), TARGET, 0.705882, 1.095610),
    "A3": (square(slice(2, 4), slice(2, 4), 0.9, 0.1), TARGET, 0.842105, 1.290649),
    "A4": (0.5 * TARGET, TARGET, 0.5, 1.2),
    "A5": (torch.full_like(TARGET, 0.1), EMPTY, 1.0, 2.248114),
}


def logits(p: Tensor) -> Tensor:
    return torch.logit(p.clamp(1e-300, 1 - 1e-16))


@pytest.mark.parametrize("case", CASES)
def test_published_loss_has_its_golden_values(case: str) -> None:
    p, y, warm, full = CASES[case]
    assert float(sls_loss(logits(p), y, warm=True)) == pytest.approx(warm, abs=1e-6)
    assert float(sls_loss(logits(p), y, warm=False)) == pytest.approx(full, abs=1e-6)


def test_batch_is_the_mean_over_images() -> None:
    p = torch.cat([CASES["A1"][0], CASES["A5"][0]])
    y = torch.cat([TARGET, EMPTY])
    assert float(sls_loss(logits(p), y, warm=True)) == pytest.approx(0.653846, abs=1e-6)
    assert float(sls_loss(logits(p), y, warm=False)) == pytest.approx(1.417068, abs=1e-6)


@pytest.mark.parametrize(
    ("case", "expected"), [("A1", 1 / 6), ("A2", 0.342289), ("A3", 0.423077), ("A4", 0.5), ("A5", 1.248114)]
)
def test_location_term_has_its_golden_values(case: str, expected: float) -> None:
    p, y, _, _ = CASES[case]
    assert float(location_loss(p, y)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("true", "predicted", "weight"),
    [
        *((100, 0, 0.9615), (100, 60, 0.92), (100, 75, 0.9024), (100, 90, 0.92), (100, 100, 1), (100, 110, 0.9259)),
        *((100, 200, 0.963), (100, 1000, 0.9956), (9, 0, 0.6923), (9, 4.5, 0.68), (9, 9, 1), (9, 18, 0.7647)),
        *((9, 90, 0.9532), (4, 0, 0.5), (4, 2, 0.6), (4, 8, 0.6667)),
    ],
)
def test_scale_weight_has_its_golden_values(true: float, predicted: float, weight: float) -> None:
    assert float(scale_weight(torch.tensor(predicted), torch.tensor(true))) == pytest.approx(weight, abs=5e-5)


def test_scale_weight_has_its_minimum_where_the_closed_form_says() -> None:
    areas = torch.arange(1, 1000, dtype=torch.float64) / 10
    weights = scale_weight(areas, torch.tensor(100.0, dtype=torch.float64))
    assert float(areas[weights.argmin()]) == pytest.approx(100 - 2 * 10)
    assert float(weights.min()) == pytest.approx(1 - 1 / 10)


def frame(row: int, column: int, p: float = 1.0) -> Tensor:
    return square(slice(row, row + 3), slice(column, column + 3), p, 0, side=256)


@pytest.mark.parametrize(
    ("prediction", "expected", "tolerance"),
    [
        (frame(127, 127), 7.17e-5, 1e-7),
        (frame(127, 131), 0.00778, 1e-5),
        (frame(127, 191), 0.1399, 1e-4),
        (frame(63, 63), 0.2026, 1e-4),
        (frame(0, 0), 0.2827, 1e-4),
        (frame(252, 0), 0.4207, 1e-4),
        (frame(127, 127, 0.5), 0.2026, 1e-4),
        (frame(127, 127, 0.9), 0.0473, 1e-4),
        (frame(127, 127).clamp_min(1e-5), 0.0347, 1e-4),
        (frame(127, 127).clamp_min(1e-4), 0.2856, 1e-4),
        (frame(127, 127).clamp_min(1e-3), 0.8274, 1e-4),
        (torch.full((1, 1, 256, 256), 0.5, dtype=torch.float64), 0.9996, 1e-4),
    ],
)
def test_location_of_a_three_pixel_target_in_a_whole_frame(
    prediction: Tensor, expected: float, tolerance: float
) -> None:
    assert float(location_loss(prediction, frame(127, 127))) == pytest.approx(expected, abs=tolerance)


def test_published_location_confuses_mass_and_place_and_the_centroid_does_not() -> None:
    half, target = frame(127, 127, 0.5), frame(127, 127)
    assert float(location_loss(half, target, "moment")) > 0.2
    assert float(location_loss(half, target, "centroid")) == pytest.approx(0, abs=1e-9)
    assert float(location_loss(frame(63, 63), target, "centroid")) > 0.2


def test_location_can_be_left_out() -> None:
    p, y, _, full = CASES["A1"]
    without = float(sls_loss(logits(p), y, warm=False, location="none"))
    assert without == pytest.approx(full - 1 / 6, abs=1e-6)


def test_empty_mask_gives_no_gradient_as_published_and_one_with_null_risk() -> None:
    z = torch.zeros(1, 1, 4, 4, requires_grad=True)
    (legacy,) = torch.autograd.grad(sls_loss(z, torch.zeros_like(z), warm=True), z)
    (risk,) = torch.autograd.grad(sls_loss(z, torch.zeros_like(z), warm=True, empty="null-risk"), z)
    assert torch.count_nonzero(legacy) == 0
    assert bool((risk > 0).all())


def test_vanished_prediction_on_an_empty_mask_is_not_nan() -> None:
    z = torch.full((1, 1, 4, 4), -1000.0, requires_grad=True)
    for warm in (True, False):
        loss = sls_loss(z, torch.zeros_like(z), warm=warm)
        loss.backward()
        assert math.isfinite(loss.item())
        assert z.grad is not None and bool(torch.isfinite(z.grad).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_scored_in_float32(dtype: torch.dtype) -> None:
    z = torch.zeros(1, 1, 64, 64, dtype=dtype)
    y = torch.zeros(1, 1, 64, 64)
    y[..., 0, 0] = 1
    loss = sls_loss(z, y, warm=False)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(sls_loss(z.float(), y, warm=False)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(mixed_loss(z, y, warm=False)) == pytest.approx(float(loss))


@pytest.mark.parametrize(("case", "expected"), [("A1", 0.258065), ("A2", 0.615385), ("A5", 0.615385)])
def test_soft_iou_has_its_golden_values(case: str, expected: float) -> None:
    p, y, _, _ = CASES[case]
    assert float(soft_iou_loss(logits(p), y)) == pytest.approx(expected, abs=1e-6)


def test_dice_of_a_perfect_prediction_is_zero() -> None:
    assert float(dice_loss(logits(TARGET), TARGET)) == pytest.approx(0, abs=1e-9)
    assert float(dice_loss(logits(CASES["A1"][0]), TARGET)) == pytest.approx(1 - (2 * 3.6 + 1) / (4.8 + 4 + 1))


def test_batch_iou_pools_areas_before_dividing() -> None:
    p = torch.cat([CASES["A1"][0], CASES["A4"][0]])
    y = torch.cat([TARGET, TARGET])
    assert float(batch_iou_loss(logits(p), y)) == pytest.approx(1 - (5.6 + 1) / (4.8 + 2 + 8 - 5.6 + 1))


def test_positive_weight_multiplies_target_pixels_only() -> None:
    z = torch.zeros(1, 1, 4, 4)
    assert float(bce_loss(z, TARGET)) == pytest.approx(math.log(2))
    assert float(bce_loss(z, TARGET, 5.0)) == pytest.approx(math.log(2) * (12 + 4 * 5) / 16)


def test_each_head_is_held_to_the_mask_pooled_to_its_scale() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 5, 9] = 1
    seen: list[tuple[int, tuple[int, int]]] = []

    def recorder(head: Tensor, target: Tensor) -> Tensor:
        row, column = target[0, 0].nonzero()[0].tolist()
        seen.append((head.shape[-1], (row, column)))
        return head.new_tensor(float(head.shape[-1]))

    heads = [torch.zeros(1, 1, 16 >> k, 16 >> k) for k in range(4)]
    loss = deep_supervision(heads, torch.zeros(1, 1, 16, 16), mask, recorder)
    assert seen == [(16, (5, 9)), (16, (5, 9)), (8, (2, 4)), (4, (1, 2)), (2, (0, 1))]
    assert float(loss) == pytest.approx((16 + 16 + 8 + 4 + 2) / 5)


def test_published_training_is_the_default_mixture() -> None:
    p, y, warm, full = CASES["A2"]
    assert float(mixed_loss(logits(p), y, warm=True)) == pytest.approx(warm, abs=1e-6)
    assert float(mixed_loss(logits(p), y, warm=False)) == pytest.approx(full, abs=1e-6)
