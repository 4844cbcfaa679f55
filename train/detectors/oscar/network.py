"""OSCAR: one-stage cascade refinement for small infrared targets.

Written from a description of the authors' released two-level model (Dai et al., "One-Stage Cascade Refinement Networks
for Infrared Small Target Detection", TGRS 2023) and from what its published weights require. Module names are theirs.
"""

from __future__ import annotations

from torch import Tensor, nn

from irforge.train.detectors.oscar.backbone import Pyramid, ResNet18
from irforge.train.detectors.oscar.head import GROUPS, OscarHead, OscarMaps

STRIDE = 32


class Oscar(nn.Module):
    """The two-level network.

    Args:
        channels: of the pyramid: 128 or 256 as published, any multiple of 64.
        in_channels: 3 as published, 1 for gray frames.
        prior: probability of a target that the class logits start at; 0.5 as published, 0.01 trains without warm-up.
        dead_convolutions: with the two convolutions that published weights hold and nothing uses.
    """

    def __init__(
        self, channels: int = 128, in_channels: int = 3, prior: float = 0.5, dead_convolutions: bool = False
    ) -> None:
        super().__init__()
        if channels <= 0 or channels % (2 * GROUPS):
            raise ValueError(f"channels is a multiple of {2 * GROUPS}, not {channels}")
        if not 0 < prior < 1:
            raise ValueError(f"prior is a probability between 0 and 1, not {prior}")
        self.in_channels = in_channels
        self.backbone = ResNet18(in_channels)
        self.neck = Pyramid(channels, dead_convolutions)
        self.bbox_head = OscarHead(channels, prior)

    def forward(self, x: Tensor) -> OscarMaps:
        """x: N x in_channels x H x W, normalised; H and W multiples of 32."""
        maps: OscarMaps = self.bbox_head(*self.neck(self.backbone(x)))
        return maps
