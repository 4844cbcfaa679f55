"""BNRL: golden values of both forms, and float32 that says what float64 says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from irforge.train.detectors.risf.loss import BackgroundNegativeRescaleLoss, log_probabilities

LOGITS = [[2, 0.5, -1, 0, 1], [0, 0, 0, 0, 3], [1, -2, 4, 0.5, 0], [0, 0, 0, 0, 0], [-1, 3, 2, 0, 2.5]]
LABELS = torch.tensor([0, 4, 2, 1, 4])
POSITIVE = [0.0209452, 2.76305e-5, 6.74574e-6, 0.6592258, 0.0593267]
NEGATIVE = [0.0333154, 0.0070424, 0.0029173, 0.1428118, 0.3657241]
GRADIENT = {
    0: [-8.7651e-3, 4.9195e-3, 1.0806e-4, 1.5673e-3, 2.1702e-3],
    4: [-1.1769e-3, 6.2153e-2, -1.2106e-2, -3.0759e-3, -4.5795e-2],
}
bnrl = BackgroundNegativeRescaleLoss()
only_positive = BackgroundNegativeRescaleLoss(alpha=1)
only_negative = BackgroundNegativeRescaleLoss(alpha=0)


def rows(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(LOGITS, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_intended_form(dtype: torch.dtype) -> None:
    logits = rows(dtype)
    loss = bnrl(logits, LABELS)
    assert loss.item() == pytest.approx(0.117871, abs=5e-7)
    (gradient,) = torch.autograd.grad(loss, logits)
    for row, expected in GRADIENT.items():
        torch.testing.assert_close(gradient[row], torch.tensor(expected, dtype=dtype), rtol=1e-4, atol=5e-8)


def test_its_two_terms() -> None:
    logits = rows()
    for row in range(5):
        one, label = logits[row : row + 1], LABELS[row : row + 1]
        assert only_positive(one, label).item() == pytest.approx(POSITIVE[row], rel=2e-5)
        assert only_negative(one, label).item() == pytest.approx(NEGATIVE[row], rel=2e-5)


@pytest.mark.parametrize(
    ("classes", "label", "positive", "negative", "whole"),
    [
        (4, 0, 0.659226, 0.142812, 0.246095),
        (4, 4, 0.131845, 0.178515, 0.169181),
        (20, 0, 2.504736, 0.044608, 0.536634),
        (20, 20, 0.500947, 0.046467, 0.137363),
    ],
)
def test_a_row_that_knows_nothing(classes: int, label: int, positive: float, negative: float, whole: float) -> None:
    logits, labels = torch.zeros(1, classes + 1), torch.tensor([label])
    found = [loss(logits, labels).item() for loss in (only_positive, only_negative, bnrl)]
    assert found == pytest.approx([positive, negative, whole], abs=1e-6)


def test_the_legacy_form_is_what_the_published_code_runs() -> None:
    loss = BackgroundNegativeRescaleLoss(legacy=True)(rows(), LABELS).item()
    assert loss == pytest.approx(0.511810, abs=1e-6)
    weights = torch.tensor([1, 1, 1, 1, 0.2], dtype=torch.float64)
    averaged = F.cross_entropy(rows(), LABELS, weights).item()
    assert averaged == pytest.approx(0.752662, abs=1e-6) and abs(loss - averaged) > 0.1


def test_it_reduces_to_cross_entropy_and_to_focal_loss() -> None:
    plain = BackgroundNegativeRescaleLoss(alpha=1, gamma=0, epsilon=0, background_weight=1)(rows(), LABELS)
    torch.testing.assert_close(plain, F.cross_entropy(rows(), LABELS))
    assert plain.item() == pytest.approx(0.735137, abs=1e-6)
    p = rows().softmax(dim=1).gather(1, LABELS[:, None])
    focal = BackgroundNegativeRescaleLoss(alpha=1, gamma=2, background_weight=1)(rows(), LABELS)
    torch.testing.assert_close(focal, ((1 - p) ** 2 * -p.log()).mean())


def test_the_numbering_of_object_classes_has_no_say() -> None:
    order = torch.tensor([2, 0, 3, 1, 4])
    torch.testing.assert_close(bnrl(rows()[:, order], torch.argsort(order)[LABELS]), bnrl(rows(), LABELS))


@pytest.mark.parametrize("gap", [5.0, 20.0, 60.0, 100.0])
@pytest.mark.parametrize("label", [0, 1, 4])
def test_float32_is_finite_and_equals_float64_at_any_gap(gap: float, label: int) -> None:
    found = []
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor([[gap, 0, 0.5, -1, 0.25]], dtype=dtype, requires_grad=True)
        loss = bnrl(logits, torch.tensor([label]))
        (gradient,) = torch.autograd.grad(loss, logits)
        found.append((loss.detach().double(), gradient.double()))
    (loss, gradient), (true_loss, true_gradient) = found
    assert loss.isfinite() and gradient.isfinite().all()
    torch.testing.assert_close(loss, true_loss, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(gradient, true_gradient, rtol=0, atol=4e-7)


def test_a_wrong_class_far_ahead_is_punished_by_its_lead() -> None:
    logits = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(bnrl(logits + torch.tensor([0, 0, 0, 0, 20.0]), torch.tensor([0])), logits)
    assert gradient.abs().max() < 1


def test_probabilities_and_complements_are_those_of_the_softmax() -> None:
    log_p, log_rest = log_probabilities(rows())
    torch.testing.assert_close(log_p, rows().log_softmax(dim=1))
    torch.testing.assert_close(log_rest, torch.log(1 - rows().softmax(dim=1)))


def test_gradients_are_the_losses_own() -> None:
    assert torch.autograd.gradcheck(lambda logits: bnrl(logits, LABELS), rows())


def test_autocast_does_not_reach_it() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = bnrl(rows(torch.float32).bfloat16(), LABELS)
    assert loss.dtype == torch.float32


def test_no_rows_leave_the_graph_connected() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    bnrl(logits, torch.zeros(0, dtype=torch.int64)).backward()
    assert logits.grad is not None


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 1, not 2"):
        BackgroundNegativeRescaleLoss(alpha=2)
    with pytest.raises(ValueError, match="negative"):
        BackgroundNegativeRescaleLoss(gamma=-1)
