"""ITD's network against values of the published one, and its shared paths against the sums as they are executed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.itd.blocks import Exchange, Fuse, interleave
from irforge.train.detectors.itd.network import ITDNet
from irforge.train.ops.mish import Mish
from irforge.train.ops.nearest import enlarge
from tests.train.detectors.formula import formula_input, with_formula_weights

GOLDEN = {
    "published": {
        "feature": (4.0102381, 5.255698, -0.3088434, 21.585443, 0.76944402, 3.8857314),
        "heat": (0.68772365, 0.063511956, 0.50860706, 0.78823142, 0.50860706, 0.71642875),
        "ltrb": (0.23172668, 0.66747904, -0.92069599, 1.4331576, 0.034431636, 0.92681538),
        "offset": (0.31283098, 0.53743096, -0.46789246, 1.3142976, 0.034431636, 0.92681538),
    },
    "clean": {
        "feature": (0.012697381, 0.12065742, -0.19245168, 0.24436795, 0.057577654, 0.10439947),
        "heat": (0.50320179, 0.00019591148, 0.50242093, 0.50375026, 0.50242641, 0.50325689),
        "ltrb": (0.0013570269, 0.0092474386, -0.011289698, 0.015001339, 0.0097057291, 0.013027746),
    },
}
"""mean, population std, min, max, [0, 0, 0], [0, 5, 7] of each map."""


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def formula_network(fuse: Fuse, shared_paths: bool = True) -> ITDNet:
    net = ITDNet(fuse=fuse, shared_paths=shared_paths)
    with_formula_weights(net)
    return net


def summary(map_: Tensor) -> tuple[float, ...]:
    m = map_[0]
    values = (m.mean(), m.std(correction=0), m.min(), m.max(), m[0, 0, 0], m[0, 5, 7])
    return tuple(float(v) for v in values)


def exchange(fuse: Fuse, shared_paths: bool = True, widths: tuple[int, ...] = (4, 6, 8, 10)) -> Exchange:
    torch.manual_seed(0)
    module = Exchange(widths, fuse, shared_paths).double()
    for bn in module.modules():
        if isinstance(bn, nn.BatchNorm2d):
            nn.init.normal_(bn.weight, 1, 0.3)
            nn.init.normal_(bn.bias)
    return module


def branches(widths: tuple[int, ...] = (4, 6, 8, 10)) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, w, 16 >> i, 16 >> i, dtype=torch.float64) for i, w in enumerate(widths)]


def as_executed(module: Exchange, inputs: list[Tensor]) -> list[Tensor]:
    """The authors' loop in words of our own: the running sum of row 0 is branch 0 itself, and grows in place."""
    x = [tensor.clone() for tensor in inputs]
    outputs = []
    for i in range(len(x)):
        y = x[0] if i == 0 else module.down[f"0to{i}"](x[0])
        for j in range(len(x)):
            if i == j:
                y += x[j]
            elif j > i:
                y += F.interpolate(module.up[f"{j}to{i}"](x[j]), scale_factor=2.0 ** (j - i), mode="nearest")
            else:
                y += module.down[f"{j}to{i}"](x[j])
        outputs.append(y.clone())
    return [F.relu(y) for y in outputs]


def test_every_part_has_the_published_number_of_parameters() -> None:
    net = ITDNet()
    backbone = net.backbone
    assert count(backbone.stem) == 2_864
    assert [count(part) for part in backbone.transitions] == [4_784, 14_000, 53_600]
    assert [count(part) for part in backbone.stages] == [24_996, 287_112, 666_676]
    assert count(backbone.top_down) == 76_040
    assert [count(part) for part in (net.heat, net.ltrb, net.offset)] == [14_481, 14_604, 14_522]
    assert count(net) == 1_173_679


def test_gray_network_saves_two_input_planes() -> None:
    assert count(ITDNet(in_channels=1)) == 1_173_679 - 2 * 9 * 32


@pytest.mark.parametrize("shared_paths", [True, False])
@pytest.mark.parametrize("fuse", ["published", "clean"])
@torch.no_grad()
def test_values_equal_the_published_network_for_formula_weights(fuse: Fuse, shared_paths: bool) -> None:
    net = formula_network(fuse, shared_paths)
    features = net.features(formula_input())
    found = {"feature": features, "heat": net.heat(features).sigmoid()}
    found |= {"ltrb": net.ltrb(features), "offset": net.offset(features)}
    for name, golden in GOLDEN[fuse].items():
        assert summary(found[name]) == pytest.approx(golden, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("count_", [2, 3, 4])
@torch.no_grad()
def test_shared_paths_compute_what_the_aliased_loop_computes(count_: int) -> None:
    widths = (4, 6, 8, 10)[:count_]
    module = exchange("published", widths=widths).eval()
    inputs = branches(widths)
    for ours, theirs in zip(module(inputs), as_executed(module, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_published_and_clean_fusion_differ() -> None:
    published, clean = (exchange(fuse).eval()(branches()) for fuse in ("published", "clean"))
    assert all((a - b).abs().max() > 0.1 for a, b in zip(published, clean, strict=True))


@pytest.mark.parametrize("fuse", ["published", "clean"])
def test_a_training_step_leaves_the_same_gradients_and_statistics_with_shared_paths(fuse: Fuse) -> None:
    plain, shared = exchange(fuse, shared_paths=False).train(), exchange(fuse).train()
    shared.load_state_dict(plain.state_dict())
    for module in (plain, shared):
        for factor in (1.0, 0.7):
            outputs = module([x * factor for x in branches()])
            torch.stack([(y * y).mean() for y in outputs]).sum().backward()
    gradients = dict(shared.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-9, atol=1e-10, msg=name)
    statistics = dict(shared.named_buffers())
    for name, buffer in plain.named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(statistics[name], buffer, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("fuse", ["published", "clean"])
def test_fusion_leaves_its_inputs_alone(fuse: Fuse) -> None:
    inputs = branches()
    before = [x.clone() for x in inputs]
    exchange(fuse, shared_paths=False)(inputs)
    exchange(fuse)(inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))


def test_interleaving_is_a_shuffle_in_two_groups() -> None:
    x = torch.arange(2 * 6 * 2 * 3).view(2, 6, 2, 3)
    shuffled = x.view(2, 2, 3, 2, 3).transpose(1, 2).reshape(2, 6, 2, 3)
    assert torch.equal(interleave(*x.chunk(2, dim=1)), shuffled)


def test_training_and_evaluation_take_the_same_values_but_for_batch_statistics() -> None:
    torch.manual_seed(0)
    net = ITDNet(in_channels=1, init="kaiming").double().train()
    for bn in net.modules():
        if isinstance(bn, nn.BatchNorm2d):
            bn.momentum = 1.0
            bn.register_forward_hook(_keep_biased_variance)
    x = torch.randn(2, 1, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        trained = net(x)
        evaluated = net.eval()(x)
    for a, b in zip(trained, evaluated, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def _keep_biased_variance(bn: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
    """What a batch is normalised with in training, in evaluation too."""
    if bn.training:
        values = args[0].numel() // args[0].shape[1]
        bn.get_buffer("running_var").mul_(1 - 1 / values)


def test_mish_is_the_same_in_training_with_its_gradient() -> None:
    x = torch.linspace(-30, 30, 601, dtype=torch.float64, requires_grad=True)
    layer = Mish().train()
    torch.testing.assert_close(layer(x), F.mish(x), rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(layer, x)
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    layer(far).sum().backward()
    assert layer(far).tolist() == [0, 1e4] and far.grad is not None and far.grad.tolist() == [0, 1]


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_enlarging_is_the_same_in_training_with_its_gradient(factor: int) -> None:
    wide = torch.randn(2, 6, 4, 3, dtype=torch.float64, requires_grad=True)
    outcomes = []
    for training in (True, False):
        y = enlarge(wide[:, 1:4], factor, training)
        (gradient,) = torch.autograd.grad(y, wide, torch.arange(y.numel(), dtype=torch.float64).view_as(y))
        outcomes.append((y, gradient))
    (ours, our_gradient), (plain, gradient) = outcomes
    assert torch.equal(ours, plain) and torch.equal(our_gradient, gradient)


def test_maps_have_half_the_sides_of_the_frame() -> None:
    with torch.no_grad():
        maps = ITDNet(in_channels=1).eval()(torch.zeros(2, 1, 48, 80))
    assert [tuple(m.shape) for m in maps] == [(2, c, 24, 40) for c in (1, 4, 2)]


def test_an_untrained_network_believes_in_targets_with_a_probability_of_a_tenth() -> None:
    torch.manual_seed(0)
    net = ITDNet(in_channels=1).train()
    with torch.no_grad():
        maps = net(torch.randn(2, 1, 64, 64))
    assert float(maps.heat.sigmoid().mean()) == pytest.approx(0.1, abs=0.05)
    assert net.heat[-1].bias.item() == pytest.approx(-math.log(9))
    assert max(float(m.abs().max()) for m in (maps.ltrb, maps.offset)) < 0.01


def test_kernels_are_drawn_as_the_option_says() -> None:
    torch.manual_seed(0)
    for init, expected in (("published", 0.001), ("kaiming", math.sqrt(2 / 320))):
        first = ITDNet(init=init).backbone.top_down.steps[0][2]
        assert isinstance(first, nn.Conv2d) and first.weight.shape[:2] == (160, 320)
        assert first.weight.std().item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("option", ["fuse", "init"])
def test_unknown_options_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is 'published' or"):
        ITDNet(**{option: "other"})


def test_widths_double_from_branch_to_branch_in_shapes() -> None:
    net = ITDNet(in_channels=1).eval()
    with torch.no_grad():
        x = [net.backbone.stem(torch.zeros(1, 1, 32, 32))]
        for transition, stage in zip(net.backbone.transitions, net.backbone.stages, strict=True):
            x = stage(transition(x))
    assert all(b.shape[1] == 2 * a.shape[1] and a.shape[2] == 2 * b.shape[2] for a, b in pairwise(x))
