"""PCB: a detection is judged by its likeness to the support boxes of its class (Qiao et al., DeFRCN, ICCV 2021).

As published, a frame is encoded at its own size, without a resize; here its sides are padded to multiples of 32, so
that one exported graph fits all. Frames of such sides, 512 x 640 or 480 x 640, get what they would get without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.errors import InputError
from irforge.rescoring import Pixels, Rescorer, RescoringSpec
from irforge.train.rescoring.encoders import STRIDE, Encoder
from irforge.train.rescoring.fusion import Fusion, TorchRescorer, refuse_unknown, shares

ALPHA = 0.5

Support = Iterable[tuple[Pixels, npt.NDArray[np.float32], npt.NDArray[np.int64]]]
"""Frames (uint8 H x W or H x W x 3) with their true boxes, xyxy in frame pixels, and 0-based classes."""


class PcbScorer(nn.Module):
    """A frame and how each box averages its map, scores and classes -> new scores."""

    def __init__(self, encoder: Encoder, fusion: Fusion) -> None:
        super().__init__()
        self.encoder = encoder
        self.fusion = fusion

    def forward(
        self, frame: Tensor, row_weights: Tensor, column_weights: Tensor, scores: Tensor, classes: Tensor
    ) -> Tensor:
        """frame uint8 1 x 3 x H x W, row_weights N x H/32, column_weights N x W/32, scores N, classes int64 N -> N."""
        return self.fusion(describe(self.encoder, frame, row_weights, column_weights), scores, classes)


def describe(encoder: Encoder, frame: Tensor, row_weights: Tensor, column_weights: Tensor) -> Tensor:
    """A box is the encoder's logits of its averaged map: float32 N x 1000. See `PcbScorer.forward`."""
    features = encoder.features(frame.float())[0].flatten(1)
    windows = (row_weights[:, :, None] * column_weights[:, None]).flatten(1)
    return encoder.classify(windows @ features.t())


@torch.no_grad()
def prototypes(encoder: Encoder, support: Support, classes: int) -> tuple[Tensor, Tensor]:
    """The mean description of each class' support boxes, float32 classes x 1000, and their number, int64 classes."""
    sums, counts = torch.zeros(classes, 1000), torch.zeros(classes, dtype=torch.int64)
    spec = _spec(["any"], [-1], [1.0], encoder)
    cutter = Rescorer(spec, lambda feeds: feeds["scores"])
    for frame, boxes, labels in support:
        if not len(boxes):
            continue
        feeds = cutter.pixels(frame, np.asarray(boxes, np.float32))
        described = describe(encoder, **{name: torch.from_numpy(feed) for name, feed in feeds.items()})
        owners = torch.from_numpy(np.asarray(labels, np.int64))
        sums.index_add_(0, owners, described)
        counts += torch.bincount(owners, minlength=classes)
    return sums / counts.clamp_min(1)[:, None], counts


def pcb_rescorer(
    encoder: Encoder,
    support: Support,
    classes: Sequence[str],
    *,
    judged: Sequence[str] | None = None,
    alpha: float | Mapping[str, float] = ALPHA,
    source: Mapping[str, Any] | None = None,
    **window: Any,
) -> TorchRescorer:
    """PCB for a detector of these classes.

    Args:
        encoder: see `irforge.train.rescoring.encoders.load_encoder`.
        support: the shots that the detector was fine-tuned on.
        classes: the detector's, by index; those without a support box keep their scores.
        judged: the classes that may be judged again; None means all.
        alpha: the detector's share, for all classes or by name; those not named get 0.5.
        source: to be kept for reading.
        window: `lower`, `upper`, `limit` and the like of `RescoringSpec`.

    Raises:
        UsageError: `judged` or `alpha` name a class that there is not.
        InputError: no class that may be judged has a support box.
    """
    chosen = list(classes if judged is None else judged)
    refuse_unknown([*chosen, *(alpha if isinstance(alpha, Mapping) else ())], classes)
    table, counts = prototypes(encoder, support, len(classes))
    columns = [k if name in chosen and counts[k] else -1 for k, name in enumerate(classes)]
    if max(columns) < 0:
        raise InputError("the support has no box of a class that is judged again", f"Wanted: {', '.join(chosen)}")
    spec = _spec(list(classes), columns, shares(alpha, classes, ALPHA), encoder, source=dict(source or {}), **window)
    return TorchRescorer(spec, PcbScorer(encoder, Fusion(spec, F.normalize(table, dim=1), None)))


def _spec(classes: list[str], columns: list[int], alpha: list[float], encoder: Encoder, **fields: Any) -> RescoringSpec:
    return RescoringSpec(
        method="pcb",
        classes=classes,
        columns=columns,
        alpha=alpha,
        stride=STRIDE,
        pad_level=encoder.pad_level,
        **fields,
    )
