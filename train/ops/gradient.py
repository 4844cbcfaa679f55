"""Identity forward, a scaled gradient backward: how DeFRCN decouples what its two stages teach the backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself; what flows back through it is multiplied by `factor`, and stops here where that is 0.

    Source: Qiao et al., "DeFRCN: Decoupled Faster R-CNN for Few-Shot Object Detection", ICCV 2021, gradient decoupled
    layer.
    """
    if factor == 1 or not torch.is_grad_enabled():
        return x
    if factor == 0:
        return x.detach()
    scaled: Tensor = _Scaled.apply(x, factor)  # type: ignore[no-untyped-call]
    return scaled
