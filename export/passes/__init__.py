"""Exact graph rewrites: each takes a Graph, edits it, and says how often it did; outputs stay equal within rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from onnx import ModelProto

from irforge.export.passes.affine import fold_affine_after, fold_affine_before
from irforge.export.passes.constants import fold_constants
from irforge.export.passes.cpu import (
    blocked_residuals,
    declare_upsampled_shapes,
    gated_means_as_products,
    split_concatenations,
    strided_single_outputs,
    upsampled_planes_as_products,
)
from irforge.export.passes.reductions import global_max_as_reduction, merge_shared_perceptrons
from irforge.graph import Graph

Pass = Callable[[Graph], int]
Target = Literal["tensorrt", "cpu"]

ALWAYS: tuple[Pass, ...] = (
    fold_constants,
    fold_affine_before,
    fold_affine_after,
    global_max_as_reduction,
    merge_shared_perceptrons,
)
FOR_CPU: tuple[Pass, ...] = (
    declare_upsampled_shapes,
    split_concatenations,
    strided_single_outputs,
    gated_means_as_products,
    blocked_residuals,
    upsampled_planes_as_products,
)


def run_passes(model: ModelProto, target: Target = "tensorrt") -> dict[str, int]:
    """Rewrite a model in place for a target.

    Args:
        target: `tensorrt` keeps the form its fusions look for; `cpu` adds what helps ONNX Runtime's kernels.

    Returns:
        How many rewrites each pass made, by its name.
    """
    graph = Graph(model)
    counts: dict[str, int] = {}
    for rewrite in (*ALWAYS, *FOR_CPU) if target == "cpu" else ALWAYS:
        counts[rewrite.__name__] = rewrite(graph)
        graph.tidy()
    return counts
