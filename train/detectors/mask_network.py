"""What a network is that marks target pixels. Torch alone: a bare checkout with torch and NumPy imports networks."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

Outputs = tuple[list[Tensor], Tensor]
"""(heads, final): logits that training supervises besides, finest first, N x 1 x H / 2^k x W / 2^k; and those of the
prediction, N x 1 x H x W."""


class MaskNetwork(nn.Module):
    """A network x -> `Outputs`, of x normalised, N x in_channels x H x W with sides that are multiples of `stride`,
    and not below `smallest`."""

    stride: ClassVar[int]
    smallest: ClassVar[int] = 1
    in_channels: int
