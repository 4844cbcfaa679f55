"""The confusion-aware losses: golden values, and what they promise of every batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from irforge.train.detectors.glmd.confusion import confusion_aware_loss, confusion_aware_objectness

LOGITS = [[2.0, 1, 0, 3], [4, 1, 0, 2], [0, 3, 1, 2], [1, 2, 5, 0]]
LABELS = torch.tensor([3, 3, 3, 2])
ONE_IMAGE = torch.zeros(4, dtype=torch.int64)
PRESENT = torch.tensor([[False, True, False]])
GRADIENT = [
    [0, 0.0285, 0.0105, -0.0391],
    [0, 0.0612, 0.0225, -0.0837],
    [0.0080, 0.1610, 0.0218, -0.1908],
    [0.0043, 0.0116, -0.0174, 0.0016],
]


def batch(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(LOGITS, dtype=dtype, requires_grad=True)


def many(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """60 rows of three images in no order, five classes, mostly background."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(60, 6, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 20, (60,), generator=generator).clamp_max(5)
    image = torch.arange(60) % 3
    return logits, labels, image


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_published_case(dtype: torch.dtype) -> None:
    logits = batch(dtype)
    loss = confusion_aware_loss(logits, LABELS, ONE_IMAGE, PRESENT)
    assert loss.item() == pytest.approx(0.52245355, abs=1e-7)
    assert F.cross_entropy(logits, LABELS).item() == pytest.approx(1.03443360, abs=1e-7)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.tensor(GRADIENT, dtype=dtype), atol=6e-5, rtol=0)


def test_an_image_without_annotations_spares_a_class_in_every_background_row() -> None:
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    assert confusion_aware_loss(batch(), LABELS, ONE_IMAGE, nothing).item() == pytest.approx(0.2643, abs=5e-5)


def test_a_spared_logit_gets_no_gradient_at_all() -> None:
    logits = batch()
    confusion_aware_loss(logits, LABELS, ONE_IMAGE, PRESENT).backward()
    assert logits.grad is not None and logits.grad[0, 0] == 0 and logits.grad[1, 0] == 0
    assert (logits.grad != 0).sum() == 14


def test_it_is_cross_entropy_where_every_class_is_present_or_nothing_is_background() -> None:
    logits, labels, image = many()
    everything = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(confusion_aware_loss(logits, labels, image, everything), F.cross_entropy(logits, labels))
    objects = labels < 5
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    torch.testing.assert_close(
        confusion_aware_loss(logits[objects], labels[objects], image[objects], nothing),
        F.cross_entropy(logits[objects], labels[objects]),
    )


@pytest.mark.parametrize("seed", range(5))
def test_it_is_never_above_cross_entropy(seed: int) -> None:
    logits, labels, image = many(seed)
    assert confusion_aware_loss(logits, labels, image) < F.cross_entropy(logits, labels)


def test_rows_belong_to_the_image_they_name_whatever_their_order_and_number() -> None:
    logits, labels, image = many()
    whole = confusion_aware_loss(logits, labels, image)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(confusion_aware_loss(logits[order], labels[order], image[order]), whole)
    parts = []
    for number in range(3):
        rows = image == number
        parts.append(confusion_aware_loss(logits[rows], labels[rows], torch.zeros_like(image[rows])) * rows.sum())
    torch.testing.assert_close(torch.stack(parts).sum() / 60, whole)


def test_without_a_list_of_annotations_the_labels_of_an_image_say_what_it_shows() -> None:
    logits, labels, image = many()
    present = torch.zeros(3, 5, dtype=torch.bool)
    for number in range(3):
        for label in labels[(image == number) & (labels < 5)]:
            present[number, label] = True
    assert not present.all()
    torch.testing.assert_close(
        confusion_aware_loss(logits, labels, image), confusion_aware_loss(logits, labels, image, present)
    )


def test_gradients_are_the_losses_own() -> None:
    logits, labels, image = many()
    assert torch.autograd.gradcheck(lambda x: confusion_aware_loss(x, labels, image), logits.requires_grad_())


def test_half_precision_is_left_before_anything_overflows() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.tensor(LOGITS).bfloat16() * 1000
        loss = confusion_aware_loss(logits, LABELS, ONE_IMAGE, PRESENT)
        objectness = confusion_aware_objectness(logits[0], torch.tensor([1, 0, 0, -1]), ONE_IMAGE)
    assert loss.dtype == objectness.dtype == torch.float32 and loss.isfinite() and objectness.isfinite()


def test_no_rows_leave_the_graph_connected() -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    confusion_aware_loss(logits, none, none).backward()
    assert logits.grad is not None and logits.grad.shape == (0, 4)


def test_negative_anchors_that_look_like_objects_are_not_counted() -> None:
    logits = torch.tensor([2.0, -1, 0.5, -3], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, -1])
    loss = confusion_aware_objectness(logits, labels, ONE_IMAGE)
    assert loss.item() == pytest.approx(0.787339, abs=1e-6)
    assert loss.item() / 256 == pytest.approx(0.00307554, abs=1e-8)
    plain = F.binary_cross_entropy_with_logits(logits[:3], labels[:3].double(), reduction="sum")
    assert plain.item() == pytest.approx(2.914267, abs=1e-6)
    loss.backward()
    assert logits.grad is not None and logits.grad[0] == 0 and logits.grad[3] == 0 and (logits.grad[1:3] != 0).all()
