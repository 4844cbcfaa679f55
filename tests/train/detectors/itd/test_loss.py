"""ITD's loss against worked examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irforge.train.detectors.base import BoxBatch
from irforge.train.detectors.itd.loss import ItdLoss, gfkl, itd_loss
from irforge.train.detectors.itd.network import ITDNet, Maps

A = {"alpha": 2.0, "beta": 4.0, "gamma": 4.0}
CELLS = [
    (1.0, 0.9, 0.01053594, 0.00105359),
    (1.0, 0.5, 0.34657274, 0.17328637),
    (1.0, 0.1, 2.07232361, 1.86509125),
    (0.0, 0.1, 0.01053592, 1.054e-5),
    (0.0, 0.5, 0.34657205, 0.04332142),
    (0.0, 0.9, 2.07231947, 1.51071787),
    (0.5, 0.1, -0.00734733, -1.84e-6),
    (0.5, 0.5, 0.0, 0.0),
    (0.5, 0.9, 0.18106177, 0.03299851),
    (0.8, 0.2, -0.00221807, -7.1e-7),
    (0.8, 0.95, 0.01053584, 0.00036133),
]
"""Heat, probability, and the loss of the cell with the settings B and A."""


class Given(nn.Module):
    """A network whose maps are given."""

    def __init__(self, maps: Maps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, frames: Tensor) -> Maps:
        return self.maps


def plane(values: object) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.float64)
    return tensor.view(1, 1, *tensor.shape)


def batch(criterion: ItdLoss, *boxes: list[list[float]]) -> BoxBatch:
    """Truth on flat images of 32 x 32."""
    arrays = [np.array(b, np.float32).reshape(-1, 4) for b in boxes]
    maps = [criterion.encode(np.zeros((32, 32), np.float32), b, np.zeros(len(b), np.int64)) for b in arrays]
    stacked = {name: torch.stack([torch.from_numpy(m[name]) for m in maps]) for name in maps[0]}
    return BoxBatch(
        [torch.from_numpy(b) for b in arrays], [torch.zeros(len(b), dtype=torch.long) for b in arrays], stacked
    )


def perfect(truth: BoxBatch) -> Maps:
    return Maps(truth.maps["heat"].clamp(1e-6, 1 - 1e-6).logit(), truth.maps["ltrb"], truth.maps["offset"])


def terms(criterion: ItdLoss, maps: Maps, truth: BoxBatch) -> dict[str, float]:
    return {name: float(term) for name, term in criterion(Given(maps), torch.empty(0), truth, 0).items()}


@pytest.mark.parametrize(("heat", "probability", "b", "a"), CELLS)
def test_cells_cost_what_the_published_loss_says(heat: float, probability: float, b: float, a: float) -> None:
    # A higher neighbour, so that no cell is a maximum by being alone.
    t, x = plane([[heat, 1.0]]), plane([[probability, 0.5]]).logit()
    assert float(gfkl(x, t)[..., 0]) == pytest.approx(b, abs=1e-8)
    assert float(gfkl(x, t, **A)[..., 0]) == pytest.approx(a, abs=1e-8)


def test_a_map_costs_what_the_published_loss_says() -> None:
    t, p = torch.zeros(5, 5, dtype=torch.float64), torch.full((5, 5), 0.1, dtype=torch.float64)
    t[2, 1:4] = torch.tensor([0.5, 1.0, 0.5])
    t[1, 2] = t[3, 2] = 0.25
    p[2, 1:4] = torch.tensor([0.4, 0.7, 0.6])
    t, x = t[None, None], p.logit()[None, None]
    assert float(gfkl(x, t).sum()) == pytest.approx(0.3099567, abs=1e-7)
    assert float(gfkl(x, t, **A).sum()) == pytest.approx(0.0330606, abs=1e-7)


def test_the_half_divergence_is_least_below_the_heat_and_the_full_one_at_it() -> None:
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64).view(-1, 1, 1, 1)
    for heat, beta_1, beta_4 in ((0.5, 0.273, 0.407), (0.75, 0.444, 0.622), (0.9, 0.587, 0.770)):
        t = torch.full_like(p, heat)
        for beta, least in ((1.0, beta_1), (4.0, beta_4)):
            assert float(p[gfkl(p.logit(), t, beta=beta).argmin()]) == pytest.approx(least, abs=1.5e-3)
        full = gfkl(p.logit(), t, divergence="full")
        assert float(p[full.argmin()]) == pytest.approx(heat, abs=1.5e-3)
        assert float(full.min()) >= 0


@pytest.mark.parametrize("divergence", ["half", "full"])
@pytest.mark.parametrize("published", ["A", "B"])
def test_a_perfect_prediction_costs_nothing(published: str, divergence: str) -> None:
    criterion = itd_loss(published, divergence=divergence)
    truth = batch(criterion, [[6, 8, 20, 16], [2, 20, 5, 22]], [])
    assert terms(criterion, perfect(truth), truth) == pytest.approx({"heat": 0, "ltrb": 0, "offset": 0}, abs=2e-6)


def test_box_errors_are_means_over_the_centres_of_the_batch() -> None:
    b, a = itd_loss("B"), itd_loss("A")
    truth = batch(b, [[6, 8, 20, 16], [2, 20, 5, 22]], [[10, 10, 16, 14]])
    heat, ltrb, offset = perfect(truth)
    wrong = Maps(heat, ltrb + torch.tensor([0.5, 0, 0, 3.5]).view(1, 4, 1, 1), offset + 0.25)
    assert terms(b, wrong, truth) == pytest.approx({"heat": 0, "ltrb": 1.0, "offset": 0.25}, abs=2e-6)
    smooth = 0.5 * (0.125 + 3.0) / 4
    assert terms(a, wrong, truth) == pytest.approx({"heat": 0, "ltrb": smooth, "offset": 0.03125}, abs=2e-6)


def test_heat_is_summed_and_divided_by_the_centres() -> None:
    criterion = itd_loss("A")
    truth = batch(criterion, [[6, 8, 20, 16], [2, 20, 5, 22]])
    _, ltrb, offset = perfect(truth)
    logits = torch.full((1, 1, 16, 16), -1.0)
    expected = 1.5 * float(gfkl(logits, truth.maps["heat"], **A).sum()) / 2
    assert terms(criterion, Maps(logits, ltrb, offset), truth)["heat"] == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_targets_costs_its_false_heat_alone() -> None:
    criterion = itd_loss()
    truth = batch(criterion, [], [])
    logits = torch.full((2, 1, 16, 16), -2.0)
    found = terms(criterion, Maps(logits, torch.ones(2, 4, 16, 16), torch.ones(2, 2, 16, 16)), truth)
    assert found["heat"] == pytest.approx(float(gfkl(logits, truth.maps["heat"]).sum()), rel=1e-6)
    assert found["ltrb"] == found["offset"] == 0


def test_the_gradient_is_that_of_the_values() -> None:
    torch.manual_seed(0)
    t = torch.rand(1, 1, 5, 6, dtype=torch.float64)
    t[0, 0, 2, 2] = 1
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    for settings in ({}, A, {"divergence": "full"}):
        assert torch.autograd.gradcheck(lambda x, s=settings: gfkl(x, t, **s), x)


def test_gradients_stay_finite_where_the_network_is_sure() -> None:
    x = torch.tensor([-200.0, -20.0, 20.0, 200.0], requires_grad=True)
    for t in (torch.zeros(4), torch.ones(4), torch.full((4,), 0.5)):
        for settings in ({}, A, {"divergence": "full"}):
            loss = gfkl(x.view(1, 1, 1, 4), t.view(1, 1, 1, 4), **settings).sum()
            (gradient,) = torch.autograd.grad(loss, x)
            assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_terms_are_float32_also_under_autocast() -> None:
    criterion = itd_loss()
    truth = batch(criterion, [[6, 8, 20, 16]])
    with torch.autocast("cpu", torch.bfloat16):
        found = criterion(ITDNet(in_channels=1).train(), torch.randn(1, 1, 32, 32), truth, 0)
    assert [term.dtype for term in found.values()] == [torch.float32] * 3


def test_every_weight_of_the_network_learns() -> None:
    torch.manual_seed(0)
    criterion = itd_loss()
    truth = batch(criterion, [[6, 8, 20, 16]], [[20, 20, 23, 22]])
    network = ITDNet(in_channels=1).train()
    torch.stack(list(criterion(network, torch.randn(2, 1, 32, 32), truth, 0).values())).sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_centres_are_where_the_options_put_them() -> None:
    levels = np.full((32, 32), 40, np.float32)
    levels[10:18, 8:18] = np.linspace(60, 240, 10)
    box = np.array([[8, 10, 18, 18]], np.float32)

    def cell(**options: bool) -> list[int]:
        weight = itd_loss(**options).encode(levels, box, np.zeros(1, np.int64))["weight"][0]
        return np.argwhere(weight)[0].tolist()

    assert (cell(), cell(legacy_half_pixel=True), cell(light=False)) == ([7, 7], [6, 7], [7, 6])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"published": "C"}, ValueError),
        ({"divergence": "double"}, ValueError),
        ({"distance": "l2"}, ValueError),
        ({"delta": 1.0}, TypeError),
    ],
)
def test_unknown_options_are_refused(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        itd_loss(**options)
