"""Text to CLIP's token ids, by an optional package that carries OpenAI's vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from irforge.errors import EnvironmentFault, UsageError

CONTEXT = 77
END = 49407

Tokenizer = Callable[[Sequence[str]], Tensor]
"""Texts -> int64 N x context: start, tokens, end of text, zeros."""


def tokenize(texts: Sequence[str]) -> Tensor:
    """CLIP's byte-pair encoding, int64 N x 77.

    Raises:
        EnvironmentFault: the package is missing.
        UsageError: a text has more than 75 tokens.
    """
    try:
        from instant_clip_tokenizer import Tokenizer as BytePairs
    except ModuleNotFoundError:
        raise EnvironmentFault(
            "CLIP's vocabulary is not installed", "pip install 'irforge[rescore]', or hand in a tokenizer of your own"
        ) from None
    pairs = BytePairs()
    encoded = [pairs.encode(" ".join(text.lower().split())) for text in texts]
    tokens = torch.zeros(len(texts), CONTEXT, dtype=torch.int64)
    for row, text, ids in zip(tokens, texts, encoded, strict=True):
        if len(ids) > CONTEXT - 2:
            raise UsageError(f"the prompt '{text}' has {len(ids)} tokens, CLIP reads {CONTEXT - 2}", "Shorten it")
        row[: len(ids) + 2] = torch.tensor([END - 1, *ids, END])
    return tokens
