"""The two-stage network: one class, whose options make Faster R-CNN, DeFRCN, RISF's detector and GLMD-CA of it.

Module names are detectron2's, and DeFRCN's and GLMD-CA's where those add to it, so that published weights load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from irforge.train.detectors.boxes import count_of
from irforge.train.detectors.glmd.neck import GlmdNeck
from irforge.train.detectors.twostage.backbone import (
    BLOCKS,
    NORMS,
    PYRAMID_CHANNELS,
    Body,
    ChannelAffine,
    Norm,
    Pyramid,
    ResNet,
    stage_channels,
)
from irforge.train.detectors.twostage.roi_heads import BINS, RoiHeads, level_of
from irforge.train.detectors.twostage.rpn import LARGEST_TOPK, Anchors, RpnHead, RpnMaps, training_proposals
from irforge.train.ops.gradient import scale_gradient
from irforge.train.ops.roi_align import pool_boxes

PYRAMID_STRIDES = (4, 8, 16, 32, 64)
SINGLE_STRIDE = 16


class TwoStageMaps(NamedTuple):
    """What the first stage gives: the maps that boxes are pooled from, finest first, and the RPN's."""

    levels: list[Tensor]
    rpn: RpnMaps


class Deployment(NamedTuple):
    """What decides the deployed graph and no weight: see `TwoStage`."""

    candidates: int
    proposals: int
    sampling: int
    least_score: float


class TwoStage(nn.Module):
    """Backbone, region proposals and box head.

    Args:
        classes: their names, in the order of the classifier's rows; background comes after them.
        class_count: in place of names, where nothing but weights is known.
        depth: of the ResNet: 18, 34, 50 or 101.
        pyramid: FPN with two wide layers a box, else C4: one map of stride 16, and res5 a box.
        in_channels: 3 of published weights, 1 for gray frames. One channel given to a network of three goes into each.
        norm: `frozen`: constants that published weights bring along; `batch`: learnt, for a start at random.
        stride_in_1x1: of bottlenecks, as in MSRA's weights; torchvision's have it in the 3x3.
        freeze_at: parts that are not trained: 1 the stem, 2 with res2, 3 with res3.
        freeze_res5: nor the second stage's res5 (C4).
        anchor_sizes: in pixels; of C4 all at each cell, of the pyramid one for each level.
        anchor_ratios: height / width.
        bins: a side of a pooled box: 7, or 14 as in detectron2's own C4 weights.
        neck, neck_options: refine the map with `GlmdNeck` (C4).
        affine: a scale and a shift a channel for each stage's own copy of the map (C4; DeFRCN).
        decouple: gates before the classifier and the box regression (GLMD-CA).
        rpn_gradient, roi_gradient: factor on what the RPN and the second stage teach the map; 0 stops it.
        class_dropout: of the classifier's features.
        candidates: boxes that the deployed graph suppresses, over all levels, at most 3840; published C4 takes 6000.
        proposals: boxes that its second stage looks at; published 1000.
        sampling: samples of a bin along each axis in its RoIAlign; training takes one a cell.
        least_score: of a detection; strict.

    Raises:
        ValueError: options out of range, or that do not go together.
    """

    def __init__(
        self,
        classes: Sequence[str] = (),
        class_count: int = 0,
        depth: int = 50,
        pyramid: bool = True,
        in_channels: int = 3,
        norm: Norm = "frozen",
        stride_in_1x1: bool = False,
        freeze_at: int = 2,
        freeze_res5: bool = False,
        anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        bins: int = BINS,
        neck: bool = False,
        neck_options: Mapping[str, Any] | None = None,
        affine: bool = False,
        decouple: bool = False,
        rpn_gradient: float = 1.0,
        roi_gradient: float = 1.0,
        class_dropout: float = 0.0,
        candidates: int = 2000,
        proposals: int = 300,
        sampling: int = 2,
        least_score: float = 0.05,
    ) -> None:
        super().__init__()
        _check(depth, norm, pyramid, freeze_at, freeze_res5, anchor_sizes, neck or affine)
        if not 1 <= candidates <= LARGEST_TOPK or not 1 <= proposals <= candidates:
            raise ValueError(
                f"proposals <= candidates <= {LARGEST_TOPK}, TensorRT's limit; not {proposals}, {candidates}"
            )
        if bins < 1 or (pyramid and bins != BINS):
            raise ValueError(f"bins is a positive number, and {BINS} with a pyramid; not {bins}")
        self.class_count = count_of(classes, class_count)
        self.bins = bins
        self.in_channels = in_channels
        self.rpn_gradient, self.roi_gradient = rpn_gradient, roi_gradient
        self.deployment = Deployment(candidates, proposals, sampling, least_score)
        self.body = body = Body(depth, norm, stride_in_1x1)
        sizes = tuple(float(size) for size in anchor_sizes)
        ratios = tuple(float(ratio) for ratio in anchor_ratios)
        if pyramid:
            self.strides: tuple[int, ...] = PYRAMID_STRIDES
            self.anchors = Anchors(self.strides, tuple((size,) for size in sizes), ratios)
            channels = PYRAMID_CHANNELS
        else:
            self.strides = (SINGLE_STRIDE,)
            self.anchors = Anchors(self.strides, (sizes,), ratios)
            channels = stage_channels(depth)[2]
        self.backbone = Pyramid(body, in_channels) if pyramid else ResNet(body, in_channels, 4)
        self.glmd_network = GlmdNeck(channels, **(neck_options or {})) if neck else None
        self.affine_rpn = ChannelAffine(channels) if affine else None
        self.affine_rcnn = ChannelAffine(channels) if affine else None
        self.proposal_generator = nn.ModuleDict({"rpn_head": RpnHead(channels, self.anchors.per_cell)})
        self.roi_heads = RoiHeads(body, pyramid, self.class_count, decouple, class_dropout)
        resnet = self.backbone.bottom_up if isinstance(self.backbone, Pyramid) else self.backbone
        self._frozen = resnet.first_parts(freeze_at)
        if freeze_res5 and self.roi_heads.res5 is not None:
            self._frozen.append(self.roi_heads.res5)
        for part in self._frozen:
            part.requires_grad_(False)

    @property
    def stride(self) -> int:
        """Sides of the frames are multiples of it."""
        return 32 if len(self.strides) > 1 else SINGLE_STRIDE

    @property
    def pooled_strides(self) -> tuple[int, ...]:
        """Of the maps that boxes are pooled from; the pyramid's last level serves the RPN alone."""
        return self.strides[:4]

    def train(self, mode: bool = True) -> TwoStage:
        super().train(mode)
        # Learnt statistics of frozen parts stay as they are too.
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, x: Tensor) -> TwoStageMaps:
        """x: N x 1 or N x in_channels x H x W, normalised; H and W multiples of `stride`.

        The levels have not passed `affine_rcnn`: it goes with the pooled boxes, to which it does the same.
        """
        if x.shape[1] == 1 and self.in_channels > 1:
            x = x.expand(-1, self.in_channels, -1, -1)
        maps = self.backbone(x)
        levels: list[Tensor] = maps if len(self.strides) > 1 else maps[-1:]
        if self.glmd_network is not None:
            levels = [self.glmd_network(level) for level in levels]
        for_rpn = [scale_gradient(level, self.rpn_gradient) for level in levels]
        if self.affine_rpn is not None:
            for_rpn = [self.affine_rpn(level) for level in for_rpn]
        for_boxes = [scale_gradient(level, self.roi_gradient) for level in levels[:4]]
        return TwoStageMaps(for_boxes, self.proposal_generator["rpn_head"](for_rpn))

    def propose(self, maps: RpnMaps, size: tuple[int, int], candidates: int, count: int) -> list[Tensor]:
        """What the second stage trains on: see `training_proposals`."""
        return training_proposals(maps, self.anchors, size, candidates, count)

    def pool(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """R x C x bins x bins of each sample's boxes [n, 4] in order, by as many samples a bin as it has cells."""
        pooled = []
        for sample, some in enumerate(boxes):
            place = level_of(some, len(levels))
            result = levels[0].new_zeros(len(some), levels[0].shape[1], self.bins, self.bins)
            for number, (level, stride) in enumerate(zip(levels, self.pooled_strides, strict=True)):
                mine = torch.nonzero(place == number).squeeze(1)
                result = result.index_copy(0, mine, pool_boxes(level[sample], some[mine], self.bins, 1 / stride))
            pooled.append(result if self.affine_rcnn is None else self.affine_rcnn(result))
        return torch.cat(pooled)


def _check(
    depth: int,
    norm: str,
    pyramid: bool,
    freeze_at: int,
    freeze_res5: bool,
    anchor_sizes: Sequence[float],
    only_single: bool,
) -> None:
    if depth not in BLOCKS:
        raise ValueError(f"depth is one of {', '.join(map(str, BLOCKS))}, not {depth}")
    if norm not in NORMS:
        raise ValueError(f"norm is one of {', '.join(NORMS)}, not '{norm}'")
    if not 0 <= freeze_at <= (5 if pyramid else 4):
        raise ValueError(f"freeze_at counts the stem and the stages behind it, not {freeze_at}")
    if pyramid and (only_single or freeze_res5):
        raise ValueError("neck, affine and freeze_res5 belong to the C4 form; set 'pyramid' to false")
    if pyramid and len(anchor_sizes) != len(PYRAMID_STRIDES):
        raise ValueError(f"the pyramid has {len(PYRAMID_STRIDES)} levels and needs as many anchor_sizes")
