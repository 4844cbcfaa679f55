"""Which frame each training sample of an epoch comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def sampling_plan(
    lengths: Sequence[int], shares: Sequence[float], samples: int, key: tuple[int, int]
) -> list[tuple[int, int]]:
    """(source, frame) of each of `samples` samples; the same for the same `key` (seed, epoch).

    Each source, of `lengths` frames, gives its share of the samples; its frames come in an order shuffled for each
    epoch and are used up before any repeats.
    """
    rng = np.random.default_rng((*key, 0))
    wanted = np.asarray(shares, float)
    edges = np.round(np.cumsum(wanted / wanted.sum()) * samples).astype(int)
    plan: list[tuple[int, int]] = []
    for index, length in enumerate(lengths):
        count = int(edges[index] - (edges[index - 1] if index else 0))
        rounds = -(-count // length)
        order = np.concatenate([rng.permutation(length) for _ in range(rounds)]) if count else np.zeros(0, int)
        plan += [(index, int(frame)) for frame in order[:count]]
    return [plan[i] for i in rng.permutation(len(plan))]
