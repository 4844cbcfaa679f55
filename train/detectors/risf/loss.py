"""RISF's background negative re-scale loss (BNRL) for the box head's classifier, in the few-shot stage.

Written from a description of Jung et al.'s "Re-Scoring Using Image-Language Similarity for Few-Shot Object
Detection"; the probabilities' complements are computed so that float32 holds them at any gap of logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class BackgroundNegativeRescaleLoss:
    """With p = softmax(logits), y a row's label, and w = 1 but for the background's `background_weight`, the mean of

        alpha (1 - p_y)^gamma w_y (-log p_y) + (1 - alpha) sum_{j != y} w_j p_j^epsilon (-log(1 - p_j)).

    The first term is a focal one in which unannotated objects, labelled background, weigh little; the second punishes
    confident wrong classes. alpha = 1 with gamma = 0 and background_weight = 1 is cross-entropy.

    Attributes:
        legacy: what RISF's published code computes, whose options never reach its loss: the mean of w_y (-log p_y).
    """

    alpha: float = 0.2
    gamma: float = 4.0
    epsilon: float = 1.0
    background_weight: float = 0.2
    legacy: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha shares the loss between its two terms: 0 to 1, not {self.alpha}")
        if min(self.gamma, self.epsilon, self.background_weight) < 0:
            raise ValueError("gamma, epsilon and background_weight cannot be negative")

    def __call__(
        self, logits: Tensor, labels: Tensor, image: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """The loss in at least float32.

        Args:
            logits: R x (K + 1), background last.
            labels: int64 R, 0..K.
            image, present: have no say here, rows are judged by themselves.

        Returns:
            The mean over all R rows (not over their weights); 0 without rows.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if not len(labels):
            return logits.sum() * 0
        weights = torch.ones_like(logits[0])
        weights[-1] = self.background_weight
        log_p, log_rest = log_probabilities(logits)
        positive = -weights[labels] * _own(log_p, labels)
        if self.legacy:
            return positive.mean()
        focus = torch.exp(self.gamma * _own(log_rest, labels))
        wrong = 1 - F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        negative = -(wrong * weights * torch.exp(self.epsilon * log_p) * log_rest).sum(dim=1)
        return (self.alpha * focus * positive + (1 - self.alpha) * negative).mean()


def log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p) of p = softmax(logits) along dim 1, exact with their gradients where a p rounds to 1.

    Only a row's likeliest entry can do that. Its complement is the sum of the others' exponentials, and above one half
    it is itself taken from that: the softmax's own gradient there is a difference of nearly equal numbers.
    """
    top = F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
    rest = (logits.masked_fill(top, -torch.inf).logsumexp(dim=1) - logits.logsumexp(dim=1))[:, None]
    p = logits.softmax(dim=1).masked_fill(top, 0)
    log_p = torch.where(top & (rest < -math.log(2)), torch.log1p(-rest.exp()), logits.log_softmax(dim=1))
    return log_p, torch.where(top, rest, torch.log1p(-p))


def _own(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(1, labels[:, None])[:, 0]
