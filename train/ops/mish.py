"""Mish, x tanh(softplus(x)) (Misra, 2019), with a backward pass that is one product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # With u = sigmoid(-x): tanh(softplus(x)) = (1 - u^2) / (1 + u^2), one exponential in place of three and no
        # overflow anywhere. The slope is t + x (1 - t^2) (1 - u); made here, it saves to make u and t again.
        u = torch.sigmoid(-x)
        square = u * u
        t = (1 - square).div_(square.add_(1))
        y = x * t
        slope = (t * t).neg_().add_(1).mul_(x).mul_(u.neg_().add_(1)).add_(t)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient * slope


class Mish(nn.Module):
    """Mish; in evaluation torch's own, which exporters know."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.mish(x)
        result: Tensor = _Mish.apply(x)
        return result
