"""What a detector's folder offers to training, export and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from irforge.contract import InputSpec, OutputSpec


class Deployable(nn.Module):
    """Normalise + network + decode: raw frames in, the contract's outputs out.

    Attributes:
        network: the trained network.
        stride: sides of the frames must be multiples of it.
    """

    network: nn.Module
    stride: int


class MaskLoss(Protocol):
    """The loss of one batch; `epoch` counts from 0."""

    def __call__(self, network: nn.Module, frames: Tensor, target: Tensor, epoch: int) -> Tensor: ...


class MaskDetector(Protocol):
    """A detector that marks target pixels.

    `build` and `loss` take the recipe's options and raise TypeError or ValueError for unknown or impossible ones.
    `options_of` recognises its own weights: the network options they were made with, or None if they are another's.
    """

    name: str
    title: str

    def build(self, **options: Any) -> nn.Module: ...

    def loss(self, **options: Any) -> MaskLoss: ...

    def logits(self, network: nn.Module, frames: Tensor, epoch: int) -> Tensor: ...

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable: ...

    def output(self, score_threshold: float) -> OutputSpec: ...

    def published_input(self, options: Mapping[str, Any]) -> InputSpec: ...

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None: ...
