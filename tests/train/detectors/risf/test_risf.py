"""RISF's detector as published: its size, what trains in each stage, and its names."""

from __future__ import annotations

import pytest
import torch

from irforge.train.detectors.registry import find_detector
from irforge.train.detectors.risf.deploy import RISF
from irforge.train.detectors.risf.loss import BackgroundNegativeRescaleLoss
from irforge.train.detectors.twostage.loss import TwoStageLoss
from irforge.train.detectors.twostage.network import TwoStage

BASE = {"roi_gradient": 0.75, "freeze_res5": False, "class_dropout": 0.0}


@pytest.mark.parametrize(
    ("classes", "total", "base", "tuned"),
    [
        (60, 52_530_744, 51_095_928, None),
        (20, 52_120_944, None, 35_743_920),
        (80, 52_735_644, None, 36_358_620),
        (15, 52_069_719, 50_634_903, None),
        (5, 51_967_269, None, 35_590_245),
    ],
)
def test_the_published_numbers_of_parameters(classes: int, total: int, base: int | None, tuned: int | None) -> None:
    for expected, options in ((base, BASE), (tuned, {})):
        with torch.device("meta"):
            network = RISF.build(class_count=classes, **options)
        assert sum(p.numel() for p in network.parameters()) == total
        if expected is not None:
            assert sum(p.numel() for p in network.parameters() if p.requires_grad) == expected


def test_its_state_has_the_published_entries() -> None:
    with torch.device("meta"):
        state = RISF.build(class_count=20).state_dict()
    assert len(state) == 534
    for name in ("backbone.res4.22.conv3.norm.running_var", "roi_heads.res5.0.shortcut.weight", "affine_rpn.bias"):
        assert name in state


def test_its_defaults_are_those_of_the_few_shot_stage() -> None:
    assert find_detector("risf") is RISF
    with torch.device("meta"):
        network = RISF.build(class_count=20)
    assert isinstance(network, TwoStage)
    assert (network.rpn_gradient, network.roi_gradient, network.roi_heads.dropout.p) == (0.0, 0.01, 0.8)
    criterion = RISF.loss()
    assert isinstance(criterion, TwoStageLoss)
    assert criterion.classification == BackgroundNegativeRescaleLoss()


def test_weights_of_both_few_shot_systems_are_told_apart() -> None:
    with torch.device("meta"):
        glmd, risf = find_detector("glmd-ca"), find_detector("risf")
        theirs, ours = glmd.build(class_count=11).state_dict(), risf.build(class_count=20).state_dict()
    assert risf.options_of(theirs) is None and glmd.options_of(theirs) is not None
    assert risf.options_of(ours) is not None
    assert find_detector("faster-rcnn").options_of(ours) is None and find_detector("oscar").options_of(ours) is None
