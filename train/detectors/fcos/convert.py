"""`python train/detectors/fcos/convert.py RESNET -o START.safetensors --trust`: a published ResNet of Detectron, MSRA,
detectron2 or torchvision as the start of FCOS, by its names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import UsageError, run_command


def convert(
    weights: Annotated[Path, typer.Argument(help="Published weights of a ResNet (.pkl, .pth, .safetensors).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="START.safetensors.")],
    depth: Annotated[int, typer.Option(help="Of the ResNet.")] = 50,
    classes: Annotated[str, typer.Option(help="Names, with commas between.")] = "target",
    stride_in_1x1: Annotated[
        bool, typer.Option("--stride-in-1x1/--stride-in-3x3", help="Of bottlenecks: Caffe's have it in the 1x1.")
    ] = True,
    trust: Annotated[bool, typer.Option("--trust", help="Read the pickle: you know where it comes from.")] = False,
) -> None:
    """Put a published ResNet under an FCOS whose pyramid and heads start at random."""
    from irforge.contract import Contract, Provenance
    from irforge.files import sha256_of_file
    from irforge.train.checkpoint import save_checkpoint
    from irforge.train.detectors.base import output_of
    from irforge.train.detectors.fcos.deploy import FCOS_RFLA
    from irforge.train.detectors.twostage.published import fill, read_arrays, renamed

    options = {
        "classes": [name.strip() for name in classes.split(",")],
        "depth": depth,
        "stride_in_1x1": stride_in_1x1,
    }
    try:
        network = FCOS_RFLA.build(**options)
    except ValueError as error:
        raise UsageError(f"these options do not suit {FCOS_RFLA.title}: {error}") from None
    left = fill(network, renamed(read_arrays(weights, trust), pyramid=True), str(weights), body_only=True)
    provenance = Provenance(detector=FCOS_RFLA.name, network=options, weights_sha256=sha256_of_file(weights))
    contract = Contract(
        input=FCOS_RFLA.published_input(options), output=output_of(FCOS_RFLA, 0.05, options), provenance=provenance
    )
    save_checkpoint(out, network, contract.with_step("convert", source=weights.name))
    taken = len(network.state_dict()) - len(left)
    typer.echo(f"{out}: {FCOS_RFLA.title}, {taken} tensors of the ResNet taken, {len(left)} left as made")


if __name__ == "__main__":
    run_command(convert)
