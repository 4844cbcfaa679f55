"""Write patterns of a graph as irforge's custom operators: `python export/fuse.py MODEL.onnx -o MODEL.fused.onnx`, the
same as `irforge fuse`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting


def fuse_model(model_path: Path, output: Path, *, merge_only: bool = False) -> dict[str, int]:
    """Replace every pattern that a custom operator stands for by that operator, with its body, and write the file.

    The result runs wherever the model runs; native code may take the place of the bodies. It is held to the model on
    sample frames before it is written.

    Args:
        merge_only: only merge the convolutions behind a MutualGate, which has to come before calibration; the rest
            comes last, because calibration and Q/DQ placement look for standard operators.

    Returns:
        How many nodes of each custom operator the file has now.

    Raises:
        ArtifactError: the file cannot be read or has no contract.
        UsageError: the graph has no such pattern.
        CheckFailed: the rewritten graph does not compute what the model computes.
    """
    from irforge.artifact import check_model, embed_contract, load_model, model_fingerprint, read_contract, save_model
    from irforge.export.passes.gates import FOR_PLUGINS, merge_gated_convolutions
    from irforge.export.verify import difference_of_models
    from irforge.graph import Graph
    from irforge.ops import CUSTOM_OPS, count_custom_ops

    model = load_model(model_path)
    contract = read_contract(model, model_path)
    original = type(model)()
    original.CopyFrom(model)
    graph = Graph(model)
    if not sum(rewrite(graph) for rewrite in ((merge_gated_convolutions,) if merge_only else FOR_PLUGINS)):
        raise UsageError(
            f"'{model_path}' has no pattern that a custom operator stands for",
            f"Operators: {', '.join(CUSTOM_OPS)}; docs/custom-ops.md says what each computes",
        )
    graph.tidy()
    del model.graph.value_info[:]
    check_model(model, "the rewritten graph", shapes=True)
    parity = difference_of_models(original, model, contract)
    counts = count_custom_ops(model)
    embed_contract(
        model, contract.with_step("fuse", model_sha256=model_fingerprint(original), custom_ops=counts, parity=parity)
    )
    save_model(output, model)
    return counts


def fuse(
    model: Annotated[Path, typer.Argument(help="A deployable (.onnx), of any precision.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    merge_only: Annotated[
        bool, typer.Option(help="Only merge the convolutions behind a MutualGate: before calibrating for INT8.")
    ] = False,
) -> None:
    """Write patterns of a deployable as custom operators, which a plugin may run natively."""
    if output.suffix != ".onnx":
        raise UsageError(f"'{output}' does not end in .onnx")
    refuse_overwriting([output], [model])
    counts = fuse_model(model, output, merge_only=merge_only)
    for name, count in sorted(counts.items()):
        typer.echo(f"{name}: {count}")
    typer.echo(f"{output}: runs by its bodies anywhere; natively with --custom-ops plugin")


if __name__ == "__main__":
    run_command(fuse)
