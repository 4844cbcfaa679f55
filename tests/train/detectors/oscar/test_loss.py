"""The five losses give the values checked on the original code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irforge.noco import noco_map
from irforge.train.detectors.base import BoxBatch
from irforge.train.detectors.oscar.head import OscarMaps, decode_boxes
from irforge.train.detectors.oscar.loss import OscarLoss, diou_loss, focal_loss, quality_loss
from irforge.train.detectors.oscar.network import Oscar

TARGET = torch.tensor([[100.0, 100, 106, 105]])


def silent_maps(height: int = 256, width: int = 256, samples: int = 1) -> OscarMaps:
    """All logits 0, boxes 2 x 2."""
    fine, coarse = (samples, 1, height // 4, width // 4), (samples, 1, height // 8, width // 8)
    return OscarMaps(
        torch.zeros(fine),
        torch.zeros(samples, 4, *fine[2:]),
        torch.zeros(fine),
        torch.zeros(coarse),
        torch.ones(samples, 4, *coarse[2:]),
    )


def truth_of(*boxes: Tensor, height: int = 256, width: int = 256) -> BoxBatch:
    noco = torch.zeros(len(boxes), 1, height // 4, width // 4)
    return BoxBatch(list(boxes), [torch.zeros(len(b), dtype=torch.int64) for b in boxes], {"noco": noco})


@pytest.mark.parametrize(
    ("logit", "positive", "expected"),
    [(0, 1, 0.0216608), (0, 0, 0.0649825), (-2, 0, 1.61242e-4), (2, 1, 5.37475e-5)],
)
def test_focal_loss_has_gamma_3(logit: float, positive: float, expected: float) -> None:
    assert float(focal_loss(torch.tensor([float(logit)]), torch.tensor([float(positive)]))) == pytest.approx(
        expected, rel=1e-5
    )


def test_focal_loss_stays_finite_where_probabilities_underflow() -> None:
    logits = torch.tensor([300.0, -300.0, 300.0, -300.0], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.75 * 300 + 0.25 * 300)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_distance_iou_loss() -> None:
    box, other = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[2.0, 2, 10, 10]])
    assert float(diou_loss(box, other)) == pytest.approx(0.6486957, abs=1e-6)
    assert float(diou_loss(box, box)) == pytest.approx(0, abs=1e-6)
    far = torch.tensor([[100.0, 0, 104, 4]])
    assert 1 < float(diou_loss(box, far)) < 2


@pytest.mark.parametrize(
    ("logit", "quality", "expected"), [(0, 1, 0.1732868), (-3, 0, 1.092833e-4), (1, 0.5, 0.0434185)]
)
def test_quality_loss_weighs_by_the_square_of_the_error(logit: float, quality: float, expected: float) -> None:
    found = quality_loss(torch.tensor(float(logit)), torch.tensor(float(quality)))
    assert float(found) == pytest.approx(expected, rel=2e-6)


def test_the_silent_network_costs_what_it_does_in_the_original() -> None:
    truth = truth_of(TARGET, height=608, width=768)
    terms = OscarLoss().terms(silent_maps(608, 768), truth)
    assert float(terms["refine_cls"]) == pytest.approx(3792.8, abs=0.05)
    assert float(terms["coarse_cls"]) == pytest.approx(948.1, abs=0.05)
    assert float(terms["noco"]) == pytest.approx(173.287, abs=5e-4)


def test_boxes_are_free_of_loss_once_the_coarse_one_is_the_pseudo_box_and_the_fine_one_the_true_box() -> None:
    maps = silent_maps()
    maps.ltrb[0, :, 12, 12] = torch.tensor([1, 1.5, 7, 6.5])
    maps.delta[0, :, 25, 25] = torch.tensor([0.25, 0.375, -0.25, -0.375])
    terms = OscarLoss().terms(maps, truth_of(TARGET))
    assert float(terms["coarse_box"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["refine_box"]) == pytest.approx(0, abs=1e-6)
    maps.delta.zero_()
    shifted = OscarLoss().terms(maps, truth_of(TARGET))
    coarse, _ = decode_boxes(maps)
    assert float(shifted["refine_box"]) == pytest.approx(float(diou_loss(coarse[:, :, 12, 12], TARGET)))
    assert float(shifted["coarse_box"]) == float(terms["coarse_box"])


def test_each_sample_learns_its_own_boxes() -> None:
    maps = silent_maps(samples=2)
    maps.ltrb[1, :, 12, 12] = torch.tensor([1, 1.5, 7, 6.5])
    nothing = torch.zeros(0, 4)
    assert float(OscarLoss().terms(maps, truth_of(nothing, TARGET))["coarse_box"]) == pytest.approx(0, abs=1e-6)
    assert float(OscarLoss().terms(maps, truth_of(TARGET, nothing))["coarse_box"]) > 0.5


def test_frames_without_a_target_teach_the_classes_alone_and_every_weight_still_has_a_gradient() -> None:
    network = Oscar(128, in_channels=1)
    nothing = torch.zeros(0, 4)
    terms = OscarLoss()(network, torch.randn(2, 1, 64, 64), truth_of(nothing, nothing, height=64, width=64), 0)
    assert terms["coarse_box"].item() == terms["refine_box"].item() == 0
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    assert network.bbox_head.refine_conv_cls.bias.grad.abs().max() > 0
    assert network.bbox_head.refine_conv_reg.bias.grad.abs().max() == 0


def test_weights_scale_their_terms_and_unknown_ones_are_refused() -> None:
    maps, truth = silent_maps(), truth_of(TARGET)
    plain = OscarLoss().terms(maps, truth)
    scaled = OscarLoss(class_weight=4.0, box_weight=3.0, noco_weight=100.0).terms(maps, truth)
    factors = {name: float(scaled[name] / plain[name]) for name in plain}
    assert factors == pytest.approx(
        {"coarse_cls": 2, "coarse_box": 3, "refine_cls": 2, "refine_box": 3, "noco": 0.1}, rel=1e-6
    )
    with pytest.raises(TypeError):
        OscarLoss(centre_weight=1.0)  # type: ignore[call-arg]


class Recorded(nn.Module):
    """Maps whose autocast dtype shows what the loss computes in."""

    def __init__(self, maps: OscarMaps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, frames: Tensor) -> OscarMaps:
        return self.maps


def test_losses_are_float32_under_autocast() -> None:
    maps, truth = silent_maps(), truth_of(TARGET)
    maps.refine_logit.fill_(-12.0)
    expected = OscarLoss().terms(maps, truth)
    with torch.autocast("cpu", torch.bfloat16):
        found = OscarLoss()(Recorded(maps), torch.zeros(1, 1, 256, 256), truth, 0)
    assert {term.dtype for term in found.values()} == {torch.float32}
    assert {name: float(term) for name, term in found.items()} == {name: float(term) for name, term in expected.items()}


def test_the_contrast_is_that_of_the_third_pixel_of_each_cell() -> None:
    rng = np.random.default_rng(0)
    levels = rng.uniform(0, 255, (64, 96)).astype(np.float32)
    boxes = np.array([[30, 20, 42, 33], [70, 50, 76, 54]], np.float32)
    plane = OscarLoss().encode(levels, boxes, np.zeros(2, np.int64))["noco"]
    assert plane.shape == (1, 16, 24) and plane.dtype == np.float32
    whole = noco_map(levels, boxes)
    assert plane[0, 6, 8] == np.float32(whole[26, 34]) > 0
    exact = torch.nn.functional.interpolate(torch.from_numpy(whole)[None, None], size=(16, 24), mode="nearest-exact")
    assert np.array_equal(plane[0], exact[0, 0].float().numpy())
    empty = OscarLoss().encode(levels, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))["noco"]
    assert empty.shape == (1, 16, 24) and not empty.any()


def test_a_small_network_learns_one_target() -> None:
    torch.manual_seed(0)
    network = Oscar(64, in_channels=1, prior=0.05)
    frame = torch.zeros(1, 1, 64, 64)
    frame[:, :, 24:32, 36:46] = 4.0
    truth = truth_of(torch.tensor([[36.0, 24, 46, 32]]), height=64, width=64)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(8):
        loss = torch.stack(list(OscarLoss()(network, frame, truth, 0).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 5
