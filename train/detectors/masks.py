"""What detectors that mark target pixels share: the deployable module, and the registry's entry with its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from irforge.contract import InputSpec, Normalization, OutputSpec, Squash, TensorSpec
from irforge.train.detectors.base import Deployable, MaskLoss, Normalise
from irforge.train.detectors.mask_network import MaskNetwork, Outputs
from irforge.train.ops.mask_losses import deep_supervision, mixed_loss, weights_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class MaskDeployable(Deployable):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> mask float32 N x 1 x H x W, probabilities of a target."""

    def __init__(
        self, network: MaskNetwork, mean: tuple[float, ...], std: tuple[float, ...], gain: str = "none"
    ) -> None:
        super().__init__()
        self.normalise = Normalise(mean, std, gain)
        self.network = network
        self.stride = network.stride
        self.smallest = network.smallest

    def forward(self, frames: Tensor) -> Tensor:
        _, final = self.network(self.normalise(frames))
        return torch.sigmoid(final)


class Published(NamedTuple):
    """How the authors trained: the side that frames were squashed to, and the name of the loss (see `weights_of`)."""

    side: int
    loss: str


class MaskEntry:
    """An entry of the registry.

    Args:
        make: the network of the recipe's options; TypeError or ValueError for unknown or impossible ones.
        recognise: the options of weights by their names and shapes; None if they are another network's.
    """

    target: Literal["mask", "boxes"] = "mask"

    def __init__(
        self,
        name: str,
        title: str,
        make: Callable[..., MaskNetwork],
        recognise: Callable[[Mapping[str, Tensor]], dict[str, Any] | None],
        published: Published,
    ) -> None:
        self.name = name
        self.title = title
        self.make = make
        self.recognise = recognise
        self.published = published

    def build(self, **options: Any) -> nn.Module:
        return self.make(**options)

    def outputs(self, network: nn.Module, frames: Tensor, warm: bool) -> Outputs:
        """What training supervises; `warm` in the warm-up epochs."""
        result: Outputs = network(frames)
        return result

    def loss(self, **options: Any) -> MaskLoss:
        """Options: `name` of the loss, by default the published one; `warm_epochs`; `head_weight` of each head against
        the final output's 1; and the terms' weights and settings, as `mixed_loss` takes them."""
        warm_epochs = options.pop("warm_epochs", 0)
        head_weight = options.pop("head_weight", 1.0)
        weights = weights_of(str(options.pop("name", self.published.loss)))

        def terms(logits: Tensor, target: Tensor, warm: bool) -> Tensor:
            return mixed_loss(logits, target, warm=warm, **{**weights, **options})

        # An unknown option is refused now, not after the data were read.
        terms(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), True)

        def loss(network: nn.Module, frames: Tensor, target: Tensor, epoch: int) -> Tensor:
            warm = epoch < warm_epochs
            heads, final = self.outputs(network, frames, warm)
            return deep_supervision(heads, final, target, partial(terms, warm=warm), head_weight)

        return loss

    def logits(self, network: nn.Module, frames: Tensor, epoch: int) -> Tensor:
        _, final = network(frames)
        result: Tensor = final
        return result

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable:
        """A network of one channel is normalised as the contract says, one of three by ImageNet's colours."""
        assert isinstance(network, MaskNetwork)
        mean: tuple[float, ...]
        std: tuple[float, ...]
        if network.in_channels == 1:
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
            height=self.published.side,
            width=self.published.side,
            fit=Squash(),
            normalization=Normalization(mean=255 * mean, std=255 * std),
        )

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        return self.recognise(weights)
