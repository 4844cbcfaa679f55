"""DNA-Net as the stages see it, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from irforge.train.detectors.dnanet.network import BLOCKS, DNANet
from irforge.train.detectors.masks import MaskEntry, Published


def options_of(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """`in_channels` and `backbone`; None unless the weights are those of a DNA-Net with its four heads."""
    if "conv0_0.0.conv1.weight" not in weights or "final4.weight" not in weights:
        return None
    counts = tuple(
        len({name.split(".")[1] for name in weights if name.startswith(f"conv{level}_0.")}) for level in range(1, 5)
    )
    backbone = next((name for name, blocks in BLOCKS.items() if blocks == counts), None)
    if backbone is None:
        return None
    options: dict[str, Any] = {
        "in_channels": int(weights["conv0_0.0.conv1.weight"].shape[1]),
        "backbone": backbone,
    }
    return options if set(weights) == set(DNANet(**options).state_dict()) else None


DNANET = MaskEntry("dna-net", "DNA-Net (Li et al., TIP 2023)", DNANet, options_of, Published(256, "batch-iou"))
