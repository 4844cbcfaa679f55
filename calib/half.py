"""Make an FP16 deployable: `python calib/half.py MODEL.onnx -o MODEL.fp16.onnx`, the same as `irforge half`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting

if TYPE_CHECKING:
    from irforge.calib.tables import PassReport


def half_model(model_path: Path, output: Path, *, ranges_path: Path | None = None) -> PassReport:
    """Cast an FP32 deployable to FP16 with FP32 islands, and write it. Door and outputs keep their types. An image
    encoder that re-scores its boxes goes along, in FP16 too.

    Args:
        ranges_path: RANGES.json of this model; without it only the rules that need no ranges choose islands.

    Raises:
        ArtifactError: no contract, not FP32, or not a model that can be cast.
        CalibrationError: ranges of another model or contract.
    """
    from irforge.artifact import embed_contract, load_model, model_fingerprint, read_contract, save_model
    from irforge.calib.cast import cast_to_half
    from irforge.calib.companions import carried
    from irforge.calib.floats import require_float_model
    from irforge.calib.islands import fp32_islands
    from irforge.calib.ranges import check_fresh, load_ranges
    from irforge.calib.tables import PassReport
    from irforge.graph import Graph

    model = load_model(model_path)
    contract = read_contract(model, model_path)
    require_float_model(model, contract, model_path)
    ranges = load_ranges(ranges_path) if ranges_path else None
    if ranges and ranges_path:
        check_fresh(ranges, ranges_path, model, contract, model_path)
    fingerprint = model_fingerprint(model)
    islands = fp32_islands(
        model,
        ranges.tensors if ranges else None,
        raw_counts=contract.input.door == "float32",
        decodes=contract.output.kind == "boxes",
    )
    order = [node.output[0] for node in Graph(model).nodes]
    count = cast_to_half(model, islands)
    contract = contract.with_step(
        "half",
        model_sha256=fingerprint,
        ranges_key=ranges.key if ranges else None,
        fp32_islands=len(islands),
    ).with_provenance(precision="fp16")
    with carried(contract, model_path, output, half=True) as (contract, companion):
        embed_contract(model, contract)
        save_model(output, model)
    return PassReport(
        model=model_path,
        output=output,
        half=count.half,
        float_nodes=count.kept,
        casts=count.casts,
        islands=[islands[name] for name in order if name in islands],
        measured=ranges is not None,
        companion=companion,
    )


def half(
    model: Annotated[Path, typer.Argument(help="An FP32 deployable (.onnx).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    ranges: Annotated[Path | None, typer.Option(help="RANGES.json of this model, to choose FP32 islands by.")] = None,
) -> None:
    """Cast a deployable to FP16, with FP32 where FP16 would not hold the values."""
    from irforge.calib.tables import print_pass

    if output.suffix != ".onnx":
        raise UsageError(f"'{output}' does not end in .onnx")
    refuse_overwriting([output], [model, ranges])
    print_pass(half_model(model, output, ranges_path=ranges))


if __name__ == "__main__":
    run_command(half)
