"""MSHNet as the stages see it: its warm-up, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from irforge.train.detectors.mask_network import Outputs
from irforge.train.detectors.masks import MaskEntry, Published
from irforge.train.detectors.mshnet.network import MSHNet


class Mshnet(MaskEntry):
    """In the warm-up epochs the finest head alone is trained, and is the prediction."""

    def outputs(self, network: nn.Module, frames: Tensor, warm: bool) -> Outputs:
        result: Outputs = network(frames, not warm)
        return result


def options_of(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """`in_channels` and `head_kernel` from the shapes; None unless the names are MSHNet's."""
    expected = MSHNet().state_dict().keys()
    if set(weights) != set(expected):
        return None
    return {
        "in_channels": int(weights["conv_init.weight"].shape[1]),
        "head_kernel": int(weights["output_0.weight"].shape[-1]),
    }


MSHNET = Mshnet("mshnet", "MSHNet (Liu et al., CVPR 2024)", MSHNet, options_of, Published(256, "sls"))
