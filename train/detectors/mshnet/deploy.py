"""MSHNet as the stages see it: options, loss, deployable module, contract, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from irforge.contract import InputSpec, Normalization, OutputSpec, Squash, TensorSpec
from irforge.train.detectors.base import Deployable, MaskLoss, Normalise
from irforge.train.detectors.mshnet import loss as losses
from irforge.train.detectors.mshnet.network import STRIDE, MSHNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class MaskDeployable(Deployable):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> mask float32 N x 1 x H x W, probabilities of a target."""

    def __init__(self, network: MSHNet, mean: tuple[float, ...], std: tuple[float, ...], gain: str = "none") -> None:
        super().__init__()
        self.normalise = Normalise(mean, std, gain)
        self.network = network
        self.stride = STRIDE

    def forward(self, frames: Tensor) -> Tensor:
        _, final = self.network(self.normalise(frames))
        return torch.sigmoid(final)


class Mshnet:
    """The registry's entry."""

    name = "mshnet"
    title = "MSHNet (Liu et al., CVPR 2024)"
    target: Literal["mask", "boxes"] = "mask"

    def build(self, **options: Any) -> nn.Module:
        return MSHNet(**options)

    def loss(self, **options: Any) -> MaskLoss:
        """Options: `warm_epochs`; `head_weight` of each head against the fused output's 1; and the terms' weights and
        settings, as `mixed_loss` takes them."""
        warm_epochs = options.pop("warm_epochs", 0)
        head_weight = options.pop("head_weight", 1.0)

        def terms(logits: Tensor, target: Tensor, warm: bool) -> Tensor:
            return losses.mixed_loss(logits, target, warm=warm, **options)

        # An unknown option is refused now, not after the data were read.
        terms(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), True)

        def loss(network: nn.Module, frames: Tensor, target: Tensor, epoch: int) -> Tensor:
            warm = epoch < warm_epochs
            heads, final = network(frames, not warm)
            return losses.deep_supervision(heads, final, target, partial(terms, warm=warm), head_weight)

        return loss

    def logits(self, network: nn.Module, frames: Tensor, epoch: int) -> Tensor:
        _, final = network(frames)
        result: Tensor = final
        return result

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable:
        assert isinstance(network, MSHNet)
        mean: tuple[float, ...]
        std: tuple[float, ...]
        if network.conv_init.in_channels == 1:
            mean, std = (spec.normalization.mean,), (spec.normalization.std,)
        else:
            mean, std = tuple(255 * m for m in IMAGENET_MEAN), tuple(255 * s for s in IMAGENET_STD)
        gain = spec.gain.kind if spec.door == "float32" else "none"
        return MaskDeployable(network, mean, std, gain)

    def output(self, score_threshold: float) -> OutputSpec:
        mask = TensorSpec(
            name="mask", dtype="float32", shape=["N", 1, "H", "W"], meaning="probability that the pixel is target"
        )
        return OutputSpec(kind="mask", classes=["target"], score_threshold=score_threshold, tensors=[mask])

    def published_input(self, options: Mapping[str, Any]) -> InputSpec:
        mean, std = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
        return InputSpec(
            height=256,
            width=256,
            fit=Squash(),
            normalization=Normalization(mean=255 * mean, std=255 * std),
        )

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """`in_channels` and `head_kernel` from the shapes; None unless the names are MSHNet's."""
        expected = MSHNet().state_dict().keys()
        if set(weights) != set(expected):
            return None
        return {
            "in_channels": int(weights["conv_init.weight"].shape[1]),
            "head_kernel": int(weights["output_0.weight"].shape[-1]),
        }


MSHNET = Mshnet()
