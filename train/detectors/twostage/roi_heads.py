"""The second stage: from pooled boxes to class logits and class-specific shifts, with res5 or with two wide layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.twostage.backbone import (
    PYRAMID_CHANNELS,
    Body,
    BottleneckBlock,
    ChannelAffine,
    draw_normal,
    make_stage,
    stage_channels,
    uses_bottlenecks,
)

BINS = 7
BOX_WIDTH = 1024
GATE_RATIO = 8


class BoxPredictor(nn.Module):
    """Logits R x (K + 1), background last, and four shifts for each class, R x 4K."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, classes + 1)
        self.bbox_pred = nn.Linear(channels, 4 * classes)
        for linear, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            draw_normal(linear.weight, std)
            nn.init.zeros_(linear.bias)


class BoxHead(nn.Module):
    """Two fully connected layers on 7x7 bins."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(PYRAMID_CHANNELS * BINS * BINS, BOX_WIDTH)
        self.fc2 = nn.Linear(BOX_WIDTH, BOX_WIDTH)
        for linear in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(linear.weight, a=1)
            nn.init.zeros_(linear.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        return F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))


def _decoupling(channels: int) -> nn.Sequential:
    hidden = channels // GATE_RATIO
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid())


class RoiHeads(nn.Module):
    """Pooled boxes R x C x 7 x 7 -> (logits R x (K + 1), shifts R x 4K), float32.

    Args:
        body: of the ResNet.
        pyramid: two layers on bins of the pyramid, else res5 on bins of res4 and its mean.
        classes: K.
        decouple: a gate of each channel for the classifier and one for the boxes (GLMD-CA's
            classification-regression decoupling).
        dropout: of what the classifier reads, in training; the boxes see all of it (DeFRCN).
    """

    def __init__(self, body: Body, pyramid: bool, classes: int, decouple: bool, dropout: float) -> None:
        super().__init__()
        channels = BOX_WIDTH if pyramid else stage_channels(body.depth)[3]
        self.box_head = BoxHead() if pyramid else None
        self.res5 = None if pyramid else make_stage(body, 5)
        self.decouple_cls_layer = _decoupling(channels) if decouple else None
        self.decouple_reg_layer = _decoupling(channels) if decouple else None
        self.box_predictor = BoxPredictor(channels, classes)
        self.dropout = nn.Dropout(dropout)
        self.reads_every_second_bin = not pyramid and uses_bottlenecks(body.depth) and body.stride_in_1x1

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        return self._predict(self._features(pooled))

    def of_samples(self, pooled: Tensor, affine: ChannelAffine | None) -> tuple[Tensor, Tensor]:
        """The same for pooled boxes that have yet to pass `affine`, of which every second bin is given where
        `reads_every_second_bin`: nothing of the first block reads the others, and its weights take the affine in."""
        if self.reads_every_second_bin:
            assert self.res5 is not None
            first, *others = self.res5
            assert isinstance(first, BottleneckBlock)
            x = first.on_samples(pooled, affine)
            for block in others:
                x = block(x)
            return self._predict(x.mean(dim=(2, 3)))
        return self(pooled if affine is None else affine(pooled))

    def _features(self, pooled: Tensor) -> Tensor:
        if self.res5 is not None:
            return self.res5(pooled).mean(dim=(2, 3))
        assert self.box_head is not None
        features: Tensor = self.box_head(pooled)
        return features

    def _predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        for_class = for_box = features
        if self.decouple_cls_layer is not None and self.decouple_reg_layer is not None:
            cells = features[:, :, None, None]
            for_class = (self.decouple_cls_layer(cells) * cells).flatten(1)
            for_box = (self.decouple_reg_layer(cells) * cells).flatten(1)
        logits = self.box_predictor.cls_score(self.dropout(for_class))
        return logits.float(), self.box_predictor.bbox_pred(for_box).float()


def level_of(boxes: Tensor, levels: int) -> Tensor:
    """int64 [...]: which level of a pyramid boxes [..., 4] are pooled from; 224 pixels belong to the third (P4)."""
    if levels == 1:
        return torch.zeros_like(boxes[..., 0], dtype=torch.int64)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    limits = boxes.new_tensor([(224.0 * 2.0**step) ** 2 for step in range(-1, levels - 2)])
    return (area[..., None] >= limits).sum(dim=-1)
