"""What the options make of the network: sizes, what trains, and rewrites that change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from irforge.train.detectors.twostage.backbone import Body, ChannelAffine, make_stage
from irforge.train.detectors.twostage.deploy import FASTER_RCNN
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.roi_heads import RoiHeads, level_of
from irforge.train.ops.roi_align import pool_boxes, roi_align

Make = Callable[..., TwoStage]


def test_faster_rcnn_has_the_parameters_that_deepinfrareds_log_counts() -> None:
    """41,753,056 with 80 classes, of which 53,120 are the affines of norms that are constants here."""
    with torch.device("meta"):
        network = FASTER_RCNN.build(class_count=80)
    assert sum(p.numel() for p in network.parameters()) == 41_753_056 - 53_120


@pytest.mark.parametrize("size", [(64, 96), (72, 88), (33, 100)])
def test_one_map_of_stride_16_rounds_sides_up(lively: Make, size: tuple[int, int]) -> None:
    levels, rpn = lively()(torch.rand(1, 1, *size))
    height, width = -(-size[0] // 16), -(-size[1] // 16)
    assert [tuple(level.shape) for level in levels] == [(1, 256, height, width)]
    assert rpn.logits[0].shape == (1, 15, height, width) and rpn.deltas[0].shape == (1, 60, height, width)


def test_the_pyramid_has_four_levels_for_boxes_and_five_for_proposals(lively: Make) -> None:
    network = lively(pyramid=True)
    levels, rpn = network(torch.rand(1, 1, 64, 128))
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 32), (8, 16), (4, 8), (2, 4)]
    assert [tuple(logit.shape[1:]) for logit in rpn.logits] == [
        (3, 16, 32),
        (3, 8, 16),
        (3, 4, 8),
        (3, 2, 4),
        (3, 1, 2),
    ]


def test_one_channel_serves_a_network_of_three(lively: Make) -> None:
    network, x = lively(), torch.rand(1, 1, 64, 64)
    assert torch.equal(network(x).levels[0], network(x.repeat(1, 3, 1, 1)).levels[0])


def test_levels_of_boxes() -> None:
    """floor(4 + log2(side / 224)), from P2 to P5."""
    sides = torch.tensor([1.0, 111, 112, 223, 224, 447, 448, 2000])
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], dim=1)
    assert level_of(boxes, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not level_of(boxes, 1).any()


def decoupled(rpn_gradient: float, roi_gradient: float) -> TwoStage:
    torch.manual_seed(3)
    options: dict[str, Any] = {"depth": 18, "pyramid": False, "affine": True, "freeze_at": 3}
    return TwoStage(rpn_gradient=rpn_gradient, roi_gradient=roi_gradient, **options)


def gradients(network: TwoStage, of_rpn: bool) -> dict[str, torch.Tensor | None]:
    levels, rpn = network(torch.linspace(-1, 1, 48 * 48).view(1, 1, 48, 48))
    boxes = [torch.tensor([[4.0, 4, 40, 30]])]
    (rpn.logits[0].sum() if of_rpn else network.pool(levels, boxes).square().sum()).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def test_a_stopped_rpn_teaches_its_affine_and_not_the_backbone() -> None:
    found = gradients(decoupled(0.0, 1.0), of_rpn=True)
    assert all(grad is None for name, grad in found.items() if name.startswith("backbone."))
    assert found["affine_rpn.weight"] is not None and found["affine_rpn.weight"].any()


def test_the_second_stages_gradient_is_scaled_behind_its_affine() -> None:
    whole, scaled = (gradients(decoupled(0.0, factor), of_rpn=False) for factor in (1.0, 0.01))
    name = "backbone.res4.1.conv2.weight"
    assert torch.allclose(scaled[name], 0.01 * whole[name], rtol=1e-4, atol=1e-9) and whole[name].any()
    assert torch.allclose(scaled["affine_rcnn.weight"], whole["affine_rcnn.weight"], rtol=1e-5)


def test_frozen_parts_do_not_train() -> None:
    with torch.device("meta"):
        network = TwoStage(depth=50, pyramid=False, freeze_at=3, freeze_res5=True)
    trained = {name.rsplit(".", 2)[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert not any(
        name.startswith(("backbone.stem", "backbone.res2", "backbone.res3", "roi_heads.res5")) for name in trained
    )
    assert any(name.startswith("backbone.res4") for name in trained)


def test_learnt_norms_of_frozen_parts_stay_as_they_are() -> None:
    network = TwoStage(depth=18, pyramid=False, norm="batch", freeze_at=2).train()
    norms = {name: m.training for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert not any(norms[name] for name in norms if name.startswith(("backbone.stem", "backbone.res2")))
    assert all(norms[name] for name in norms if name.startswith(("backbone.res3", "roi_heads.res5")))


def test_dropout_is_of_the_classifier_alone() -> None:
    heads = RoiHeads(Body(18, "frozen", False), False, 2, decouple=True, dropout=0.8).train()
    pooled = torch.rand(6, 256, 7, 7)
    logits, deltas = heads(pooled)
    others, same = heads(pooled)
    assert not torch.equal(logits, others) and torch.equal(deltas, same)
    first, second = (heads.eval()(pooled) for _ in range(2))
    assert torch.equal(first[0], second[0])


def test_every_second_bin_is_all_that_a_strided_block_reads() -> None:
    """Bit by bit for what the first convolutions get; the block's result within rounding of another kernel."""
    torch.manual_seed(0)
    maps, boxes = torch.rand(1, 64, 8, 9), torch.tensor([[[3.0, 8, 120, 90], [0, 0, 144, 128]]])
    every_bin, needed = (roi_align(maps, boxes, 1 / 16, 7, every) for every in (1, 2))
    assert needed.shape[2:] == (4, 4) and torch.equal(every_bin[:, :, ::2, ::2], needed)
    weight = torch.randn(16, 64, 1, 1)
    assert torch.allclose(F.conv2d(every_bin, weight, stride=2), F.conv2d(needed, weight), atol=1e-5)


def test_res5_takes_the_affine_into_its_weights() -> None:
    torch.manual_seed(0)
    block = make_stage(Body(50, "frozen", True), 3)[0]
    affine = ChannelAffine(256)
    affine.weight.data.uniform_(0.5, 1.5)
    affine.bias.data.uniform_(-1, 1)
    x = torch.rand(2, 256, 7, 7)
    with torch.no_grad():
        expected, found = block(affine(x)), block.on_samples(x[:, :, ::2, ::2], affine)
    assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_the_affine_does_the_same_before_and_after_pooling() -> None:
    affine = ChannelAffine(3)
    affine.weight.data.uniform_(0.5, 1.5)
    affine.bias.data.uniform_(-1, 1)
    maps, boxes = torch.rand(3, 6, 8), torch.tensor([[0.0, 0, 128, 96], [20, 30, 70, 44]])
    before, after = pool_boxes(affine(maps[None])[0], boxes, 7, 1 / 16), affine(pool_boxes(maps, boxes, 7, 1 / 16))
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 20}, "depth is one of 18"),
        ({"norm": "group"}, "norm is one of"),
        ({"neck": True}, "belong to the C4 form"),
        ({"anchor_sizes": (8, 16)}, "five|5 levels"),
        ({"candidates": 4000}, "3840"),
        ({"candidates": 100, "proposals": 200}, "proposals <= candidates"),
        ({"classes": ["a", "a"]}, "different names"),
        ({"classes": ["a", "b"], "class_count": 3}, "2 names for 3 classes"),
        ({"freeze_at": 6}, "freeze_at"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words), torch.device("meta"):
        TwoStage(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 50, "pyramid": True},
        {"depth": 18, "pyramid": True, "norm": "batch", "in_channels": 1},
        {"depth": 34, "pyramid": False, "class_count": 4},
        {"depth": 101, "pyramid": False, "affine": True},
        {"depth": 50, "pyramid": False, "affine": True, "neck": True, "decouple": True},
    ],
)
def test_weights_say_which_options_they_were_made_with(options: dict[str, Any]) -> None:
    from irforge.train.detectors.twostage.recognise import options_of

    with torch.device("meta"):
        weights = TwoStage(**options).state_dict()
    found = options_of(weights)
    assert found is not None
    expected = {"class_count": 1, "in_channels": 3, "norm": "frozen", "neck": False, "affine": False, "decouple": False}
    assert found == expected | options
    weights["another.weight"] = weights["proposal_generator.rpn_head.conv.bias"]
    assert options_of(weights) is None
