"""ACM: a small residual network whose decoder mixes deep and shallow maps by gates that each computes for the other.

Written from Dai et al., "Asymmetric Contextual Modulation for Infrared Small Target Detection" (WACV 2021), and from
what the published weights require.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from irforge.train.detectors.acm.blocks import WIDTHS, Head, gate, resized, stage
from irforge.train.detectors.mask_network import MaskNetwork, Outputs

Fusion = Literal["asymmetric", "local", "global"]
POOLED: dict[str, tuple[bool, bool]] = {"asymmetric": (True, False), "local": (False, False), "global": (True, True)}
"""Whether the gates of (the deep map, the shallow map) are of the whole map."""


class Modulation(nn.Module):
    """A deep and a shallow map of one size, each multiplied by the gates of the other, and added.

    Args:
        deep: channels of the deep map; `reduce` brings it to those of the shallow one, `channels`.
    """

    def __init__(self, deep: int, channels: int, fusion: Fusion, reduce: bool) -> None:
        super().__init__()
        of_deep, of_shallow = POOLED[fusion]
        self.feature_high = nn.Sequential()
        if reduce:
            self.feature_high = nn.Sequential(nn.Conv2d(deep, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.topdown = gate(channels, channels // 4, of_deep)
        self.bottomup = gate(channels, channels // 4, of_shallow)
        self.post = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        deep = self.feature_high(deep)
        mixed = 2 * shallow * self.topdown(deep) + 2 * deep * self.bottomup(shallow)
        return cast(Tensor, self.post(mixed))


class ACM(MaskNetwork):
    """Base class of the two forms, ACM-FPN and ACM-U-Net: what shrinks the frame, and the first weights.

    Args:
        in_channels: 3 for the published weights, 1 for gray frames.
        blocks: residual blocks of a stage.
        align_corners: how maps are enlarged: as in the authors' MXNet (True) or in its PyTorch port (False).
        tiny: the first stage keeps the frame's size instead of a quarter of it, as in the authors' published weights.
    """

    stride = 16

    def __init__(self, in_channels: int, blocks: int, align_corners: bool, tiny: bool) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks is at least 1, not {blocks}")
        self.in_channels = in_channels
        self.align_corners = align_corners
        w0, w1, w2, w3 = WIDTHS
        self.shrink = 1 if tiny else 4
        layers = [(in_channels, w1, 1)] if tiny else [(in_channels, w0, 2), (w0, w0, 1), (w0, w1, 1)]
        self.stem = nn.Sequential(nn.BatchNorm2d(in_channels))
        for source, width, step in layers:
            self.stem.extend([nn.Conv2d(source, width, 3, step, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()])
        if not tiny:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        self.layer1 = stage(w1, w1, blocks)
        self.layer2 = stage(w1, w2, blocks, stride=2)
        self.layer3 = stage(w2, w3, blocks, stride=2)

    def enlarged(self, logits: Tensor) -> Tensor:
        """Logits of the first stage's size as those of the frame's."""
        return logits if self.shrink == 1 else resized(logits, self.shrink, self.align_corners)

    def draw(self) -> None:
        """The published start: kernels from N(0, 0.02), factors of batch norm from N(1, 0.02), shifts from N(0, 1)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)
                nn.init.normal_(module.bias)


class ACMFPN(ACM):
    """The deep maps are enlarged and mixed in from the top down."""

    def __init__(
        self,
        in_channels: int = 3,
        blocks: int = 4,
        fusion: Fusion = "asymmetric",
        align_corners: bool = False,
        tiny: bool = False,
    ) -> None:
        super().__init__(in_channels, blocks, align_corners, tiny)
        _, w1, w2, w3 = WIDTHS
        self.fuse23 = Modulation(w3, w2, fusion, reduce=True)
        self.fuse12 = Modulation(w2, w1, fusion, reduce=True)
        self.head = Head(w1)
        self.draw()

    def forward(self, x: Tensor) -> Outputs:
        c1 = self.layer1(self.stem(x))
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        mixed = self.fuse23(resized(c3, 2, self.align_corners), c2)
        mixed = self.fuse12(resized(mixed, 2, self.align_corners), c1)
        return [], self.enlarged(self.head(mixed))


class ACMUNet(ACM):
    """The deep maps are enlarged by learnt kernels, and each mixture passes another stage of blocks.

    Args:
        reduce: a 1x1 convolution before each mixture, as in the PyTorch port; the authors' own has none.
    """

    def __init__(
        self,
        in_channels: int = 3,
        blocks: int = 4,
        fusion: Fusion = "asymmetric",
        align_corners: bool = False,
        tiny: bool = False,
        reduce: bool = True,
    ) -> None:
        super().__init__(in_channels, blocks, align_corners, tiny)
        _, w1, w2, w3 = WIDTHS
        self.deconv2 = nn.ConvTranspose2d(w3, w2, 4, 2, 1)
        self.fuse2 = Modulation(w2, w2, fusion, reduce)
        self.uplayer2 = stage(w2, w2, blocks)
        self.deconv1 = nn.ConvTranspose2d(w2, w1, 4, 2, 1)
        self.fuse1 = Modulation(w1, w1, fusion, reduce)
        self.uplayer1 = stage(w1, w1, blocks)
        self.head = Head(w1)
        self.draw()

    def forward(self, x: Tensor) -> Outputs:
        c1 = self.layer1(self.stem(x))
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        deep = self.uplayer2(self.fuse2(self.deconv2(c3), c2))
        deep = self.uplayer1(self.fuse1(self.deconv1(deep), c1))
        return [], self.enlarged(self.head(deep))


def acm(decoder: Literal["fpn", "unet"] = "fpn", fusion: Fusion = "asymmetric", **options: object) -> ACM:
    """The network of a recipe's options: those of `ACMFPN` or `ACMUNet`."""
    if fusion not in POOLED:
        raise ValueError(f"fusion is one of {', '.join(POOLED)}, not {fusion}")
    if decoder not in ("fpn", "unet"):
        raise ValueError(f"decoder is fpn or unet, not {decoder}")
    form = ACMFPN if decoder == "fpn" else ACMUNet
    return form(fusion=fusion, **options)  # type: ignore[arg-type]
