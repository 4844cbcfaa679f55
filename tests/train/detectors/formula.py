"""Weights and a frame made by formulas: what the golden values of published networks were computed with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def with_formula_weights(net: nn.Module) -> None:
    """Set every weight of a network and leave it in float64 and eval mode."""
    net.double().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            k = torch.arange(module.weight.numel(), dtype=torch.float64)
            module.weight.copy_((torch.sin(0.37 * (k + 1)) / math.sqrt(fan_in)).view_as(module.weight))
            if module.bias is not None:
                module.bias.copy_(0.01 * torch.cos(torch.arange(len(module.bias), dtype=torch.float64)))
        elif isinstance(module, nn.BatchNorm2d):
            i = torch.arange(module.num_features, dtype=torch.float64)
            module.weight.copy_(1 + 0.1 * torch.sin(i))
            module.bias.copy_(0.05 * torch.cos(i))
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(0.02 * torch.sin(i))
            module.running_var.copy_(1 + 0.1 * torch.cos(i))
    # The golden values were made with float32 parameters and computed in float64.
    net.float().double()


def formula_input() -> Tensor:
    """float64 1 x 3 x 64 x 64."""
    r = torch.arange(64, dtype=torch.float64)[:, None]
    q = torch.arange(64, dtype=torch.float64)[None]
    plane = torch.sin(0.05 * (q + 1)) * torch.cos(0.03 * (r + 1))
    return torch.stack([plane + 0.1 * c for c in range(3)])[None]
