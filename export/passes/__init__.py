"""Exact graph rewrites: each takes a Graph, edits it, and says how often it did; outputs stay equal within rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from onnx import ModelProto

from irforge.export.passes.activations import spell_out_mish
from irforge.export.passes.affine import fold_affine_after, fold_affine_before
from irforge.export.passes.constants import fold_constants
from irforge.export.passes.convolutions import (
    merge_parallel_convolutions,
    merge_summed_convolutions,
    pad_hidden_channels,
)
from irforge.export.passes.cpu import (
    blocked_residuals,
    declare_upsampled_shapes,
    gated_means_as_products,
    split_concatenations,
    strided_single_outputs,
    upsampled_planes_as_products,
)
from irforge.export.passes.reductions import global_max_as_reduction, merge_shared_perceptrons
from irforge.export.passes.scales import merge_channel_gates, pool_before_moves
from irforge.export.passes.unrolled import (
    filter_by_taps,
    pool_by_reduction,
    repeat_by_broadcast,
)
from irforge.graph import Graph

Pass = Callable[[Graph], int]
Target = Literal["tensorrt", "cpu"]

ALWAYS: tuple[Pass, ...] = (
    fold_constants,
    fold_affine_before,
    fold_affine_after,
    global_max_as_reduction,
    merge_shared_perceptrons,
    merge_channel_gates,
    pool_before_moves,
    merge_parallel_convolutions,
    spell_out_mish,
)
FOR_TENSORRT: tuple[Pass, ...] = (merge_summed_convolutions, pad_hidden_channels)
FOR_CPU: tuple[Pass, ...] = (
    declare_upsampled_shapes,
    split_concatenations,
    strided_single_outputs,
    gated_means_as_products,
    blocked_residuals,
    upsampled_planes_as_products,
)
FOR_ENGINES: tuple[Pass, ...] = (repeat_by_broadcast, pool_by_reduction, filter_by_taps)
"""What `irforge unroll` runs, in this order: after calibration, for compilers alone."""


def run_passes(model: ModelProto, target: Target = "tensorrt") -> dict[str, int]:
    """Rewrite a model in place for a target.

    Args:
        target: `tensorrt` keeps the form its fusions look for; `cpu` adds what helps ONNX Runtime's kernels.

    Returns:
        How many rewrites each pass made, by its name.
    """
    graph = Graph(model)
    counts: dict[str, int] = {}
    for rewrite in (*ALWAYS, *(FOR_CPU if target == "cpu" else FOR_TENSORRT)):
        counts[rewrite.__name__] = rewrite(graph)
        graph.tidy()
    return counts
