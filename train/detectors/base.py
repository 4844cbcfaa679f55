"""What a detector's folder offers to training, export and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from irforge.contract import InputSpec, OutputSpec

Plane = npt.NDArray[np.float32]
GAINS = ("none", "min-max")


class Deployable(nn.Module):
    """Normalise + network + decode: raw frames in, the contract's outputs out.

    A mask detector returns the mask, float32 N x 1 x H x W. A box detector returns (boxes float32 N x k x 4 as xyxy,
    half-open, pixel edges of the input frame; scores float32 N x k, descending; classes int64 N x k). Empty slots have
    score 0. Everything from the network's last maps on is computed in float32.

    Attributes:
        normalise: what stands before the network; training uses the same module.
        network: the trained network.
        stride: sides of the frames must be multiples of it.
        smallest: and no shorter than that.
    """

    normalise: Normalise
    network: nn.Module
    stride: int
    smallest: int = 1


class Normalise(nn.Module):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> what the network takes, float32 N x channels x H x W.

    A network of several channels gets the gray frame in each, normalised by that channel's own mean and std.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], gain: str = "none") -> None:
        super().__init__()
        if gain not in GAINS:
            raise ValueError(f"gain control '{gain}' cannot run inside the graph; 'none' and 'min-max' can")
        self.gain = gain
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.float()
        if self.gain == "min-max":
            low = x.amin(dim=(1, 2, 3), keepdim=True)
            high = x.amax(dim=(1, 2, 3), keepdim=True)
            x = (x - low) * (255.0 / (high - low).clamp_min(1.0))
        return (x - self.mean) / self.std


class Detector(Protocol):
    """What all detectors offer.

    `build` takes the recipe's `network` options and raises TypeError or ValueError for unknown or impossible ones.
    `options_of` recognises its own weights: the network options they were made with, or None if they are another's.
    """

    name: str
    title: str
    target: Literal["mask", "boxes"]

    def build(self, **options: Any) -> nn.Module: ...

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable: ...

    def output(self, score_threshold: float) -> OutputSpec: ...

    def published_input(self, options: Mapping[str, Any]) -> InputSpec: ...

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None: ...


def output_of(detector: Detector, score_threshold: float, options: Mapping[str, Any]) -> OutputSpec:
    """The detector's output with the class names that its network options give: `classes`, or as many numbered ones
    as `class_count` says. A detector without these options keeps its own."""
    names = list(options.get("classes", ())) or [f"class {i}" for i in range(options.get("class_count", 0))]
    output = detector.output(score_threshold)
    return output.model_copy(update={"classes": names}) if names else output


class MaskLoss(Protocol):
    """The loss of one batch; `epoch` counts from 0."""

    def __call__(self, network: nn.Module, frames: Tensor, target: Tensor, epoch: int) -> Tensor: ...


class MaskDetector(Detector, Protocol):
    """A detector that marks target pixels. `loss` refuses options as `build` does."""

    def loss(self, **options: Any) -> MaskLoss: ...

    def logits(self, network: nn.Module, frames: Tensor, epoch: int) -> Tensor: ...


class BoxBatch(NamedTuple):
    """The truth of one batch.

    boxes: for each sample float32 [n, 4], xyxy, half-open, in pixels of the sample. classes: for each int64 [n].
    maps: what `BoxLoss.encode` made of each sample, stacked: float32 [N, c, h, w].
    """

    boxes: list[Tensor]
    classes: list[Tensor]
    maps: dict[str, Tensor]


class BoxLoss(Protocol):
    """The loss of one batch, and what it wants to know of each sample beforehand."""

    def encode(self, levels: Plane, boxes: Plane, classes: npt.NDArray[np.int64]) -> dict[str, Plane]:
        """Dense targets [c, h, w] of one sample, by name; called where samples are made, after all augmentation.

        Args:
            levels: H x W, the sample's levels before normalisation.
            boxes: [n, 4] as in `BoxBatch`; n may be 0.
            classes: [n].
        """
        ...

    def __call__(self, network: nn.Module, frames: Tensor, truth: BoxBatch, epoch: int) -> dict[str, Tensor]:
        """The weighted terms by name; their sum is the loss. `frames` are normalised; `epoch` counts from 0."""
        ...


class BoxDetector(Detector, Protocol):
    """A detector that gives boxes. `loss` refuses options as `build` does."""

    def loss(self, **options: Any) -> BoxLoss: ...
