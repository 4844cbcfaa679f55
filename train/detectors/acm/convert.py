"""`python train/detectors/acm/convert.py WEIGHTS -o OUT.safetensors --trust`: published ACM and ALCNet weights as ours.

They are what `torch.save` made of a whole module (the PyTorch port of ACM, MIT) or MXNet's `.params` (the authors').
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import ArtifactError, run_command


def convert(
    weights: Annotated[Path, typer.Argument(help="Published weights (.pkl, .pth, .params).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="OUT.safetensors.")],
    trust: Annotated[bool, typer.Option("--trust", help="Read the pickle: you know where it comes from.")] = False,
) -> None:
    """Convert published weights of ACM or ALCNet to a checkpoint that carries its contract."""
    from irforge.contract import Contract, Provenance
    from irforge.files import sha256_of_file
    from irforge.train.checkpoint import save_checkpoint
    from irforge.train.detectors.acm.deploy import ACM
    from irforge.train.detectors.acm.published import read_published
    from irforge.train.detectors.alcnet.deploy import ALCNET

    tensors = read_published(weights, trust)
    found = next(((entry, own) for entry in (ACM, ALCNET) if (own := entry.options_of(tensors)) is not None), None)
    if found is None:
        raise ArtifactError(f"the weights in '{weights}' are neither ACM's nor ALCNet's", "Give theirs")
    entry, options = found
    # MXNet enlarges maps with aligned corners, torch without.
    options["align_corners"] = weights.suffix == ".params"
    network = entry.build(**options)
    network.load_state_dict(tensors)
    provenance = Provenance(detector=entry.name, network=options, weights_sha256=sha256_of_file(weights))
    contract = Contract(input=entry.published_input(options), output=entry.output(0.5), provenance=provenance)
    save_checkpoint(out, network, contract.with_step("convert", source=weights.name))
    parameters = sum(weight.numel() for weight in network.parameters())
    shown = ", ".join(f"{name} {value}" for name, value in options.items())
    typer.echo(f"{out}: {entry.title}, {shown}, {parameters:,} parameters")


if __name__ == "__main__":
    run_command(convert)
