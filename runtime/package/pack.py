"""`irforge package MODEL --for TARGET -o DIR`: what another program than irforge needs to run a deployable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from irforge.errors import run_command


def package(
    model: Annotated[Path, typer.Argument(help="The deployable: an .onnx file, or an engine with its sidecar.")],
    target: Annotated[str, typer.Option("--for", metavar="TARGET", help="folder, triton or deepstream.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder.")],
    batch: Annotated[
        int | None, typer.Option(min=1, help="triton, deepstream: at most so many frames in one run of the graph.")
    ] = None,
    luma: Annotated[
        Literal["full", "limited"] | None,
        typer.Option(help="deepstream: range of the video's levels, 0..255 or 16..235. [default: full]"),
    ] = None,
    trust_engine: Annotated[bool, typer.Option(help="Package an engine that no sidecar vouches for.")] = False,
) -> None:
    """Write a package for another program: a folder with a runner, Triton, or DeepStream.

    The image encoder of a model that re-scores goes along. What a target cannot run is refused before anything is
    written; DIR appears whole, or not at all.
    """
    from irforge.runtime.package.deployable import read_deployable
    from irforge.runtime.package.registry import target_of
    from irforge.runtime.package.target import write_package

    chosen = target_of(target, {"batch": batch, "luma": luma})
    lines = write_package(read_deployable(model, trust_engine=trust_engine), chosen, output)
    typer.echo("\n".join([f"{output}: {model.name} for {target}", *lines]))


if __name__ == "__main__":
    run_command(package)
