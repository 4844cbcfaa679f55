"""Two-stage detectors as the stages see them: the deployable module of a fixed shape, and the registry's entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.contract import InputSpec, Letterbox, NonMaximumSuppression, Normalization, OutputSpec
from irforge.errors import ExportError
from irforge.train.detectors.base import BoxLoss, Deployable, Normalise
from irforge.train.detectors.boxes import box_output
from irforge.train.detectors.twostage.boxes import DETECTION_WEIGHTS, clip_boxes, decode_boxes, have_area
from irforge.train.detectors.twostage.loss import TwoStageLoss
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.recognise import options_of
from irforge.train.detectors.twostage.roi_heads import level_of
from irforge.train.detectors.twostage.rpn import fixed_proposals, ordered
from irforge.train.ops.nms import greedy_nms
from irforge.train.ops.roi_align import roi_align

IOU_THRESHOLD = 0.5
MAX_DETECTIONS = 100
CANDIDATES = 512
"""Pairs of a proposal and a class that the last suppression looks at; the published one has no limit."""

Found = tuple[Tensor, Tensor, Tensor]


def detect(network: TwoStage, x: Tensor) -> Found:
    """(boxes N x 100 x 4, scores N x 100, classes N x 100) of normalised frames, without a loop over boxes.

    The published evaluation, but for its numbers (`Deployment`), a fixed number of samples a bin, and at most
    `CANDIDATES` scores above the least one. What follows the two heads is computed in float32.
    """
    size = (x.shape[2], x.shape[3])
    candidates, count, sampling, least = network.deployment
    levels, rpn = network(x)
    boxes, real = fixed_proposals(rpn, network.anchors, size, candidates, count)
    heads = network.roi_heads
    every = 2 if heads.reads_every_second_bin else 1
    place = level_of(boxes, len(levels)).flatten()[:, None, None, None]
    pooled = [
        roi_align(level, boxes, 1 / stride, network.bins, every, sampling)
        for level, stride in zip(levels, network.pooled_strides, strict=True)
    ]
    chosen = pooled[0]
    for number, other in enumerate(pooled[1:], start=1):
        chosen = torch.where(place == number, other, chosen)
    logits, deltas = heads.of_samples(chosen, network.affine_rcnn)
    probabilities = logits.softmax(dim=1)[:, :-1].unflatten(0, (-1, count))
    shifts = deltas.unflatten(1, (-1, 4)).unflatten(0, (-1, count))
    return select(boxes, probabilities * real[:, :, None].float(), shifts, size, least)


def select(boxes: Tensor, probabilities: Tensor, deltas: Tensor, size: tuple[int, int], least: float) -> Found:
    """The best 100 of all pairs of a proposal and a class, suppressed within their class at IoU 0.5.

    Args:
        boxes: proposals N x P x 4.
        probabilities: N x P x K; 0 for what is padding.
        deltas: N x P x K x 4.
        size: height, width of the frames.
        least: scores at and below it do not count.
    """
    classes = probabilities.shape[2]
    scores = torch.where(probabilities > least, probabilities, torch.zeros_like(probabilities)).flatten(1)
    scores = F.pad(scores, (0, max(MAX_DETECTIONS - scores.shape[1], 0)))
    scores, best = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1)
    best = best.clamp_max(boxes.shape[1] * classes - 1)
    origins = ordered(boxes, best // classes)
    found = clip_boxes(decode_boxes(ordered(deltas.flatten(1, 2), best), origins, DETECTION_WEIGHTS), *size)
    kinds = best % classes
    kept = greedy_nms(found, IOU_THRESHOLD, kinds if classes > 1 else None).keep & have_area(found)
    scores, order = (scores * kept.float()).topk(MAX_DETECTIONS, dim=1)
    some = (scores > 0).long()
    return ordered(found, order) * some[:, :, None].float(), scores, kinds.gather(1, order) * some


class TwoStageDeployable(Deployable):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> `detect`, boxes in pixels of the frames."""

    network: TwoStage

    def __init__(self, network: TwoStage, mean: float, std: float, gain: str = "none") -> None:
        super().__init__()
        # One channel here; the network repeats it, and export folds that into the stem.
        self.normalise = Normalise((mean,), (std,), gain)
        self.network = network
        self.stride = network.stride

    def forward(self, frames: Tensor) -> Found:
        if isinstance(frames.shape[2], torch.SymInt):
            raise ExportError(
                "a two-stage detector is exported for one size: its anchors are constants of the graph",
                "Leave out --dynamic-size, and export once for each size",
            )
        return detect(self.network, self.normalise(frames))


class TwoStageDetector:
    """A registry's entry: `TwoStage` and `TwoStageLoss` with the defaults of a publication.

    Args:
        network, losses: what differs from the defaults of those two.
        mean, std, size: of the published input, in levels and pixels.
    """

    target: Literal["mask", "boxes"] = "boxes"

    def __init__(
        self,
        name: str,
        title: str,
        network: Mapping[str, Any],
        losses: Mapping[str, Any],
        mean: float,
        std: float,
        size: tuple[int, int],
    ) -> None:
        self.name, self.title = name, title
        self.network, self.losses = network, losses
        self.mean, self.std, self.size = mean, std, size

    def build(self, backend: str = "irforge", **options: Any) -> nn.Module:
        """Options: see `TwoStage`. `backend`: `detectron2` trains on that library's modules, where it is."""
        return _network_class(backend)(**{**self.network, **options})

    def loss(self, **options: Any) -> BoxLoss:
        """Options: see `TwoStageLoss`."""
        return TwoStageLoss(**{**self.losses, **options})

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable:
        assert isinstance(network, TwoStage)
        gain = spec.gain.kind if spec.door == "float32" else "none"
        return TwoStageDeployable(network, spec.normalization.mean, spec.normalization.std, gain)

    def output(self, score_threshold: float) -> OutputSpec:
        nms = NonMaximumSuppression(iou_threshold=IOU_THRESHOLD, max_detections=MAX_DETECTIONS)
        return box_output(score_threshold, "probability of the class", MAX_DETECTIONS, nms)

    def published_input(self, options: Mapping[str, Any]) -> InputSpec:
        """Frames letterboxed into one size, where the published pipelines scale the shorter side."""
        return InputSpec(
            height=self.size[0],
            width=self.size[1],
            fit=Letterbox(),
            pad_level=float(round(self.mean)),
            normalization=Normalization(mean=self.mean, std=self.std),
        )

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """What names and shapes show; None if they are no two-stage detector's, or of one with parts that this
        publication's lacks. Class names are the contract's; without one the number of classes is all that is known."""
        found = options_of(weights)
        if found is None or any(found[part] and not self.network.get(part) for part in ("affine", "neck", "decouple")):
            return None
        # Whatever they were trained on.
        return {**found, "backend": "irforge"}


def _network_class(backend: str) -> type[TwoStage]:
    if backend == "irforge":
        return TwoStage
    if backend != "detectron2":
        raise ValueError(f"backend is irforge or detectron2, not '{backend}'")
    from irforge.train.detectors.twostage.detectron import DetectronTwoStage

    return DetectronTwoStage


FASTER_RCNN = TwoStageDetector(
    "faster-rcnn",
    "Faster R-CNN (Ren et al., NeurIPS 2015; Lin et al., CVPR 2017)",
    network={},
    losses={},
    mean=111.89,
    std=27.62,
    size=(608, 768),
)
