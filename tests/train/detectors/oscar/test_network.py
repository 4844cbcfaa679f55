"""The network equals the published one: parameters, work, shapes, starting values, and what the cascade passes down."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.oscar.head import OscarMaps, cell_points, decode_boxes
from irforge.train.detectors.oscar.network import Oscar

PREDICTORS = tuple(f"coarse_conv_{part}" for part in ("cls", "reg", "mod")) + tuple(
    f"refine_conv_{part}" for part in ("cls", "reg", "mod", "noco")
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def run(network: Oscar, x: Tensor) -> OscarMaps:
    with torch.no_grad():
        maps: OscarMaps = network.eval()(x)
    return maps


def multiply_accumulates_a_pixel(network: Oscar) -> float:
    """Of all convolutions, counted on 64 x 64 pixels; sides are multiples of 32, so the work grows with the area."""
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output[0].numel() * module.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    run(network, torch.zeros(1, 3, 64, 64))
    return total / 64**2


@pytest.mark.parametrize(
    ("channels", "published", "used", "neck", "head"),
    [(128, 12_877_999, 12_582_831, 713_728, 968_527), (256, 17_656_815, 16_476_655, 2_607_104, 3_853_967)],
)
def test_parameters_are_the_published_ones(channels: int, published: int, used: int, neck: int, head: int) -> None:
    complete, lean = Oscar(channels, dead_convolutions=True), Oscar(channels)
    assert count(complete) == published
    assert count(lean) == used
    assert len(list(complete.parameters())) == 158
    assert (count(complete.backbone), count(complete.neck), count(complete.bbox_head)) == (11_195_744, neck, head)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (128, {(256, 256): 6.31, (512, 512): 25.25, (512, 640): 31.57, (608, 768): 44.98, (800, 1280): 98.64}),
        (256, {(256, 256): 17.04, (512, 512): 68.17, (512, 640): 85.21, (608, 768): 121.42, (800, 1280): 266.27}),
    ],
)
def test_convolutions_cost_what_was_counted_on_the_original(
    channels: int, expected: dict[tuple[int, int], float]
) -> None:
    work = multiply_accumulates_a_pixel(Oscar(channels))
    for (height, width), billions in expected.items():
        assert work * height * width / 1e9 == pytest.approx(billions, abs=0.01)


def test_maps_have_the_levels_sizes_and_float32() -> None:
    maps = run(Oscar(64), torch.zeros(1, 3, 608, 768))
    assert [tuple(m.shape) for m in maps] == [
        (1, 1, 152, 192),
        (1, 4, 152, 192),
        (1, 1, 152, 192),
        (1, 1, 76, 96),
        (1, 4, 76, 96),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        maps = run(Oscar(128, in_channels=1), torch.zeros(1, 1, 64, 64))
    assert {m.dtype for m in maps} == {torch.float32}


def test_the_untrained_network_starts_as_published() -> None:
    torch.manual_seed(0)
    network = Oscar(128)
    head = network.bbox_head
    weights = torch.cat([m.weight.detach().flatten() for m in head.modules() if isinstance(m, nn.Conv2d)])
    assert weights.mean().abs() < 1e-4
    assert weights.std() == pytest.approx(0.01, rel=0.01)
    assert all(getattr(head, name).bias.abs().max() == 0 for name in PREDICTORS)
    assert [scale.scale.item() for scale in head.scales] == [1.0, 1.0]
    block = network.backbone.layer2[0]
    assert block.bn1.weight.min() == 1 and block.bn2.weight.abs().max() == 0
    fan_out = block.conv1.weight.shape[0] * 9
    assert block.conv1.weight.detach().std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.02)
    lateral = network.neck.lateral_convs[3].conv
    assert lateral.weight.detach().abs().max() == pytest.approx(math.sqrt(6 / (512 + 128)), rel=0.01)
    assert lateral.bias.abs().max() == 0


def test_a_prior_is_where_the_ungated_class_logits_start() -> None:
    head = Oscar(128, prior=0.01).bbox_head
    for name in PREDICTORS:
        expected = -math.log(99) if name.endswith("cls") else 0.0
        assert getattr(head, name).bias.tolist() == pytest.approx([expected] * len(getattr(head, name).bias))


def test_with_zeroed_predictors_each_cell_gives_a_2x2_box_around_its_parents_point() -> None:
    network = Oscar(128)
    for name in PREDICTORS:
        nn.init.zeros_(getattr(network.bbox_head, name).weight)
    maps = run(network, torch.randn(1, 3, 64, 96))
    score = torch.sigmoid(maps.refine_logit) * torch.sigmoid(maps.noco_logit)
    assert torch.equal(score, torch.full((1, 1, 16, 24), 0.25))
    assert torch.equal(torch.sigmoid(maps.coarse_logit), torch.full((1, 1, 8, 12), 0.5))
    assert torch.equal(maps.ltrb, torch.ones(1, 4, 8, 12))
    _, refined = decode_boxes(maps)
    assert refined[0, :, 5, 9].tolist() == [8 * 4.5 - 1, 8 * 2.5 - 1, 8 * 4.5 + 1, 8 * 2.5 + 1]


def test_a_fine_cell_shifts_the_corners_of_its_parents_box_by_four_pixels_a_unit() -> None:
    maps = OscarMaps(
        torch.zeros(1, 1, 4, 6),
        torch.zeros(1, 4, 4, 6),
        torch.zeros(1, 1, 4, 6),
        torch.zeros(1, 1, 2, 3),
        torch.ones(1),
    )
    ltrb = torch.rand(1, 4, 2, 3) * 9
    delta = torch.randn(1, 4, 4, 6)
    coarse, refined = decode_boxes(maps._replace(ltrb=ltrb, delta=delta))
    left, top, right, bottom = ltrb[0, :, 1, 2].tolist()
    box = [20 - left, 12 - top, 20 + right, 12 + bottom]
    assert coarse[0, :, 1, 2].tolist() == pytest.approx(box)
    for row, column in ((2, 4), (3, 5)):
        shifted = [side + 4 * shift for side, shift in zip(box, delta[0, :, row, column].tolist(), strict=True)]
        assert refined[0, :, row, column].tolist() == pytest.approx(shifted, abs=1e-5)


def test_cell_points_are_the_middles_of_the_cells() -> None:
    x, y = cell_points(2, 3, 8, torch.zeros(1))
    assert x.tolist() == [4, 12, 20]
    assert y.tolist() == [[4], [12]]


def test_each_level_gates_the_others_class_logit() -> None:
    network = Oscar(128)
    head = network.bbox_head
    x = torch.randn(1, 3, 64, 64)
    for name in ("coarse_conv_mod", "refine_conv_mod"):
        nn.init.zeros_(getattr(head, name).weight)
    half = run(network, x)
    nn.init.constant_(head.coarse_conv_mod.bias, 40.0)
    opened = run(network, x)
    assert torch.allclose(opened.refine_logit, 2 * half.refine_logit)
    assert torch.equal(opened.coarse_logit, half.coarse_logit)
    nn.init.constant_(head.refine_conv_mod.bias, -40.0)
    closed = run(network, x)
    assert closed.coarse_logit.abs().max() < 1e-12
    assert torch.equal(closed.refine_logit, opened.refine_logit)


def test_gradients_of_the_refined_box_reach_the_coarse_branch() -> None:
    network = Oscar(128)
    _, refined = decode_boxes(network(torch.randn(1, 3, 64, 64)))
    refined.sum().backward()
    assert network.bbox_head.coarse_conv_reg.bias.grad.abs().max() > 0
    assert network.backbone.stem[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
            lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest-exact"),
        ),
        (
            lambda x: F.avg_pool2d(x, 2),
            lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False),
        ),
    ],
)
def test_exportable_resizing_equals_the_published_one(
    ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor]
) -> None:
    x = torch.randn(2, 3, 12, 20)
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"channels": 100}, {"channels": 0}, {"prior": 0.0}, {"prior": 1.0}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Oscar(**options)  # type: ignore[arg-type]
