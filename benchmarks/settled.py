"""Two-stage networks with random weights that find something, for benchmarks: as fast and as large as trained ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irforge.contract import Contract, InputSpec, Letterbox, Normalization, Provenance
from irforge.train.checkpoint import save_checkpoint
from irforge.train.detectors.base import output_of
from irforge.train.detectors.registry import find_detector
from irforge.train.detectors.twostage.backbone import BasicBlock, BottleneckBlock
from irforge.train.detectors.twostage.deploy import detect
from irforge.train.detectors.twostage.network import TwoStage

# Deviations of what the predictors give: logits, and shifts in their own units. Larger ones of `cls_score` bring some
# scores so near to 1 that FP32 holds them equal, and then rounding chooses which of two boxes is suppressed.
_PREDICTORS = {
    "proposal_generator.rpn_head.objectness_logits": 3.0,
    "proposal_generator.rpn_head.anchor_deltas": 0.3,
    "roi_heads.box_predictor.cls_score": 1.5,
    "roi_heads.box_predictor.bbox_pred": 1.0,
}

_RESIDUAL = 0.2


@torch.no_grad()
def settle(network: TwoStage, frames: Tensor) -> None:
    """Give random weights the scales of trained ones, by normalised frames, in place.

    Each norm takes the mean and variance of what reaches it, as training would have left them, and each predictor's
    weights are divided by the deviation of what it gives, and multiplied by that of `_PREDICTORS`. Without this the
    activations of a deep ResNet grow with every block and no score exceeds the threshold. Each block adds a fifth of
    its deviation, as trained ones add little: a hundred random layers at full strength make half a pixel of rounding.
    """
    hooks = []
    for module in network.modules():
        if isinstance(module, BasicBlock):
            nn.init.constant_(module.conv2.norm.weight, _RESIDUAL)
        if isinstance(module, BottleneckBlock):
            nn.init.constant_(module.conv3.norm.weight, _RESIDUAL)
        if hasattr(module, "running_mean"):
            hooks.append(module.register_forward_pre_hook(_take_statistics))
    for name, deviation in _PREDICTORS.items():
        hooks.append(network.get_submodule(name).register_forward_hook(_scaler(deviation)))
    detect(network.eval(), frames)
    for hook in hooks:
        hook.remove()


def _take_statistics(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    (x,) = inputs
    norm.running_mean.copy_(x.mean(dim=(0, 2, 3)))
    norm.running_var.copy_(x.var(dim=(0, 2, 3)).clamp_min(1e-3))


def _scaler(deviation: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def scale(predictor: nn.Module, inputs: Any, result: Tensor) -> Tensor:
        factor = deviation / result.std()
        predictor.weight.mul_(factor)
        return result * factor

    return scale


def settled_network(detector: str, options: dict[str, Any], size: tuple[int, int], seed: int = 0) -> TwoStage:
    """A network in eval mode, settled by a frame of clouds and bright squares, and one of noise."""
    torch.manual_seed(seed)
    network = find_detector(detector).build(**options)
    assert isinstance(network, TwoStage)
    settle(network, torch.cat([scene(size), torch.randn(1, 1, *size)]))
    return network


def scene(size: tuple[int, int]) -> Tensor:
    """A normalised frame 1 x 1 x H x W, of about unit variance."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    frame = torch.sin(rows / 17) * torch.cos(columns / 23) + 0.3 * torch.randn(size)
    for y0, x0, y1, x1 in squares(size):
        frame[y0:y1, x0:x1] += 2
    return (frame / frame.std())[None, None]


def squares(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(y0, x0, y1, x1) of four objects, from an eighth to a third of the frame's height."""
    height, width = size
    found = []
    for k, side in enumerate(height // part for part in (8, 6, 4, 3)):
        y0, x0 = height // 10 + 9 * k, (width - side) * (2 * k + 1) // 9
        found.append((y0, x0, y0 + side, x0 + side))
    return found


def settled_checkpoint(path: Path, detector: str, options: dict[str, Any], size: tuple[int, int]) -> Path:
    """Write a settled network as a checkpoint for frames of `size`, whose levels it sees as `scene` has them."""
    spec = InputSpec(height=size[0], width=size[1], fit=Letterbox(), normalization=Normalization(mean=110, std=60))
    entry = find_detector(detector)
    provenance = Provenance(detector=detector, network=options)
    contract = Contract(input=spec, output=output_of(entry, 0.05, options), provenance=provenance)
    save_checkpoint(path, settled_network(detector, options, size), contract)
    return path
