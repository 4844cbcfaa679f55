"""`python train/detectors/oscar/convert.py CKPT.pth -o OSCAR.safetensors --trust`: the authors' weights as ours.

The authors' checkpoints come from mmdetection 2.25; their names are the network's own. Two convolutions that nothing
uses are left behind, and the contract of the published evaluation is put in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import ArtifactError, run_command


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of the authors' training (.pth).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="OUT.safetensors.")],
    trust: Annotated[bool, typer.Option("--trust", help="Read the pickle: you know where it comes from.")] = False,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Of the contract; the authors' evaluation keeps all scores.")
    ] = 0.05,
) -> None:
    """Convert published OSCAR weights to a checkpoint that carries its contract."""
    from irforge.train.checkpoint import load_deployable, save_checkpoint
    from irforge.train.detectors.oscar.deploy import OSCAR, without_dead_convolutions

    deployable, contract = load_deployable(checkpoint, trust=trust)
    options = contract.provenance.network
    if contract.provenance.detector != OSCAR.name:
        raise ArtifactError(f"the weights in '{checkpoint}' are not {OSCAR.title}'s", "Give a checkpoint of OSCAR")
    network = without_dead_convolutions(deployable.network)
    contract = contract.model_copy(update={"output": OSCAR.output(score_threshold)})
    contract = contract.with_provenance(network={**options, "dead_convolutions": False})
    save_checkpoint(out, network, contract.with_step("convert", source=checkpoint.name))
    parameters = sum(weight.numel() for weight in network.parameters())
    typer.echo(f"{out}: {OSCAR.title}, {options['channels']} channels, {parameters:,} parameters")


if __name__ == "__main__":
    run_command(convert)
