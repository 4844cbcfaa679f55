"""ITD as the stages see it: options, loss, deployable module, contract, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from irforge.contract import InputSpec, Normalization, OutputSpec, PadToMultiple, TensorSpec
from irforge.train.detectors.base import BoxLoss, Deployable, Normalise
from irforge.train.detectors.itd.decode import decode
from irforge.train.detectors.itd.loss import itd_loss
from irforge.train.detectors.itd.network import STRIDE, ITDNet

MEAN, STD = 38.66580139016556, 2.708734413355478
DETECTIONS = 100


class ItdDeployable(Deployable):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> (boxes N x k x 4, scores N x k, classes N x k), as
    `decode` gives them."""

    network: ITDNet

    def __init__(
        self, network: ITDNet, mean: float = MEAN, std: float = STD, gain: str = "none", detections: int = DETECTIONS
    ) -> None:
        super().__init__()
        channels = network.in_channels
        self.normalise = Normalise((mean,) * channels, (std,) * channels, gain)
        self.network = network
        self.stride = STRIDE
        self.detections = detections

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return decode(self.network(self.normalise(frames)), self.detections)


class Itd:
    """The registry's entry."""

    name = "itd"
    title = "ITD (ITTD, 2025)"
    target: Literal["mask", "boxes"] = "boxes"

    def build(self, **options: Any) -> nn.Module:
        return ITDNet(**options)

    def loss(self, **options: Any) -> BoxLoss:
        """Options: `published`, A or B, and what differs from it, as `ItdLoss` takes it."""
        return itd_loss(**options)

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable:
        assert isinstance(network, ITDNet)
        gain = spec.gain.kind if spec.door == "float32" else "none"
        return ItdDeployable(network, spec.normalization.mean, spec.normalization.std, gain)

    def output(self, score_threshold: float) -> OutputSpec:
        k = DETECTIONS
        tensors = [
            TensorSpec(
                name="boxes",
                dtype="float32",
                shape=["N", k, 4],
                meaning="left, top, right, bottom edge, half-open",
                unit="frame pixels",
            ),
            TensorSpec(
                name="scores",
                dtype="float32",
                shape=["N", k],
                meaning="probability of a target, descending; 0 in empty slots",
            ),
            TensorSpec(name="classes", dtype="int64", shape=["N", k], meaning="index into the class names"),
        ]
        return OutputSpec(kind="boxes", classes=["target"], score_threshold=score_threshold, tensors=tensors)

    def published_input(self, options: Mapping[str, Any]) -> InputSpec:
        return InputSpec(
            height=256,
            width=256,
            fit=PadToMultiple(multiple=STRIDE),
            pad_level=float(round(MEAN)),
            normalization=Normalization(mean=MEAN, std=STD),
        )

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """`in_channels` from the shape of the first kernel; None unless the names are ITD's. How branches are fused
        cannot be seen in weights; it is taken to be as published."""
        if set(weights) != set(ITDNet().state_dict()):
            return None
        return {"in_channels": int(weights["backbone.stem.entry.0.weight"].shape[1])}


ITD = Itd()
