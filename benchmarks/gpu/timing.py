"""How things are timed on a GPU: sets that take turns so that the L2 cache cannot serve them, CUDA events, percentiles.

A sample is one pass, in which every set has its turn, divided by the number of calls. Passes follow each other without
a pause: a pass that the host launches slower than the GPU computes shows the host's time, as it would in use.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

from benchmarks.gpu.records import Times

# The cache must not hold what a set left in it until the set's next turn.
PAST_CACHE = 3
WARM_UP_SECONDS = 0.2

Pass = Callable[[], None]


def sets_past_cache(set_bytes: int, cache_bytes: int) -> int:
    """How many sets of `set_bytes` have to take turns to be larger than three caches: two or more."""
    return max(2, math.ceil(PAST_CACHE * cache_bytes / set_bytes))


def batch_past_cache(image_bytes: int, cache_bytes: int) -> int:
    """The least power of two of images that are larger than three caches by themselves."""
    return 1 << max(0, math.ceil(math.log2(PAST_CACHE * cache_bytes / image_bytes)))


def percentiles(milliseconds: Sequence[float]) -> Times:
    """Percentiles of samples, interpolated linearly between neighbours."""
    p10, p50, p90, p99 = (float(value) for value in np.percentile(milliseconds, (10, 50, 90, 99)))
    return Times(p10=p10, p50=p50, p90=p90, p99=p99, n=len(milliseconds))


def bandwidth(bytes_moved: int, milliseconds: float) -> float:
    """GB/s, a gigabyte being 1e9 bytes."""
    return bytes_moved / milliseconds / 1e6


def time_passes(one_pass: Pass, calls: int, samples: int = 200, seconds: float = 2.0) -> Times:
    """Milliseconds of one of the `calls` of a pass on the current device, after a warm-up.

    Takes `samples` passes, fewer where they would take longer than `seconds`, but at least 20.
    """
    one_pass()
    torch.cuda.synchronize()
    start, passes = time.perf_counter(), 0
    while passes < 3 or time.perf_counter() - start < WARM_UP_SECONDS:
        one_pass()
        torch.cuda.synchronize()
        passes += 1
    estimate = (time.perf_counter() - start) / passes
    samples = max(20, min(samples, int(seconds / estimate)))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(samples + 1)]
    events[0].record()
    for event in events[1:]:
        one_pass()
        event.record()
    torch.cuda.synchronize()
    return percentiles([a.elapsed_time(b) / calls for a, b in pairwise(events)])


def as_cuda_graph(one_pass: Pass) -> Pass:
    """A pass recorded once, to be replayed by a single launch."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            one_pass()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one_pass()
    return graph.replay
