"""Reductions and upsampling whose backward pass is cheap on a CPU.

Values are those of the plain torch ops; only the way back differs. They serve training alone: a graph for export is
made of the plain ops, which every exporter knows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def global_max(x: Tensor) -> Tensor:
    """Maximum over H and W, N x C x 1 x 1. Among equal maxima one takes the gradient, where amax shares it out."""
    n, c = x.shape[:2]
    return x.permute(0, 2, 3, 1).flatten(1, 2).max(dim=1).values.view(n, c, 1, 1)


def channel_max(x: Tensor) -> Tensor:
    """Maximum over channels, N x 1 x H x W; gradient as in `global_max`."""
    return x.max(dim=1, keepdim=True).values


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
@lru_cache(maxsize=64)
def interpolation_matrix(source: int, target: int) -> Tensor:
    """Linear interpolation with aligned corners as a matrix [target, source], float32."""
    position = torch.arange(target, dtype=torch.float64) * ((source - 1) / max(target - 1, 1))
    low = position.floor().long().clamp(max=max(source - 2, 0))
    weight = position - low
    matrix = torch.zeros(target, source, dtype=torch.float64)
    rows = torch.arange(target)
    matrix[rows, low] += 1 - weight
    matrix[rows, (low + 1).clamp(max=source - 1)] += weight
    return matrix.float()


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int) -> Tensor:
        ctx.source = x.shape[-2:]
        return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        height, width = ctx.source
        n, c, tall, wide = gradient.shape
        across = interpolation_matrix(width, wide).to(gradient)
        down = interpolation_matrix(height, tall).to(gradient)
        last = gradient.permute(0, 2, 3, 1).contiguous()
        narrow = torch.matmul(across.t(), last.view(n * tall, wide, c))
        small = torch.matmul(down.t(), narrow.view(n, tall, width * c))
        return small.view(n, height, width, c).permute(0, 3, 1, 2), None


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling with aligned corners; the gradient is two matrix products instead of a scatter."""
    result: Tensor = _Upsample.apply(x, factor)
    return result
