"""`python train/data/fewshot.py NAME:SPLIT --shots K`: draw K boxes of each class as COCO files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import run_command


def fewshot(
    data: Annotated[str, typer.Argument(metavar="NAME[:SPLIT][@CLASSES]", help="What to draw from: boxes or masks.")],
    shots: Annotated[list[int], typer.Option(min=1, help="Boxes of each class; repeat for nested draws.")],
    seed: Annotated[list[int], typer.Option(min=0, help="Same seed, same draw; repeat for several.")] = [0],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write to; default 'fewshot' in the dataset.")
    ] = None,
    single: Annotated[
        bool, typer.Option("--single", help="Draw boxes one by one: others in their frames go unlabelled.")
    ] = False,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Draw K boxes of each class, K by K and seed by seed, and write each draw as a COCO file.

    Draws of one seed are nested: the 10-shot one holds the 5-shot one. Frames come whole, with all their boxes of the
    class they are drawn for.
    """
    from irforge.datasets import open_dataset
    from irforge.datasets.shots import FOLDER
    from irforge.train.data.shots import draw_shots, shots_path, write_shots

    dataset = open_dataset(data, data_root)
    folder = (dataset.root if dataset.root.is_dir() else dataset.root.parent) / FOLDER if out is None else out
    seen = [0 if truth is None else len(truth) for truth in (sample.boxes() for sample in dataset)]
    for one in seed:
        for count, draw in zip(sorted(set(shots)), draw_shots(dataset, shots, one, single), strict=True):
            path = shots_path(dataset, count, one, folder)
            write_shots(path, dataset, draw, count, one)
            drawn, there = (sum(sizes) for sizes in (map(len, draw.values()), (seen[index] for index in draw)))
            typer.echo(f"{path}: {drawn} boxes in {len(draw)} frames, where {there - drawn} more go unlabelled")


if __name__ == "__main__":
    run_command(fewshot)
