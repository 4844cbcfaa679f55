"""ACM as the stages see it, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from irforge.train.detectors.acm.network import POOLED, acm
from irforge.train.detectors.masks import MaskEntry, Published


def options_of(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """All options from names and shapes, but for `align_corners`, which leaves no trace; None unless they are ACM's."""
    decoder, fuse = ("fpn", "fuse12") if "fuse12.post.0.weight" in weights else ("unet", "fuse1")
    if "stem.1.weight" not in weights or f"{fuse}.post.0.weight" not in weights:
        return None
    # A gate of the whole map begins with the mean, which has no weights.
    pooled = tuple(f"{fuse}.{gate}.1.running_mean" not in weights for gate in ("topdown", "bottomup"))
    fusion = next((name for name, gates in POOLED.items() if gates == pooled), None)
    if fusion is None:
        return None
    options: dict[str, Any] = {
        "decoder": decoder,
        "in_channels": int(weights["stem.1.weight"].shape[1]),
        "blocks": len({name.split(".")[1] for name in weights if name.startswith("layer1.")}),
        "fusion": fusion,
        "tiny": "stem.4.weight" not in weights,
    }
    if decoder == "unet":
        options["reduce"] = "fuse1.feature_high.0.weight" in weights
    return options if set(weights) == set(acm(**options).state_dict()) else None


ACM = MaskEntry("acm", "ACM (Dai et al., WACV 2021)", acm, options_of, Published(512, "soft-iou"))
