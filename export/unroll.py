"""Spell out a graph for a compiler: `python export/unroll.py MODEL.onnx -o MODEL.unrolled.onnx`, the same as `irforge
unroll`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting


def unroll_model(model_path: Path, output: Path) -> dict[str, int]:
    """Write a deployable of any precision in the form that TensorRT makes the fewest kernels of.

    The values are the same within rounding, the file is for engines: ONNX Runtime runs it more slowly. It comes last,
    after calibration, `half` or `quantize`, which would look at every single term.

    Returns:
        How many rewrites each pass made, by its name.

    Raises:
        ArtifactError: the file cannot be read or has no contract.
        UsageError: the graph has nothing to spell out.
        CheckFailed: the rewritten graph does not compute what the model, of FP32, computes.
    """
    from irforge.artifact import check_model, embed_contract, load_model, model_fingerprint, read_contract, save_model
    from irforge.export.passes import FOR_ENGINES
    from irforge.export.verify import difference_of_models
    from irforge.graph import Graph

    model = load_model(model_path)
    contract = read_contract(model, model_path)
    original = type(model)()
    original.CopyFrom(model)
    graph = Graph(model)
    counts = {}
    for rewrite in FOR_ENGINES:
        counts[rewrite.__name__] = rewrite(graph)
        graph.tidy()
    if not any(counts.values()):
        raise UsageError(
            f"'{model_path}' has nothing to spell out",
            "A compiler fuses it as it is; gated maps, their pools and enlarged maps of fixed size are spelled out",
        )
    check_model(model, "the unrolled graph", shapes=True)
    # In FP16 every term is rounded, and nothing can be held to anything but the arithmetic of the passes.
    exact = contract.provenance.precision == "fp32"
    parity = difference_of_models(original, model, contract) if exact else None
    embed_contract(model, contract.with_step("unroll", model_sha256=model_fingerprint(original), parity=parity))
    save_model(output, model)
    return counts


def unroll(
    model: Annotated[Path, typer.Argument(help="A deployable (.onnx), of any precision.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write, for building engines.")],
) -> None:
    """Spell out what a compiler fuses better term by term: fewer kernels, less memory traffic."""
    if output.suffix != ".onnx":
        raise UsageError(f"'{output}' does not end in .onnx")
    refuse_overwriting([output], [model])
    counts = unroll_model(model, output)
    typer.echo(", ".join(f"{name} {count}" for name, count in counts.items() if count))
    typer.echo(f"{output}: for 'irforge build'; ONNX Runtime runs '{model}' faster")


if __name__ == "__main__":
    run_command(unroll)
