"""FCOS-RFLA as the stages see it: options, loss, deployable module, contract, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from irforge.contract import InputSpec, Letterbox, NonMaximumSuppression, Normalization, OutputSpec
from irforge.train.detectors.base import BoxLoss, Deployable, Normalise
from irforge.train.detectors.boxes import box_output
from irforge.train.detectors.fcos.decode import CANDIDATES, IOU_THRESHOLD, MAX_DETECTIONS, detections
from irforge.train.detectors.fcos.loss import FcosLoss
from irforge.train.detectors.fcos.network import STRIDE, Fcos
from irforge.train.detectors.twostage.recognise import depth_of

MEAN, STD = 111.89, 27.62
BODY = "backbone.bottom_up."


class FcosDeployable(Deployable):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> `detections`, boxes in pixels of the frames."""

    network: Fcos

    def __init__(
        self, network: Fcos, mean: float = MEAN, std: float = STD, gain: str = "none", candidates: int = CANDIDATES
    ) -> None:
        super().__init__()
        if candidates < MAX_DETECTIONS:
            raise ValueError(f"candidates is at least {MAX_DETECTIONS}, not {candidates}")
        channels = network.in_channels
        self.normalise = Normalise((mean,) * channels, (std,) * channels, gain)
        self.network = network
        self.stride = STRIDE
        self.candidates = candidates

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return detections(self.network(self.normalise(frames)), frames.shape[2], frames.shape[3], self.candidates)


class FcosDetector:
    """The registry's entry."""

    name = "fcos-rfla"
    title = "FCOS-RFLA (Tian et al., ICCV 2019; Xu et al., ECCV 2022)"
    target: Literal["mask", "boxes"] = "boxes"

    def build(self, **options: Any) -> nn.Module:
        """Options: see `Fcos`."""
        return Fcos(**options)

    def loss(self, **options: Any) -> BoxLoss:
        """Options: see `FcosLoss`."""
        return FcosLoss(**options)

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable:
        assert isinstance(network, Fcos)
        gain = spec.gain.kind if spec.door == "float32" else "none"
        return FcosDeployable(network, spec.normalization.mean, spec.normalization.std, gain)

    def output(self, score_threshold: float) -> OutputSpec:
        suppression = NonMaximumSuppression(iou_threshold=IOU_THRESHOLD, max_detections=MAX_DETECTIONS)
        return box_output(score_threshold, "class probability x centreness", MAX_DETECTIONS, suppression)

    def published_input(self, options: Mapping[str, Any]) -> InputSpec:
        """What a 640 x 512 or 1280 x 1024 frame becomes in the published run, but for the padding's side and level."""
        return InputSpec(
            height=608,
            width=768,
            fit=Letterbox(),
            pad_level=float(round(MEAN)),
            normalization=Normalization(mean=MEAN, std=STD),
        )

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """What names and shapes show; None unless they are this network's. Class names and the place of strides cannot
        be seen."""
        logits, depth = weights.get("head.logits.weight"), depth_of(weights, BODY)
        if logits is None or depth is None or f"{BODY}stem.conv1.weight" not in weights:
            return None
        norm = "batch" if f"{BODY}stem.conv1.norm.num_batches_tracked" in weights else "frozen"
        if _names(depth, norm) != set(weights):
            return None
        return {
            "class_count": int(logits.shape[0]),
            "depth": depth,
            "in_channels": int(weights[f"{BODY}stem.conv1.weight"].shape[1]),
            "channels": int(logits.shape[1]),
            "norm": norm,
        }


@lru_cache(maxsize=8)
def _names(depth: int, norm: Literal["frozen", "batch"]) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(Fcos(depth=depth, norm=norm).state_dict())


FCOS_RFLA = FcosDetector()
