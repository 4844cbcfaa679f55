"""Confusion-aware losses for boxes that are not all annotated.

A few-shot image carries the boxes of its sampled class alone, so that what else it shows is labelled background. Where
the detector sees an unannotated class there, it is not punished for that class. Written from a description of Wan et
al.'s GLMD-CA; rows name their image, where the original counts on 512 rows an image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def confusion_aware_loss(logits: Tensor, labels: Tensor, image: Tensor, present: Tensor | None = None) -> Tensor:
    """Softmax cross-entropy that spares, in each background row, the likeliest class if its image has none of it.

    The spared class leaves that row's softmax: its logit gets no gradient. So the loss is never above cross-entropy,
    and equals it where every image has every class. Computed in at least float32.

    Args:
        logits: R x (K + 1), background last.
        labels: int64 R, K is background.
        image: int64 R, the index of the image that each row belongs to, from 0.
        present: bool, images x K: the classes annotated in each image, crowds too. None takes the labels of the
            image's rows for it, which say the same where every true box is among the rows.

    Returns:
        The mean over all R rows; 0 without rows.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not len(labels):
        return logits.sum() * 0
    background = logits.shape[1] - 1
    if present is None:
        present = _labelled(labels, image, background)
    likeliest = logits[:, :background].argmax(dim=1)
    spared = (labels == background) & ~present[image, likeliest]
    out = F.one_hot(likeliest, background + 1).bool() & spared[:, None]
    return F.cross_entropy(logits.masked_fill(out, -torch.inf), labels)


def confusion_aware_objectness(logits: Tensor, labels: Tensor, image: Tensor) -> Tensor:
    """Binary cross-entropy of sampled anchors without the negatives that look like objects: those with logit > 0.

    Args:
        logits: A, of the anchors of all images.
        labels: int64 A: 1 object, 0 background, -1 not sampled.
        image: int64 A; has no say here, an anchor is judged by itself.

    Returns:
        The sum; whoever calls divides it by the number of sampled anchors, the spared ones included.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counted = (labels == 1) | ((labels == 0) & (logits <= 0))
    return F.binary_cross_entropy_with_logits(logits[counted], labels[counted].to(logits.dtype), reduction="sum")


def _labelled(labels: Tensor, image: Tensor, classes: int) -> Tensor:
    present = torch.zeros(int(image.max()) + 1, classes, dtype=torch.bool, device=labels.device)
    objects = labels < classes
    present[image[objects], labels[objects]] = True
    return present
