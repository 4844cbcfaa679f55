"""CenterNet as the stages see it: options, loss, deployable module, contract, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from irforge.contract import InputSpec, Letterbox, Normalization, OutputSpec
from irforge.train.detectors.base import BoxLoss, Deployable, Normalise
from irforge.train.detectors.boxes import box_output
from irforge.train.detectors.centernet.loss import CenterNetLoss
from irforge.train.detectors.centernet.network import CenterMaps, CenterNet
from irforge.train.detectors.itd.deploy import ITD
from irforge.train.detectors.twostage.recognise import depth_of
from irforge.train.ops.peaks import peak_boxes

MEAN, STD = 111.89, 27.62
DETECTIONS = 100
BODY = "backbone.bottom_up."


def decode(maps: CenterMaps, k: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best peaks of all classes as boxes, without suppression: see `peak_boxes`. Sizes below 0 count as 0.

    The published decoding takes every cell that equals its 3x3 maximum, so all of a plateau; `is_peak` takes one.
    """
    heat, size, offset = (each.float() for each in maps)
    half = size.clamp_min(0) / 2
    return peak_boxes(heat, torch.cat([half, half], dim=1), offset, k, side)


class CenterNetDeployable(Deployable):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> (boxes N x k x 4, scores N x k, classes N x k), as
    `decode` gives them."""

    network: CenterNet

    def __init__(
        self, network: CenterNet, mean: float = MEAN, std: float = STD, gain: str = "none", detections: int = DETECTIONS
    ) -> None:
        super().__init__()
        channels = network.in_channels
        self.normalise = Normalise((mean,) * channels, (std,) * channels, gain)
        self.network = network
        self.stride = network.stride
        self.detections = detections

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return decode(self.network(self.normalise(frames)), self.detections, self.network.reduction)


class CenterNetDetector:
    """The registry's entry."""

    name = "centernet"
    title = "CenterNet (Zhou et al., 2019)"
    target: Literal["mask", "boxes"] = "boxes"

    def build(self, **options: Any) -> nn.Module:
        """Options: see `CenterNet`."""
        return CenterNet(**options)

    def loss(self, **options: Any) -> BoxLoss:
        """Options: see `CenterNetLoss`."""
        return CenterNetLoss(**options)

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable:
        assert isinstance(network, CenterNet)
        gain = spec.gain.kind if spec.door == "float32" else "none"
        return CenterNetDeployable(network, spec.normalization.mean, spec.normalization.std, gain)

    def output(self, score_threshold: float) -> OutputSpec:
        return box_output(score_threshold, "probability of the class's centre", DETECTIONS)

    def published_input(self, options: Mapping[str, Any]) -> InputSpec:
        """512 x 512 as published; on ITD's backbone what ITD takes."""
        if options.get("trunk") == "itd":
            return ITD.published_input(options)
        return InputSpec(
            height=512,
            width=512,
            fit=Letterbox(),
            pad_level=float(round(MEAN)),
            normalization=Normalization(mean=MEAN, std=STD),
        )

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """What names and shapes show; None unless they are this network's. Class names and the place of strides cannot
        be seen."""
        heat, hidden = weights.get("heat.2.weight"), weights.get("heat.0.weight")
        if heat is None or hidden is None:
            return None
        found = {"class_count": int(heat.shape[0]), "channels": int(hidden.shape[0])}
        if (stem := weights.get("backbone.stem.entry.0.weight")) is not None:
            found |= {"in_channels": int(stem.shape[1])}
            return {**found, "trunk": "itd"} if _names("itd", 18, "batch") == set(weights) else None
        depth, stem = depth_of(weights, BODY), weights.get(f"{BODY}stem.conv1.weight")
        norm: Literal["frozen", "batch"] = (
            "batch" if f"{BODY}stem.conv1.norm.num_batches_tracked" in weights else "frozen"
        )
        if depth is None or stem is None or _names("resnet", depth, norm) != set(weights):
            return None
        return {**found, "in_channels": int(stem.shape[1]), "trunk": "resnet", "depth": depth, "norm": norm}


@lru_cache(maxsize=8)
def _names(trunk: Literal["resnet", "itd"], depth: int, norm: Literal["frozen", "batch"]) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(CenterNet(trunk=trunk, depth=depth, norm=norm).state_dict())


CENTERNET = CenterNetDetector()
