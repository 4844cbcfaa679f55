"""ALCNet as the stages see it, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from irforge.train.detectors.alcnet.network import ALCNet
from irforge.train.detectors.masks import MaskEntry, Published


def options_of(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """`in_channels` and `blocks`; `align_corners` leaves no trace in weights. None unless they are ALCNet's."""
    if "stem.1.weight" not in weights or "dec_c3.0.weight" not in weights:
        return None
    options: dict[str, Any] = {
        "in_channels": int(weights["stem.1.weight"].shape[1]),
        "blocks": len({name.split(".")[1] for name in weights if name.startswith("layer1.")}),
    }
    return options if set(weights) == set(ALCNet(**options).state_dict()) else None


ALCNET = MaskEntry("alcnet", "ALCNet (Dai et al., TGRS 2021)", ALCNet, options_of, Published(512, "batch-iou"))
