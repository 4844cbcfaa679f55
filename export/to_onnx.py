"""Export a trained detector: `python export/to_onnx.py CHECKPOINT -o MODEL.onnx`, the same as `irforge export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting

if TYPE_CHECKING:
    from irforge.export.passes import Target
    from irforge.export.summary import Summary


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    dynamic_size: bool = False,
    opset: int = 20,
    target: Target | None = "tensorrt",
    trust: bool = False,
) -> Summary:
    """Export a checkpoint, prove that the graph equals the trained module, and write it with its contract inside.

    Args:
        target: what the graph is rewritten for; None leaves torch's export as it is, to measure the rewrites against.

    Raises:
        UsageError: a size, fit or opset that the detector or its contract does not allow.
        ArtifactError: the checkpoint cannot be read, or is a pickle and `trust` is off.
        ExportError: torch cannot export the detector, or TensorRT would refuse the graph.
        CheckFailed: the graph does not compute what the module computes.
    """
    from irforge import __version__
    from irforge.artifact import embed_contract, read_contract, save_model
    from irforge.export.convert import contract_for, onnx_from_torch
    from irforge.export.summary import summarize
    from irforge.export.verify import largest_difference
    from irforge.files import sha256_of_file
    from irforge.train.checkpoint import load_deployable

    deployable, trained = load_deployable(checkpoint, trust=trust)
    contract = contract_for(trained, deployable.stride, size, fit, dynamic_size, deployable.smallest)
    model, rewrites = onnx_from_torch(deployable, contract, opset=opset, target=target)
    contract = read_contract(model)
    parity = largest_difference(model, deployable, contract)
    digest = sha256_of_file(checkpoint)
    contract = contract.with_provenance(
        weights_sha256=contract.provenance.weights_sha256 or digest, irforge_version=__version__, precision="fp32"
    ).with_step(
        "export",
        checkpoint=checkpoint.name,
        checkpoint_sha256=digest,
        opset=opset,
        target=target or "plain",
        parity=parity,
    )
    embed_contract(model, contract)
    save_model(output, model)
    parameters = sum(weight.numel() for weight in deployable.parameters())
    return summarize(model, contract, parameters, rewrites, parity)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Trained weights with a contract (.safetensors).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    size: Annotated[str, typer.Option(help="HxW instead of the trained size; frames are padded to it.")] = "",
    fit: Annotated[str, typer.Option(help="squash, letterbox or pad-to-multiple, instead of the default.")] = "",
    dynamic_size: Annotated[bool, typer.Option(help="Any size, in multiples of the detector's stride.")] = False,
    opset: Annotated[int, typer.Option(help="ONNX opset; 20 is the newest that JetPack 6 reads.")] = 20,
    target: Annotated[
        str, typer.Option("--for", help="tensorrt, or cpu for ONNX Runtime's CPU kernels. [default: tensorrt]")
    ] = "",
    plain: Annotated[
        bool, typer.Option("--plain", help="Leave out every rewrite: what they gain is measured against this.")
    ] = False,
    trust: Annotated[bool, typer.Option(help="Load a pickled checkpoint. It can run any code: only your own.")] = False,
) -> None:
    """Export a trained detector to ONNX: frames in, target mask out, with its contract inside."""
    from irforge.export.summary import print_summary

    if target not in ("", "tensorrt", "cpu"):
        raise UsageError(f"there is no target '{target}'", "Targets: tensorrt, cpu")
    if plain and target:
        raise UsageError("a plain export is for no target", "Leave out --plain or --for")
    if output.suffix != ".onnx":
        raise UsageError(f"'{output}' does not end in .onnx")
    refuse_overwriting([output], [checkpoint])
    summary = export_checkpoint(
        checkpoint,
        output,
        size=parse_size(size) if size else None,
        fit=fit or None,
        dynamic_size=dynamic_size,
        opset=opset,
        target=None if plain else "cpu" if target == "cpu" else "tensorrt",
        trust=trust,
    )
    print_summary(summary, f"{checkpoint} -> {output}")


def parse_size(text: str) -> tuple[int, int]:
    """'512x640' -> (512, 640): height, then width.

    Raises:
        UsageError: anything else.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"'{text}' is no size", "Write height x width, as 512x640")
    return int(sides[0]), int(sides[1])


if __name__ == "__main__":
    run_command(export)
