"""`python train/classical.py METHOD -o FILE.safetensors`: a detector without training, ready to evaluate and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from irforge.errors import UsageError, run_command


def classical(
    method: Annotated[str, typer.Argument(help="lcm, mpcm, wldm, fkrw, ipi, nipps or ript.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="cells=[3,5], scale=deviation; repeat for several.")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Of the response, scaled to 0..1.")] = 0.5,
    bit_depth: Annotated[int, typer.Option(min=8, max=16, help="Of the frames' levels.")] = 8,
) -> None:
    """Write a classical method as a checkpoint: options and contract, no weights; the other verbs take it as any."""
    import irforge
    from irforge.contract import Contract, Normalization, Provenance
    from irforge.train.checkpoint import save_checkpoint
    from irforge.train.detectors.classical.deploy import Classical
    from irforge.train.detectors.registry import DETECTORS, find_detector

    if output.suffix != ".safetensors":
        raise UsageError(f"'{output}' does not end in .safetensors")
    detector = find_detector(method)
    if not isinstance(detector, Classical):
        known = [name for name in DETECTORS if isinstance(find_detector(name), Classical)]
        raise UsageError(f"'{method}' has to be trained", f"Without training: {', '.join(known)}")
    given = dict(parse_option(text) for text in option or ())
    try:
        options = detector.options(**given)
        network = detector.build(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the options do not suit {detector.title}: {error}") from None
    contract = Contract(
        input=detector.published_input(options),
        output=detector.output(threshold),
        provenance=Provenance(detector=method, network=options, irforge_version=irforge.__version__),
    )
    if bit_depth > 8:
        top = Normalization(mean=0, std=2**bit_depth - 1)
        contract = contract.with_input(door="float32", bit_depth=bit_depth, normalization=top)
    save_checkpoint(output, network, contract)
    typer.echo(f"{output}: {detector.title}, {', '.join(f'{name} {value}' for name, value in options.items())}")


def parse_option(text: str) -> tuple[str, Any]:
    """'cells=[3, 5]' -> ('cells', [3, 5]): the value is JSON, or else a word.

    Raises:
        UsageError: no '=' in it.
    """
    name, found, value = text.partition("=")
    if not found:
        raise UsageError(f"'{text}' is no option", "Write NAME=VALUE, as cells=[3,5]")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    run_command(classical)
