"""`python train/fit.py RECIPE.yaml`: train a detector by a recipe, on one machine or many (PyTorch Lightning)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import UsageError, run_command


def fit(
    recipe: Annotated[Path, typer.Argument(help="Recipe (YAML): detector, data, loss, stages, optimizer.")],
    data: Annotated[
        list[str] | None, typer.Option(help="NAME[:SPLIT] or path, in place of the recipe's; repeat for several.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of this run; default runs/DETECTOR.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on exactly from the last checkpoint in --out.")] = False,
    weights: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="Start from these weights instead of at random.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the last stage, in place of the recipe's.")
    ] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="K of a few-shot recipe.")] = None,
    draw: Annotated[int, typer.Option(min=0, help="Which draw of K shots: the seed in its name.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make the crops; 0: this one.")] = 0,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Train a detector; writes best.safetensors, last.ckpt, log.csv and curve.png to --out.

    Without validation it is last.safetensors. Several processes: torchrun --nproc-per-node N train/fit.py RECIPE.
    """
    import os

    from irforge.train.recipe import Source, read_recipe
    from irforge.train.run import run_training

    wanted = read_recipe(recipe).with_shots(shots, draw)
    changes: dict[str, object] = {}
    if data:
        changes["data"] = [Source(data=name) for name in data]
        changes["stages"] = [stage.model_copy(update={"shares": None}) for stage in wanted.stages]
    if seed is not None:
        changes["seed"] = seed
    wanted = wanted.model_copy(update=changes)
    if epochs is not None:
        last = wanted.stages[-1].model_copy(update={"epochs": epochs})
        wanted = wanted.model_copy(update={"stages": [*wanted.stages[:-1], last]})
    if not wanted.data:
        raise UsageError("no training data", "Give --data NAME:SPLIT, or name it in the recipe under 'data'")
    kept = run_training(
        wanted,
        recipe.name,
        out or Path("runs") / wanted.detector,
        resume,
        workers,
        None if data_root is None else str(data_root),
        weights,
    )
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        typer.echo(f"{'best' if kept.stem == 'best' else 'last'} weights so far: {kept}")


if __name__ == "__main__":
    run_command(fit)
