"""Make an INT8 deployable: `python calib/quantize.py MODEL.onnx --ranges RANGES.json -o MODEL.int8.onnx`, the same as
`irforge quantize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting

if TYPE_CHECKING:
    from irforge.calib.qdq import ChannelScales
    from irforge.calib.tables import PassReport

TARGETS = ("tensorrt", "cpu")


def quantize_model(
    model_path: Path,
    output: Path,
    ranges_path: Path,
    *,
    target: str = "tensorrt",
    keep: Sequence[str] = (),
    method: str | None = None,
    channel_scales: ChannelScales = "factored",
    costs_path: Path | None = None,
    int8_share: float | None = None,
) -> PassReport:
    """Quantise an FP32 deployable with explicit Q/DQ, and write it.

    `tensorrt`: symmetric int8, scales in FP16, everything else in FP16 with FP32 islands. `cpu`: ONNX Runtime's own
    unsigned form with the rest in FP32; TensorRT refuses it. An image encoder that re-scores the boxes goes along, in
    FP16 for TensorRT.

    Args:
        ranges_path: RANGES.json of this very model and contract.
        keep: patterns of node, output or weight names whose convolutions are not quantised.
        method: which of the recorded thresholds to take; None for the one chosen when they were collected.
        channel_scales: how per-channel scales are written for TensorRT; see `irforge.calib.qdq.ChannelScales`.
        costs_path: COSTS.json of `irforge sensitivity`: what its search left, or else what costs most accuracy, stays
            in FP16.
        int8_share: the share of all MACs (0..1) to quantise all the same, whatever was searched for.

    Raises:
        UsageError: no such target, method or share, a share without costs, or a pattern that nothing matches.
        ArtifactError: no contract, or not an FP32 model.
        CalibrationError: stale ranges or costs, or nothing left to quantise.
    """
    from irforge.artifact import embed_contract, load_model, model_fingerprint, read_contract, save_model
    from irforge.calib.cast import CastCount, cast_to_half
    from irforge.calib.companions import carried
    from irforge.calib.costs import load_costs
    from irforge.calib.cpu import insert_unsigned_qdq
    from irforge.calib.floats import raise_opset, require_float_model
    from irforge.calib.histogram import check_method
    from irforge.calib.islands import fp32_islands, last_products
    from irforge.calib.placement import CPU, TENSORRT, place
    from irforge.calib.qdq import insert_qdq
    from irforge.calib.ranges import check_fresh, load_ranges
    from irforge.calib.tables import PassReport
    from irforge.errors import CalibrationError
    from irforge.graph import Graph

    if int8_share is not None and not 0 < int8_share <= 1:
        raise UsageError(f"an int8 share of {int8_share:g} is not between 0 and 1")
    if int8_share is not None and costs_path is None:
        raise UsageError(
            f"an int8 share of {int8_share:g} needs costs to choose what stays in FP16",
            "Give --sensitivity COSTS.json, from 'irforge sensitivity', or leave --int8-share out",
        )
    if target not in TARGETS:
        raise UsageError(f"there is no target '{target}'", f"Targets: {', '.join(TARGETS)}")
    model = load_model(model_path)
    contract = read_contract(model, model_path)
    require_float_model(model, contract, model_path)
    ranges = load_ranges(ranges_path)
    check_fresh(ranges, ranges_path, model, contract, model_path)
    method = method or ranges.method
    check_method(method)
    fingerprint = model_fingerprint(model)
    for_tensorrt = target == "tensorrt"
    if for_tensorrt:
        raise_opset(model, model_path)

    graph = Graph(model)
    graph.tidy()
    decodes = contract.output.kind == "boxes"
    islands = {}
    if for_tensorrt:
        raw_counts = contract.input.door == "float32"
        islands = fp32_islands(model, ranges.tensors, raw_counts=raw_counts, decodes=decodes)
    sizes = {contract.input.name: (1, contract.input.channels, *contract.input.size)}
    rules = TENSORRT if for_tensorrt else CPU
    costs = load_costs(costs_path, ranges, method) if costs_path else None
    apart = dict.fromkeys(last_products(graph) if decodes else (), "decoded to boxes: 256 steps are too few")
    apart |= dict.fromkeys(islands, "an FP32 island")
    apart |= dict.fromkeys(costs.left(int8_share) if costs else (), "INT8 costs too much accuracy there")
    placement = place(graph, ranges.tensors, method, rules, keep=keep, apart=apart, sizes=sizes)
    unmatched = set(keep) - {pattern for kept in placement.kept for pattern in keep if f"'{pattern}'" in kept.reason}
    if unmatched:
        raise UsageError(
            f"no convolution matches '{sorted(unmatched)[0]}'", "Patterns are node, output or weight names"
        )
    if not placement.convolutions:
        reasons = ", ".join(sorted({kept.reason for kept in placement.kept})) or "it has no convolutions"
        raise CalibrationError(f"nothing in '{model_path}' can be quantised: {reasons}")

    order = [node.output[0] for node in graph.nodes]
    count = CastCount(0, 0, 0)
    if for_tensorrt:
        insert_qdq(graph, placement.convolutions, placement.points, channel_scales)
        count = cast_to_half(model, islands)
    else:
        insert_unsigned_qdq(graph, placement.convolutions, placement.points)
    contract = contract.with_step(
        "quantize",
        model_sha256=fingerprint,
        ranges_key=ranges.key,
        target=target,
        method=method,
        channel_scales=channel_scales if for_tensorrt else None,
        int8_macs=round(placement.share, 6),
        kept=[
            {"node": kept.node, "weight": kept.weight, "share": round(kept.share, 6), "reason": kept.reason}
            | (costs.of(kept.node) if costs else {})
            for kept in placement.kept
        ],
        note=None if for_tensorrt else "for ONNX Runtime on CPUs only: TensorRT refuses unsigned, asymmetric Q/DQ",
    ).with_provenance(precision="int8")
    with carried(contract, model_path, output, half=for_tensorrt) as (contract, companion):
        embed_contract(model, contract)
        save_model(output, model)
    return PassReport(
        model=model_path,
        output=output,
        half=count.half,
        float_nodes=count.kept,
        casts=count.casts,
        islands=[islands[name] for name in order if name in islands],
        measured=True,
        target=target,
        method=method,
        convolutions=len(placement.convolutions),
        quantized=placement.share,
        points=len(placement.points),
        kept=placement.kept,
        companion=companion,
    )


def quantize(
    model: Annotated[Path, typer.Argument(help="An FP32 deployable (.onnx).")],
    ranges: Annotated[Path, typer.Option(help="RANGES.json of this model, from 'irforge calibrate'.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    target: Annotated[str, typer.Option("--for", help="tensorrt, or cpu for ONNX Runtime's kernels.")] = "tensorrt",
    keep_fp16: Annotated[
        list[str] | None, typer.Option(help="Names of convolutions to leave in FP16, as 'encoder_0*'; repeatable.")
    ] = None,
    method: Annotated[str, typer.Option(help="minmax, percentile, entropy or mse; default: as collected.")] = "",
    sensitivity: Annotated[
        Path | None, typer.Option(help="COSTS.json of 'irforge sensitivity': leave in FP16 what costs most.")
    ] = None,
    int8_share: Annotated[
        float | None,
        typer.Option(help="With --sensitivity: this share of the MACs stays INT8; default: as searched, else 0.9."),
    ] = None,
    channel_scales: Annotated[
        str, typer.Option(help="factored (fastest on TensorRT-RTX), or axis: DequantizeLinear by channel.")
    ] = "factored",
) -> None:
    """Quantise a deployable to INT8 with explicit Q/DQ, the rest in FP16."""
    from irforge.calib.tables import print_pass

    if output.suffix != ".onnx":
        raise UsageError(f"'{output}' does not end in .onnx")
    refuse_overwriting([output], [model, ranges, sensitivity])
    if channel_scales not in ("factored", "axis"):
        raise UsageError(f"there is no form '{channel_scales}' of channel scales", "Forms: factored, axis")
    report = quantize_model(
        model,
        output,
        ranges,
        target=target,
        keep=keep_fp16 or (),
        method=method or None,
        channel_scales="axis" if channel_scales == "axis" else "factored",
        costs_path=sensitivity,
        int8_share=int8_share,
    )
    print_pass(report)


if __name__ == "__main__":
    run_command(quantize)
