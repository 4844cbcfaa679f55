"""Small two-stage networks whose random weights find something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from irforge.train.detectors.twostage.backbone import ChannelAffine, FrozenBatchNorm
from irforge.train.detectors.twostage.network import TwoStage

Make = Callable[..., TwoStage]

SMALL: dict[str, Any] = {
    "classes": ["car", "person", "deer"],
    "depth": 18,
    "pyramid": False,
    "freeze_at": 0,
    "anchor_sizes": (8, 16, 32, 48, 64),
    "candidates": 100,
    "proposals": 12,
    "least_score": 0.01,
}


@pytest.fixture(scope="session")
def lively() -> Make:
    """Networks in eval mode with norms that differ by channel and predictors that differ by place and class."""

    def make(seed: int = 0, **options: Any) -> TwoStage:
        torch.manual_seed(seed)
        network = TwoStage(**{**SMALL, **options}).eval()
        for module in network.modules():
            if isinstance(module, FrozenBatchNorm):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.0)
                module.bias.uniform_(-0.1, 0.1)
            elif isinstance(module, ChannelAffine):
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.uniform_(-0.3, 0.3)
        head = network.proposal_generator.get_submodule("rpn_head")
        for part, factor in (("objectness_logits", 10.0), ("anchor_deltas", 3.0)):
            head.get_parameter(f"{part}.weight").data.mul_(factor)
        network.roi_heads.box_predictor.cls_score.weight.data.mul_(60)
        network.roi_heads.box_predictor.bbox_pred.weight.data.mul_(200)
        return network

    return make
