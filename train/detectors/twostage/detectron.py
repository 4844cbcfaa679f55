"""detectron2's modules in a two-stage detector: `network: {backend: detectron2}` in a recipe trains on them.

ResNet, pyramid, RPN head, proposals, pooling, and the second stage's res5 or wide layers are detectron2's; what stands
between them, the matching and the losses stay ours. The names are the same, so weights go from one to the other, and a
checkpoint loads and is exported where there is no detectron2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from irforge.errors import EnvironmentFault
from irforge.train.detectors.twostage.backbone import (
    BLOCKS,
    PYRAMID_CHANNELS,
    Body,
    stage_channels,
    uses_bottlenecks,
)
from irforge.train.detectors.twostage.boxes import PROPOSAL_WEIGHTS
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.roi_heads import BINS, BOX_WIDTH
from irforge.train.detectors.twostage.rpn import IOU_THRESHOLD, RpnMaps, anchors_of, rows_of

try:
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import FPN, ResNet
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
    from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
    from detectron2.modeling.roi_heads.box_head import FastRCNNConvFCHead
    from detectron2.structures import Boxes
except ImportError as error:
    raise EnvironmentFault(
        f"backend 'detectron2' needs detectron2, and here: {error}",
        "Build it as docs/detectron2.md says, or leave 'backend' out of the network's options",
    ) from None

_NORMS = {"frozen": "FrozenBN", "batch": "BN"}


class DetectronTwoStage(TwoStage):
    """A `TwoStage` on detectron2's modules, with the same options and the same weights to start from.

    For training and its validation. A second stage that reads every second bin pools all of them here.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        frozen = [name for name, module in self.named_modules() if any(module is part for part in self._frozen)]
        # Their own start weights are thrown away, and what is drawn after them does not depend on the backend.
        with torch.random.fork_rng([]):
            if len(self.strides) > 1:
                channels = PYRAMID_CHANNELS
                shape = ShapeSpec(channels=channels, height=BINS, width=BINS)
                layers = FastRCNNConvFCHead(shape, conv_dims=[], fc_dims=[BOX_WIDTH, BOX_WIDTH])
                _replace(self, "backbone", _pyramid(self.body, self.in_channels))
                _replace(self.roi_heads, "box_head", layers)
            else:
                channels = stage_channels(self.body.depth)[2]
                _replace(self, "backbone", _resnet(_ResNet, self.body, self.in_channels, 4))
                _replace(self.roi_heads, "res5", nn.Sequential(*_stage(self.body, 5)))
            head = _RpnHead(in_channels=channels, num_anchors=self.anchors.per_cell)
            _replace(self.proposal_generator, "rpn_head", head)
        self.roi_heads.reads_every_second_bin = False
        scales = [1 / stride for stride in self.pooled_strides]
        self._pooler = ROIPooler(self.bins, scales, sampling_ratio=0, pooler_type="ROIAlignV2")
        self._decoder = Box2BoxTransform(PROPOSAL_WEIGHTS)
        self._frozen = [self.get_submodule(name) for name in frozen]
        for part in self._frozen:
            part.requires_grad_(False)

    @torch.no_grad()
    def propose(self, maps: RpnMaps, size: tuple[int, int], candidates: int, count: int) -> list[Tensor]:
        logits, deltas = rows_of(maps)
        samples = len(logits[0])
        boxes = [
            self._decoder.apply_deltas(delta.flatten(0, 1), grid.repeat(samples, 1)).unflatten(0, (samples, -1))
            for delta, grid in zip(deltas, anchors_of(maps, self.anchors), strict=True)
        ]
        found = find_top_rpn_proposals(boxes, logits, [size] * samples, IOU_THRESHOLD, candidates, count, 0.0, True)
        return [one.proposal_boxes.tensor for one in found]

    def pool(self, levels: list[Tensor], boxes: list[Tensor]) -> Tensor:
        # In float32, also under autocast: the pooler rounds boxes to the type of the maps.
        pooled: Tensor = self._pooler([level.float() for level in levels], [Boxes(some) for some in boxes])
        return pooled if self.affine_rcnn is None else self.affine_rcnn(pooled)


class _Levels:
    """The maps as a list, finest first, where detectron2 gives them by name."""

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: dict[str, Tensor] = super().forward(x)  # type: ignore[misc]
        return list(maps.values())


class _ResNet(_Levels, ResNet):
    pass


class _Pyramid(_Levels, FPN):
    pass


class _RpnHead(StandardRPNHead):
    def forward(self, levels: list[Tensor]) -> RpnMaps:
        logits, deltas = super().forward(levels)
        return RpnMaps([logit.float() for logit in logits], [delta.float() for delta in deltas])


def _stage(body: Body, index: int) -> list[nn.Module]:
    widths = (64, *stage_channels(body.depth))
    count, target = BLOCKS[body.depth][index - 2], widths[index - 1]
    options: dict[str, Any] = {"in_channels": widths[index - 2], "out_channels": target, "norm": _NORMS[body.norm]}
    kind = BasicBlock
    if uses_bottlenecks(body.depth):
        kind = BottleneckBlock
        options |= {"bottleneck_channels": target // 4, "stride_in_1x1": body.stride_in_1x1}
    strides = [1 if index == 2 else 2] + [1] * (count - 1)
    stage: list[nn.Module] = ResNet.make_stage(kind, count, stride_per_block=strides, **options)
    return stage


def _resnet(kind: type[nn.Module], body: Body, in_channels: int, last: int) -> nn.Module:
    numbers = range(2, last + 1)
    stages = [_stage(body, number) for number in numbers]
    stem = BasicStem(in_channels, 64, _NORMS[body.norm])
    return kind(stem, stages, out_features=[f"res{number}" for number in numbers])


def _pyramid(body: Body, in_channels: int) -> nn.Module:
    names = [f"res{number}" for number in range(2, 6)]
    bottom_up = _resnet(ResNet, body, in_channels, 5)
    return _Pyramid(bottom_up, names, PYRAMID_CHANNELS, top_block=LastLevelMaxPool())


def _replace(parent: nn.Module, name: str, theirs: nn.Module) -> None:
    theirs.load_state_dict(parent.get_submodule(name).state_dict())
    parent.add_module(name, theirs)
