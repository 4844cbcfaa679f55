"""`python train/detectors/twostage/convert.py WEIGHTS -o OUT.safetensors --detector glmd-ca --trust`: published weights
of detectron2, DeFRCN, GLMD-CA, torchvision or MSRA as ours, by their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from irforge.errors import UsageError, run_command


def convert(
    weights: Annotated[Path, typer.Argument(help="Published weights (.pth, .pkl, .safetensors).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="OUT.safetensors.")],
    detector: Annotated[str, typer.Option(help="faster-rcnn, risf or glmd-ca.")] = "faster-rcnn",
    classes: Annotated[str, typer.Option(help="Names, with commas between; default: numbered ones.")] = "",
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of the network; repeat for several.")] = None,
    backbone: Annotated[bool, typer.Option("--backbone", help="The file holds a ResNet alone.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Read the pickle: you know where it comes from.")] = False,
) -> None:
    """Convert published two-stage weights, or those of a ResNet to start from, to a checkpoint with its contract."""
    import yaml

    from irforge.contract import Contract, Provenance
    from irforge.files import sha256_of_file
    from irforge.train.checkpoint import save_checkpoint
    from irforge.train.detectors.base import output_of
    from irforge.train.detectors.registry import find_detector
    from irforge.train.detectors.twostage.deploy import TwoStageDetector
    from irforge.train.detectors.twostage.published import fill, read_arrays, renamed

    entry = find_detector(detector)
    if not isinstance(entry, TwoStageDetector):
        raise UsageError(f"'{detector}' is no two-stage detector", "Give faster-rcnn, risf or glmd-ca")
    options: dict[str, Any] = {
        name: yaml.safe_load(value) for name, _, value in (o.partition("=") for o in option or [])
    }
    if classes:
        options["classes"] = [name.strip() for name in classes.split(",")]
    try:
        network = entry.build(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"these options do not suit {entry.title}: {error}") from None
    left = fill(network, renamed(read_arrays(weights, trust), network.state_dict()), str(weights), backbone)
    provenance = Provenance(detector=entry.name, network=options, weights_sha256=sha256_of_file(weights))
    contract = Contract(
        input=entry.published_input(options), output=output_of(entry, 0.05, options), provenance=provenance
    )
    save_checkpoint(out, network, contract.with_step("convert", source=weights.name))
    typer.echo(f"{out}: {entry.title}, {len(network.state_dict()) - len(left)} tensors taken, {len(left)} left as made")


if __name__ == "__main__":
    run_command(convert)
