"""The four losses of a two-stage detector, of which both classifications can be exchanged. All are in float32."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.base import BoxBatch, Plane
from irforge.train.detectors.glmd.confusion import confusion_aware_loss, confusion_aware_objectness
from irforge.train.detectors.risf.loss import BackgroundNegativeRescaleLoss
from irforge.train.detectors.twostage.boxes import DETECTION_WEIGHTS, PROPOSAL_WEIGHTS, encode_boxes
from irforge.train.detectors.twostage.network import TwoStage, TwoStageMaps
from irforge.train.detectors.twostage.rpn import anchors_of, rows_of
from irforge.train.detectors.twostage.targets import match_anchors, sample_labels, sample_rois


class ClassLoss(Protocol):
    """The mean over rows of (logits [R, K + 1], background last; labels int64 [R], K for background; image int64 [R]:
    each row's; present bool [images, K]: the classes annotated in each, by the labels where it is None)."""

    def __call__(self, logits: Tensor, labels: Tensor, image: Tensor, present: Tensor | None = None) -> Tensor: ...


ObjectnessLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [n]; labels int64 [n]: 1 object, 0 background, -1 ignored; image int64 [n]) -> the sum, of sampled ones."""


def cross_entropy(logits: Tensor, labels: Tensor, image: Tensor, present: Tensor | None = None) -> Tensor:
    """The mean over all rows; 0 of none."""
    return F.cross_entropy(logits, labels, reduction="sum") / max(len(labels), 1)


def binary_cross_entropy(logits: Tensor, labels: Tensor, image: Tensor) -> Tensor:
    """The sum over what is not ignored."""
    counted = labels >= 0
    return F.binary_cross_entropy_with_logits(logits[counted], labels[counted].float(), reduction="sum")


def class_loss(name: str, **options: Any) -> ClassLoss:
    """`ce`; `ca`, GLMD-CA's confusion-aware one; or `bnrl`, RISF's, which alone has options.

    Raises:
        ValueError, TypeError: an unknown name, or options that the loss does not have.
    """
    if name == "bnrl":
        return BackgroundNegativeRescaleLoss(**options)
    plain: dict[str, ClassLoss] = {"ce": cross_entropy, "ca": confusion_aware_loss}
    if name not in plain:
        raise ValueError(f"classification is ce, ca or bnrl, not '{name}'")
    if options:
        raise ValueError(f"classification '{name}' has no options, and was given {', '.join(options)}")
    return plain[name]


def objectness_loss(name: str) -> ObjectnessLoss:
    """`bce`, or `ca`, GLMD-CA's confusion-aware one.

    Raises:
        ValueError: an unknown name.
    """
    plain: dict[str, ObjectnessLoss] = {"bce": binary_cross_entropy, "ca": confusion_aware_objectness}
    if name not in plain:
        raise ValueError(f"objectness is bce or ca, not '{name}'")
    return plain[name]


class TwoStageLoss:
    """Objects and boxes of the RPN, classes and boxes of the second stage, each of weight 1.

    Which anchors and proposals are sampled, and what dropout drops, depends on `seed`, the epoch and the samples alone,
    so that a resumed run goes on exactly.

    Args:
        classification, class_options: see `class_loss`.
        objectness: see `objectness_loss`.
        candidates: boxes a level that training proposals are suppressed from; None is 12000 for C4, 2000 for the
            pyramid, as published.
        proposals: what is left of them for a sample; None is 2000, or 1000 for the pyramid.
        anchor_batch, anchor_share: sampled anchors of a sample, and the largest share of objects in them.
        roi_batch, roi_share: the same of proposals.
    """

    def __init__(
        self,
        classification: str = "ce",
        objectness: str = "bce",
        class_options: Mapping[str, Any] | None = None,
        candidates: int | None = None,
        proposals: int | None = None,
        anchor_batch: int = 256,
        anchor_share: float = 0.5,
        roi_batch: int = 512,
        roi_share: float = 0.25,
        seed: int = 0,
    ) -> None:
        for name, value in (("anchor_batch", anchor_batch), ("roi_batch", roi_batch)):
            if value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        for name, share in (("anchor_share", anchor_share), ("roi_share", roi_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} lies between 0 and 1, not {share}")
        self.classification = class_loss(classification, **(class_options or {}))
        self.objectness = objectness_loss(objectness)
        self.candidates, self.proposals = candidates, proposals
        self.anchor_batch, self.anchor_share = anchor_batch, anchor_share
        self.roi_batch, self.roi_share = roi_batch, roi_share
        self.seed = seed

    def encode(self, levels: Plane, boxes: Plane, classes: npt.NDArray[np.int64]) -> dict[str, Plane]:
        """`key`: a number that the sample's levels give, in float32's 24 bits, which its draws depend on."""
        key = zlib.crc32(levels.tobytes()) % 2**24
        return {"key": np.full((1, 1, 1), key, np.float32)}

    def __call__(self, network: nn.Module, frames: Tensor, truth: BoxBatch, epoch: int) -> dict[str, Tensor]:
        assert isinstance(network, TwoStage)
        keys = truth.maps["key"].flatten().tolist() if "key" in truth.maps else []
        with torch.random.fork_rng([frames.device] if frames.is_cuda else []):
            torch.manual_seed(zlib.crc32(repr((self.seed, epoch, keys)).encode()))
            maps: TwoStageMaps = network(frames)
            terms = self._rpn_terms(network, maps, truth)
            return terms | self._roi_terms(network, maps, truth, (frames.shape[2], frames.shape[3]))

    def _rpn_terms(self, network: TwoStage, maps: TwoStageMaps, truth: BoxBatch) -> dict[str, Tensor]:
        rows, shifts = rows_of(maps.rpn)
        logits, deltas = torch.cat(rows, dim=1), torch.cat(shifts, dim=1)
        anchors = torch.cat(anchors_of(maps.rpn, network.anchors))
        chosen_logits, labels, images = [], [], []
        box_loss = deltas.sum() * 0
        for sample, true in enumerate(truth.boxes):
            found = match_anchors(anchors, true)
            chosen = sample_labels(found.labels, self.anchor_batch, self.anchor_share, background=0)
            chosen_logits.append(logits[sample, chosen])
            labels.append(found.labels[chosen])
            images.append(torch.full_like(chosen, sample))
            objects = chosen[labels[-1] == 1]
            if len(objects):
                wanted = encode_boxes(true[found.owners[objects]], anchors[objects], PROPOSAL_WEIGHTS)
                box_loss = box_loss + (deltas[sample, objects] - wanted).abs().sum()
        count = self.anchor_batch * len(truth.boxes)
        with torch.autocast(logits.device.type, enabled=False):
            object_loss = self.objectness(torch.cat(chosen_logits), torch.cat(labels), torch.cat(images))
        return {"rpn_cls": object_loss / count, "rpn_box": box_loss / count}

    def _roi_terms(
        self, network: TwoStage, maps: TwoStageMaps, truth: BoxBatch, size: tuple[int, int]
    ) -> dict[str, Tensor]:
        background = network.class_count
        for sample, classes in enumerate(truth.classes):
            if len(classes) and int(classes.max()) >= background:
                raise ValueError(
                    f"a true box of sample {sample} is of class {int(classes.max())}, the network has {background}"
                )
        candidates = self.candidates or (12000 if len(maps.levels) == 1 else 2000)
        count = self.proposals or (2000 if len(maps.levels) == 1 else 1000)
        proposals = network.propose(maps.rpn, size, candidates, count)
        sampled = [
            sample_rois(found, true, classes, background, self.roi_batch, self.roi_share)
            for found, true, classes in zip(proposals, truth.boxes, truth.classes, strict=True)
        ]
        boxes = [one.boxes for one in sampled]
        logits, deltas = network.roi_heads(network.pool(maps.levels, boxes))
        labels = torch.cat([one.labels for one in sampled])
        image = torch.cat([torch.full_like(one.labels, sample) for sample, one in enumerate(sampled)])
        objects = torch.nonzero(labels < background).squeeze(1)
        shifts = deltas.unflatten(1, (background, 4))[objects, labels[objects]]
        targets = torch.cat([one.targets for one in sampled])[objects]
        wanted = encode_boxes(targets, torch.cat(boxes)[objects], DETECTION_WEIGHTS)
        with torch.autocast(logits.device.type, enabled=False):
            class_loss = self.classification(logits, labels, image, _present(truth.classes, background, labels.device))
        return {"cls": class_loss, "box": (shifts - wanted).abs().sum() / max(len(labels), 1)}


def _present(classes: list[Tensor], count: int, device: torch.device) -> Tensor:
    # Sampled rows alone would not do: among many objects none of a class's rows may have been drawn.
    present = torch.zeros(len(classes), count, dtype=torch.bool, device=device)
    for sample, some in enumerate(classes):
        present[sample, some.to(device)] = True
    return present
