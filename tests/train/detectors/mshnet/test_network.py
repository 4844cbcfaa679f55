"""The network equals the published one: parameter counts, shapes, and values for weights made by a formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.mshnet.network import MSHNet
from irforge.train.ops import pooling
from tests.train.detectors.formula import formula_input, with_formula_weights

STAGE_PARAMETERS = {
    "conv_init": 64,
    "encoder_0": 4_834,
    "encoder_1": 33_700,
    "encoder_2": 133_252,
    "encoder_3": 530_500,
    "middle_layer": 2_117_572,
    "decoder_3": 940_100,
    "decoder_2": 235_652,
    "decoder_1": 59_300,
    "decoder_0": 10_258,
    "output_0": 17,
    "output_1": 33,
    "output_2": 65,
    "output_3": 129,
    "final": 37,
}

GOLDEN = {
    "m0": (0.001418262, 0.0011179728, -0.0062749926, 0.0026937618, 0.0022090455, 0.001675647, 0.0020099911),
    "m1": (0.0094397607, 0.0023075981, 0.0062088391, 0.020266412, 0.0081724472, 0.011905989, 0.0086221837),
    "m2": (0.005942428, 0.00034907535, 0.0049686296, 0.0071607424, 0.0071607424, 0.0061718204, 0.0061528537),
    "m3": (0.02044359, 8.3427e-05, 0.020180714, 0.020606832, 0.020443723, 0.020343077, 0.020180714),
    "final": (-0.0041583593, 0.0028800479, -0.013014065, 0.0098524931, 0.0098524931, -0.0042777206, -0.0014803669),
}
"""mean, population std, min, max, [0, 0], [5, 7], [-1, -1] of each output."""


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def formula_network() -> MSHNet:
    net = MSHNet(3)
    with_formula_weights(net)
    return net


def summary(map_: Tensor) -> tuple[float, ...]:
    m = map_[0, 0]
    values = (m.mean(), m.std(correction=0), m.min(), m.max(), m[0, 0], m[5, 7], m[-1, -1])
    return tuple(float(v) for v in values)


def test_every_stage_has_the_published_number_of_parameters() -> None:
    net = MSHNet(3)
    assert {name: count(module) for name, module in net.named_children()} == STAGE_PARAMETERS
    assert count(net) == 4_065_513
    assert sum(b.numel() for b in net.buffers()) == 7_240


def test_one_channel_stem_saves_two_input_planes() -> None:
    assert count(MSHNet(1)) == 4_065_481


def test_three_by_three_heads_have_nine_weights_a_channel() -> None:
    assert count(MSHNet(3, head_kernel=3)) == 4_065_513 + 8 * (16 + 32 + 64 + 128)


def test_head_kernel_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="head_kernel"):
        MSHNet(3, head_kernel=2)


def test_outputs_have_the_resolution_of_their_scale() -> None:
    with torch.no_grad():
        heads, final = MSHNet(1).eval()(torch.zeros(2, 1, 48, 80))
    assert [tuple(h.shape) for h in heads] == [(2, 1, 48 // k, 80 // k) for k in (1, 2, 4, 8)]
    assert tuple(final.shape) == (2, 1, 48, 80)


@torch.no_grad()
def test_values_equal_the_published_network_for_formula_weights() -> None:
    x = formula_input()
    assert float(x[0, 0, 0, 0]) == pytest.approx(0.0499566793)
    assert float(x[0, 2, 5, 7]) == pytest.approx(0.5831267834)
    assert float(x.mean()) == pytest.approx(0.3987618931)
    heads, final = formula_network()(x)
    for name, map_ in zip(GOLDEN, [*heads, final], strict=True):
        assert summary(map_) == pytest.approx(GOLDEN[name], abs=1e-9, rel=2e-7), name


@torch.no_grad()
def test_warm_up_predicts_with_the_finest_head_alone() -> None:
    none, finest = formula_network()(formula_input(), multi_scale=False)
    assert none == []
    assert summary(finest) == pytest.approx(GOLDEN["m0"], abs=1e-9, rel=2e-7)


def test_warm_up_leaves_the_other_heads_without_gradient() -> None:
    net = MSHNet(1)
    net(torch.rand(1, 1, 32, 32), multi_scale=False)[1].sum().backward()
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert {name.split(".")[0] for name in without} == {"output_1", "output_2", "output_3", "final"}
    assert sum(p.numel() for name, p in net.named_parameters() if name in without) == 264


def test_fused_probabilities_differ_from_fused_logits() -> None:
    torch.manual_seed(0)
    logits, probabilities = MSHNet(1), MSHNet(1, head_sigmoid=True)
    probabilities.load_state_dict(logits.state_dict())
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        (heads, fused), (same_heads, other) = logits.eval()(x), probabilities.eval()(x)
    assert all(torch.equal(a, b) for a, b in zip(heads, same_heads, strict=True))
    assert not torch.allclose(fused, other)


def test_cheap_training_ops_give_the_values_and_gradients_of_the_plain_ones() -> None:
    torch.manual_seed(0)
    net = MSHNet(1).double().train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
            module.eval()
    x = torch.rand(2, 1, 32, 32, dtype=torch.float64)

    def gradients() -> tuple[Tensor, list[Tensor]]:
        net.zero_grad()
        heads, final = net(x)
        (final.square().sum() + sum(h.square().sum() for h in heads)).backward()
        return final.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None]

    cheap, cheap_gradients = gradients()
    plain, plain_gradients = (net.eval(), gradients())[1]
    torch.testing.assert_close(cheap, plain)
    for a, b in zip(cheap_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("factor", "height", "width"), [(2, 5, 7), (4, 1, 3), (8, 2, 2)])
def test_upsampling_gradient_is_that_of_the_library(factor: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 3, height * factor, width * factor, dtype=torch.float64)
    (ours,) = torch.autograd.grad((pooling.upsample(x, factor) * weight).sum(), x)
    plain = F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=True)
    (theirs,) = torch.autograd.grad((plain * weight).sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
