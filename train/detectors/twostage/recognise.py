"""The options of a two-stage network from its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from irforge.train.detectors.twostage.backbone import BLOCKS, uses_bottlenecks
from irforge.train.detectors.twostage.network import TwoStage

_CLASSES = "roi_heads.box_predictor.cls_score.weight"


def options_of(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The options that names and shapes show, as `TwoStage` takes them; None unless the names are such a network's.

    Class names, the place of strides and the anchors' sizes cannot be seen.
    """
    body = "backbone.bottom_up." if "backbone.fpn_output2.weight" in weights else "backbone."
    depth = depth_of(weights, body)
    stem = weights.get(f"{body}stem.conv1.weight")
    if depth is None or stem is None or _CLASSES not in weights:
        return None
    found = {
        "class_count": int(weights[_CLASSES].shape[0]) - 1,
        "depth": depth,
        "pyramid": body != "backbone.",
        "in_channels": int(stem.shape[1]),
        "norm": "batch" if f"{body}stem.conv1.norm.num_batches_tracked" in weights else "frozen",
        "neck": any(name.startswith("glmd_network.") for name in weights),
        "affine": "affine_rcnn.weight" in weights,
        "decouple": "roi_heads.decouple_cls_layer.0.weight" in weights,
    }
    seen = tuple(sorted((name, value) for name, value in found.items() if name != "class_count"))
    # The neck's own options change its names; those of its weights are compared when they are loaded.
    names = {name for name in weights if not name.startswith("glmd_network.")}
    return found if names == _names(seen) else None


def depth_of(weights: Mapping[str, Tensor], body: str) -> int | None:
    """The depth of the ResNet whose weights begin with `body`, or None where there is none."""
    last = "roi_heads.res5." if body == "backbone." else f"{body}res5."
    stages = [f"{body}res2.", f"{body}res3.", f"{body}res4.", last]
    blocks = tuple(
        len({name[len(stage) :].split(".")[0] for name in weights if name.startswith(stage)}) for stage in stages
    )
    bottlenecks = f"{body}res2.0.conv3.weight" in weights
    fitting = [d for d, counts in BLOCKS.items() if counts == blocks and uses_bottlenecks(d) == bottlenecks]
    return fitting[0] if fitting else None


@lru_cache(maxsize=16)
def _names(seen: tuple[tuple[str, Any], ...]) -> frozenset[str]:
    options = {**dict(seen), "neck": False, "freeze_at": 0}
    with torch.device("meta"):
        return frozenset(TwoStage(**options).state_dict())
