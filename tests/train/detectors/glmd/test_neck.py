"""The neck equals the published one: names, parameter counts, values for weights made by a formula, and its rules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from irforge.train.detectors.glmd.neck import GlmdNeck, LocalRefinement, sine_position_code
from irforge.train.ops.mutual_gate import mutual_gate

SHAPES = {
    "global_module.tfEncoder.layers.0.self_attn.in_proj_weight": (3072, 1024),
    "global_module.tfEncoder.layers.0.self_attn.in_proj_bias": (3072,),
    "global_module.tfEncoder.layers.0.self_attn.out_proj.weight": (1024, 1024),
    "global_module.tfEncoder.layers.0.self_attn.out_proj.bias": (1024,),
    "global_module.tfEncoder.layers.0.linear1.weight": (2048, 1024),
    "global_module.tfEncoder.layers.0.linear1.bias": (2048,),
    "global_module.tfEncoder.layers.0.linear2.weight": (1024, 2048),
    "global_module.tfEncoder.layers.0.linear2.bias": (1024,),
    "global_module.tfEncoder.layers.0.norm1.weight": (1024,),
    "global_module.tfEncoder.layers.0.norm1.bias": (1024,),
    "global_module.tfEncoder.layers.0.norm2.weight": (1024,),
    "global_module.tfEncoder.layers.0.norm2.bias": (1024,),
    "local_module.ca_module.ca_neck.0.weight": (64, 1024, 1, 1),
    "local_module.ca_module.ca_neck.2.weight": (1024, 64, 1, 1),
    "local_module.sa_module.conv.weight": (1, 2, 7, 7),
    "local_module.cr_module.0.weight": (1024, 1, 3, 3),
    "local_module.cr_module.0.bias": (1024,),
    "local_module.sr_module.0.weight": (1024, 1024, 1, 1),
    "local_module.sr_module.0.bias": (1024,),
    "local_module.dconv.weight": (1024, 2048, 1, 1),
    "local_module.dconv.bias": (1024,),
    "global_conv.weight": (1024, 1024, 3, 3),
    "global_conv.bias": (1024,),
    "local_conv.weight": (1024, 1024, 3, 3),
    "local_conv.bias": (1024,),
}

BOUNDS = {
    "global_module.tfEncoder.layers.0.self_attn.in_proj_weight": 0.0383,
    "global_module.tfEncoder.layers.0.self_attn.out_proj.weight": 0.03125,
    "global_module.tfEncoder.layers.0.linear1.weight": 0.0442,
    "global_module.tfEncoder.layers.0.linear2.weight": 0.0442,
    "local_module.cr_module.0.weight": 0.8165,
    "local_module.sr_module.0.weight": 0.0765,
    "local_module.dconv.weight": 0.0541,
    "local_module.ca_module.ca_neck.0.weight": 0.0765,
    "local_module.ca_module.ca_neck.2.weight": 0.3062,
    "local_module.sa_module.conv.weight": 0.2474,
    "global_conv.weight": 0.0255,
    "local_conv.weight": 0.0255,
}

ENCODER_LAYER = "global_module.tfEncoder.layers.0"
GOLDEN = {
    "x": (3.200860791, 0.636643866, 0.479425539, 0.789086237),
    "position code": (1102.076537898, 0.546746598, 0, 0.999999464),
    ENCODER_LAYER: (-1.321702390, 0.827768820, -0.693927084, 1.254414308),
    "global_module": (-4.849181544, 0.801379385, -0.810488704, 0.966694788),
    "local_module.cr_module": (-6.391352933, 0.506081501, -0.575268382, -0.044797080),
    "local_module.sr_module": (-5.109152633, 0.070216384, -0.114124076, -0.050142849),
    "local_module.ca_module": (31.886943318, 0.498233489, 0.373821252, 0.409177672),
    "local_module.sa_module": (17.560460662, 0.501727447, 0.498757440, 0.496354501),
    "local_module": (11.416453203, 0.191073462, -0.050759704, 0.312698586),
    "gated context": (34.762212464, 0.407714890, -0.394961518, 0.558308599),
    "gated detail": (35.481992253, 0.096236947, -0.015623145, 0.226537683),
    "global_conv": (0.383015254, 0.074951463, -0.003304572, 0.055164012),
    "local_conv": (-2.196272956, 0.070837881, -0.111709228, 0.037472582),
    "out": (1.387603089, 0.646320126, 0.364411738, 0.881722832),
}
"""Sum, mean of the absolute values, first element, last element; modules by name, their first call where two."""


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(p.numel() for p in module.parameters())


def formula_neck(legacy_batch_mixing: bool = False) -> GlmdNeck:
    neck = GlmdNeck(64, legacy_batch_mixing=legacy_batch_mixing).double().eval()
    with torch.no_grad():
        for k, (name, parameter) in enumerate(sorted(neck.named_parameters())):
            i = torch.arange(parameter.numel(), dtype=torch.float64)
            scale = 1 / math.sqrt(parameter[0].numel()) if parameter.dim() > 1 else 0.1
            values = torch.sin(0.7 * i + 1.3 * k) * scale
            parameter.copy_((values + name.endswith(("norm1.weight", "norm2.weight"))).view_as(parameter))
    return neck


def formula_input() -> Tensor:
    i = torch.arange(64 * 5 * 7, dtype=torch.float64)
    return torch.sin(0.11 * i + 0.5 * torch.cos(0.013 * i)).view(1, 64, 5, 7)


def random_neck(channels: int = 64) -> GlmdNeck:
    torch.manual_seed(0)
    return GlmdNeck(channels).eval()


def summary(x: Tensor) -> tuple[float, ...]:
    return float(x.sum()), float(x.abs().mean()), float(x.flatten()[0]), float(x.flatten()[-1])


def test_state_dict_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        neck = GlmdNeck()
    assert {name: tuple(tensor.shape) for name, tensor in neck.state_dict().items()} == SHAPES
    assert list(neck.buffers()) == []


def test_every_part_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        neck = GlmdNeck()
    assert count(neck.global_module) == 8_399_872
    assert count(neck.local_module) == 3_289_186
    assert count(neck.global_conv) + count(neck.local_conv) == 18_876_416
    assert count(neck) == 30_565_474


def test_initial_weights_fill_the_published_bounds_and_biases_are_zero() -> None:
    neck = GlmdNeck()
    for name, parameter in neck.named_parameters():
        if name in BOUNDS:
            # The largest of n uniform samples misses the bound by 1/n of it; n is 98 for the smallest weight.
            assert BOUNDS[name] * 0.9 < float(parameter.detach().abs().max()) < BOUNDS[name] + 5e-5, name
            assert abs(float(parameter.detach().mean())) < 3 * BOUNDS[name] / math.sqrt(3 * parameter.numel()), name
        else:
            assert parameter.dim() == 1
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith(("1.weight", "2.weight")))))


@torch.no_grad()
def test_every_intermediate_has_its_golden_values() -> None:
    neck, x = formula_neck(), formula_input()
    seen: dict[str, Tensor] = {"x": x}
    names = {module: name for name, module in neck.named_modules()}

    def remember_first(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.setdefault(names[module], output)

    for module, name in names.items():
        if name in GOLDEN:
            module.register_forward_hook(remember_first)
    seen["out"] = neck(x)
    rows, columns = sine_position_code(5, 7, 64)
    seen["position code"] = (rows + columns).double()
    gated = mutual_gate(seen["global_module"], seen["local_module"])
    seen["gated context"], seen["gated detail"] = gated.chunk(2, dim=1)
    for name, golden in GOLDEN.items():
        assert summary(seen[name]) == pytest.approx(golden, abs=1e-6, rel=0), name


@torch.no_grad()
def test_float32_gives_the_golden_values_within_its_rounding() -> None:
    golden = formula_neck()(formula_input())
    torch.testing.assert_close(formula_neck().float()(formula_input().float()).double(), golden, rtol=0, atol=2e-6)


@torch.no_grad()
def test_images_of_a_batch_do_not_influence_each_other() -> None:
    x = formula_input()
    batch = torch.cat([x, x.flip(3)])
    y = formula_neck()(batch)
    assert y.sum((1, 2, 3)).tolist() == pytest.approx([1.387603089, 1.385193220], abs=1e-6)
    for image, refined in zip(batch, y, strict=True):
        torch.testing.assert_close(formula_neck()(image[None])[0], refined, rtol=0, atol=1e-12)


@torch.no_grad()
def test_legacy_batch_mixing_gives_the_published_values() -> None:
    x = formula_input()
    batch = torch.cat([x, x.flip(3)])
    legacy = formula_neck(legacy_batch_mixing=True)
    assert legacy(batch).sum((1, 2, 3)).tolist() == pytest.approx([1.387543411, 1.385248358], abs=1e-6)
    assert float((legacy(batch) - formula_neck()(batch)).abs().max()) == pytest.approx(2.12e-4, abs=5e-7)
    torch.testing.assert_close(legacy(x), formula_neck()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("channel", "y", "x", "value"),
    [
        *((0, 1, 0, 0.841471), (1, 1, 0, 0.540302), (0, 3, 5, 0.141120), (2, 3, 5, 0.245085), (511, 3, 5, 1.0)),
        *((512, 3, 5, -0.958924), (513, 3, 5, 0.283662), (514, 49, 75, -0.092852), (1023, 49, 75, 0.999970)),
    ],
)
def test_position_code_has_its_golden_entries(channel: int, y: int, x: int, value: float) -> None:
    rows, columns = sine_position_code(50, 76, 1024)
    assert float((rows + columns)[y, x, channel]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_position_code_is_float32_whatever_the_default(dtype: torch.dtype) -> None:
    expected = sine_position_code(50, 76, 64)
    torch.set_default_dtype(dtype)
    try:
        actual = sine_position_code(50, 76, 64)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@torch.no_grad()
def test_zero_fusion_convolutions_make_the_identity() -> None:
    neck = random_neck()
    for conv in (neck.global_conv, neck.local_conv):
        nn.init.zeros_(conv.weight)
    x = torch.randn(2, 64, 6, 9)
    assert torch.equal(neck(x), x)


@torch.no_grad()
def test_fresh_context_has_zero_mean_and_unit_variance_at_every_pixel() -> None:
    neck = random_neck().double()
    assert neck.global_module is not None
    context = neck.global_module(10 * torch.randn(2, 64, 6, 9, dtype=torch.float64))
    variance, mean = torch.var_mean(context, dim=1, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-5)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0, atol=1e-5)


@torch.no_grad()
def test_fresh_neck_is_not_the_identity() -> None:
    x = torch.randn(1, 64, 6, 9)
    assert float((random_neck()(x) - x).abs().max()) > 0.1


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (8, 1), (5, 7), (33, 20)])
def test_any_size_is_taken(height: int, width: int) -> None:
    x = torch.randn(2, 64, height, width)
    y = random_neck()(x)
    assert y.shape == x.shape and bool(torch.isfinite(y).all())


@torch.no_grad()
def test_context_depends_on_the_place() -> None:
    neck, x = random_neck(), torch.zeros(1, 64, 8, 8)
    x[..., 2, 2] = 1
    shifted = neck(x.roll((3, 3), (2, 3))).roll((-3, -3), (2, 3))
    assert float((neck(x) - shifted)[..., 2, 2].abs().max()) > 0.01


@torch.no_grad()
def test_one_part_alone_is_added_to_the_map() -> None:
    x = torch.randn(1, 64, 5, 7)
    for switches in ({"local_refinement": False}, {"context_modelling": False}):
        neck = GlmdNeck(64, **switches).eval()
        (part,) = neck.children()
        assert isinstance(part, LocalRefinement) == ("context_modelling" in switches)
        assert torch.equal(neck(x), part(x) + x)
    neither = GlmdNeck(64, context_modelling=False, local_refinement=False)
    assert count(neither) == 0 and torch.equal(neither(x), x)


def test_gradients_reach_every_parameter_and_the_map() -> None:
    neck, x = random_neck().train(), torch.randn(2, 64, 6, 9, requires_grad=True)
    neck(x).square().mean().backward()
    for name, tensor in (("x", x), *neck.named_parameters()):
        assert tensor.grad is not None and bool(torch.isfinite(tensor.grad).all()), name
        assert float(tensor.grad.abs().sum()) > 0, name


def test_dropout_acts_in_training_alone() -> None:
    neck, x = random_neck(), torch.randn(1, 64, 6, 9)
    with torch.no_grad():
        assert torch.equal(neck(x), neck(x))
        neck.train()
        assert not torch.equal(neck(x), neck(x))


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
def test_half_precision_stays_near_float32(dtype: torch.dtype, tolerance: float) -> None:
    neck, x = random_neck(), torch.relu(torch.randn(1, 64, 12, 19))
    expected = neck(x)
    with torch.autocast("cpu", dtype=dtype):
        mixed = neck(x)
    assert float((mixed.float() - expected).abs().max()) < tolerance
    half = neck.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    assert float((half.float() - expected).abs().max()) < tolerance


def test_export_is_right_at_other_sizes() -> None:
    neck, free = random_neck(), torch.export.Dim.DYNAMIC
    sides = ({0: free, 2: free, 3: free},)
    program = torch.export.export(neck, (torch.randn(2, 64, 6, 9),), dynamic_shapes=sides).module()
    with torch.no_grad():
        for size in ((1, 5, 7), (3, 12, 4)):
            x = torch.randn(size[0], 64, *size[1:])
            torch.testing.assert_close(program(x), neck(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 60}, "channels is a multiple of heads"),
        ({"channels": 6, "heads": 2, "ca_ratio": 2}, "and of 4"),
        ({"channels": 8, "heads": 2}, "at least ca_ratio"),
        ({"sa_kernel": 6}, "sa_kernel is odd, not 6"),
        ({"fusion": "plus"}, "fusion is 'distill', not 'plus'"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlmdNeck(**{"channels": 64, **options})
