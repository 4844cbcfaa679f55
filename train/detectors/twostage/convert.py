"""`python train/detectors/twostage/convert.py WEIGHTS -o OUT.safetensors --detector glmd-ca --trust`: published weights
of detectron2, DeFRCN, GLMD-CA, torchvision, Detectron or MSRA as ours, by their names.
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
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of the network, where weights do not show it: stride_in_1x1=true; repeatable."),
    ] = None,
    mean: Annotated[float | None, typer.Option(help="Levels they subtract; default: as file or family says.")] = None,
    std: Annotated[float | None, typer.Option(help="Levels they divide by; likewise.")] = None,
    backbone: Annotated[bool, typer.Option("--backbone", help="The file holds a ResNet alone.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Read the pickle: you know where it comes from.")] = False,
) -> None:
    """Convert published two-stage weights, or those of a ResNet to start from, to a checkpoint with its contract."""
    import yaml

    from irforge.contract import Contract, Normalization, Provenance
    from irforge.files import sha256_of_file
    from irforge.train.checkpoint import save_checkpoint
    from irforge.train.detectors.base import output_of
    from irforge.train.detectors.registry import find_detector
    from irforge.train.detectors.twostage.deploy import TwoStageDetector
    from irforge.train.detectors.twostage.network import TwoStage
    from irforge.train.detectors.twostage.published import fill, is_pyramid, levels_of, read_arrays, renamed

    entry = find_detector(detector)
    if not isinstance(entry, TwoStageDetector):
        raise UsageError(f"'{detector}' is no two-stage detector", "Give faster-rcnn, risf or glmd-ca")
    options: dict[str, Any] = {
        name: yaml.safe_load(value) for name, _, value in (o.partition("=") for o in option or [])
    }
    if classes:
        options["classes"] = [name.strip() for name in classes.split(",")]
    arrays = read_arrays(weights, trust)
    if not backbone:
        seen = entry.options_of(renamed(arrays, is_pyramid(arrays))) or {}
        options = {**seen, **options}
    try:
        network = entry.build(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"these options do not suit {entry.title}: {error}") from None
    assert isinstance(network, TwoStage)
    placed = renamed(arrays, len(network.strides) > 1)
    left = fill(network, placed, str(weights), backbone)
    provenance = Provenance(detector=entry.name, network=options, weights_sha256=sha256_of_file(weights))
    published = entry.published_input(options)
    known = levels_of(arrays) or (published.normalization.mean, published.normalization.std)
    levels = Normalization(mean=known[0] if mean is None else mean, std=known[1] if std is None else std)
    spec = published.model_copy(update={"normalization": levels, "pad_level": float(round(levels.mean))})
    contract = Contract(input=spec, output=output_of(entry, 0.05, options), provenance=provenance)
    save_checkpoint(out, network, contract.with_step("convert", source=weights.name))
    taken = len(network.state_dict()) - len(left)
    typer.echo(f"{out}: {entry.title}, {taken} tensors taken, {len(left)} left as made")
    body = network.body
    typer.echo(
        f"ResNet-{body.depth}, stride in the {'1x1' if body.stride_in_1x1 else '3x3'} convolution, "
        f"{'pyramid' if len(network.strides) > 1 else 'C4'}, {network.bins}x{network.bins} bins, "
        f"{network.class_count} classes, "
        f"levels (x - {levels.mean:g}) / {levels.std:g}"
    )


if __name__ == "__main__":
    run_command(convert)
