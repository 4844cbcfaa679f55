"""OSCAR as the stages see it: options, loss, deployable module, contract, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.contract import InputSpec, Letterbox, NonMaximumSuppression, Normalization, OutputSpec
from irforge.train.detectors.base import BoxLoss, Deployable, Normalise
from irforge.train.detectors.boxes import box_output
from irforge.train.detectors.oscar.head import OscarMaps, decode_boxes
from irforge.train.detectors.oscar.loss import OscarLoss
from irforge.train.detectors.oscar.network import STRIDE, Oscar
from irforge.train.ops.nms import greedy_nms

MEAN, STD = 111.89, 27.62
CANDIDATES = 256
LEAST_PROBABILITY = 0.05
IOU_THRESHOLD = 0.5
MAX_DETECTIONS = 100
DEAD = ("neck.fpn_convs.2.", "neck.fpn_convs.3.")


def detections(maps: OscarMaps, height: int, width: int, candidates: int = CANDIDATES) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes N x 100 x 4, scores N x 100, classes N x 100) of the head's maps, for an input of height x width pixels.

    The `candidates` cells of the highest class probability are decoded, and those above 0.05 scored by the product of
    both class probabilities and the contrast, clipped to the input and suppressed at IoU 0.5. The authors' evaluation
    takes 1000 candidates, and lets boxes with sides below 0 through.
    """
    _, boxes = decode_boxes(maps)
    probability = torch.sigmoid(maps.refine_logit)
    parent = F.interpolate(torch.sigmoid(maps.coarse_logit), scale_factor=2.0, mode="nearest")
    score = probability * parent * torch.sigmoid(maps.noco_logit)
    eligible = torch.where(probability > LEAST_PROBABILITY, probability, torch.zeros_like(probability))
    rows = torch.cat([boxes, score, eligible], dim=1).flatten(2)
    # A small input has fewer cells than candidates.
    rows = F.pad(rows, (0, candidates))
    rank, index = torch.topk(rows[:, 5], candidates, dim=1)
    rows = rows[:, :5].gather(2, index[:, None].expand(-1, 5, -1))
    x0, y0, x1, y1, score = rows.unbind(1)
    x0, x1 = x0.clamp(0, width), x1.clamp(0, width)
    y0, y1 = y0.clamp(0, height), y1.clamp(0, height)
    score = torch.where((rank > 0) & (x1 > x0) & (y1 > y0), score, torch.zeros_like(score))
    score, order = torch.topk(score, candidates, dim=1)
    boxes = _ordered(torch.stack([x0, y0, x1, y1], dim=2), order)
    score = score * greedy_nms(boxes, IOU_THRESHOLD).keep.float()
    score, order = torch.topk(score, MAX_DETECTIONS, dim=1)
    return _ordered(boxes, order) * (score > 0).float()[:, :, None], score, torch.zeros_like(order)


def _ordered(boxes: Tensor, order: Tensor) -> Tensor:
    return boxes.gather(1, order[:, :, None].expand(-1, -1, 4))


class OscarDeployable(Deployable):
    """frames uint8 (or float32 raw counts) N x 1 x H x W -> `detections`, boxes in pixels of the frames."""

    def __init__(
        self,
        network: Oscar,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        gain: str = "none",
        candidates: int = CANDIDATES,
    ) -> None:
        super().__init__()
        if candidates < MAX_DETECTIONS:
            raise ValueError(f"candidates is at least {MAX_DETECTIONS}, not {candidates}")
        self.normalise = Normalise(mean, std, gain)
        self.network = network
        self.stride = STRIDE
        self.candidates = candidates

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return detections(self.network(self.normalise(frames)), frames.shape[2], frames.shape[3], self.candidates)


class OscarDetector:
    """The registry's entry."""

    name = "oscar"
    title = "OSCAR (Dai et al., TGRS 2023)"
    target: Literal["mask", "boxes"] = "boxes"

    def build(self, **options: Any) -> nn.Module:
        return Oscar(**options)

    def loss(self, **options: Any) -> BoxLoss:
        """Options: see `OscarLoss`."""
        return OscarLoss(**options)

    def deployable(self, network: nn.Module, spec: InputSpec) -> Deployable:
        assert isinstance(network, Oscar)
        mean, std = spec.normalization.mean, spec.normalization.std
        gain = spec.gain.kind if spec.door == "float32" else "none"
        return OscarDeployable(network, (mean,) * network.in_channels, (std,) * network.in_channels, gain)

    def output(self, score_threshold: float) -> OutputSpec:
        nms = NonMaximumSuppression(iou_threshold=IOU_THRESHOLD, max_detections=MAX_DETECTIONS)
        return box_output(score_threshold, "fine x coarse class probability x contrast", MAX_DETECTIONS, nms)

    def published_input(self, options: Mapping[str, Any]) -> InputSpec:
        """What the authors' pipeline does to a 640 x 512 or 1280 x 1024 frame, but for the padding's side and level."""
        return InputSpec(
            height=608,
            width=768,
            fit=Letterbox(),
            pad_level=float(round(MEAN)),
            normalization=Normalization(mean=MEAN, std=STD),
        )

    def options_of(self, weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """`channels`, `in_channels` and `dead_convolutions` from the shapes; None unless the names are OSCAR's."""
        expected = _names()
        dead = {name for name in expected if name.startswith(DEAD)}
        if set(weights) not in (expected, expected - dead):
            return None
        return {
            "channels": int(weights["neck.lateral_convs.0.conv.weight"].shape[0]),
            "in_channels": int(weights["backbone.stem.0.weight"].shape[1]),
            "dead_convolutions": dead <= set(weights),
        }


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(Oscar(64, dead_convolutions=True).state_dict())


def without_dead_convolutions(network: nn.Module) -> Oscar:
    """A copy of an OSCAR network that computes the same, without the weights that nothing uses."""
    weights = {name: weight for name, weight in network.state_dict().items() if not name.startswith(DEAD)}
    options = OSCAR.options_of(weights)
    if options is None:
        raise ValueError("not an OSCAR network")
    copy = Oscar(**options)
    copy.load_state_dict(weights)
    return copy.train(network.training)


OSCAR = OscarDetector()
