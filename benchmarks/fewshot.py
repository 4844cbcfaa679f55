"""What each part of the few-shot detectors gains: `python benchmarks/fewshot.py -o runs/fewshot --minutes 90`.

A network trains on base classes once; then, for each draw of K shots, every variant is fine-tuned on the same frames
and measured on the test frames, with and without PCB. Each finished step is a file in OUT/steps: the same command goes
on where it stopped, by --minutes, by Ctrl-C or by a kill. `--table` prints what there is so far.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irforge.errors import UsageError, run_command

if TYPE_CHECKING:
    from benchmarks.fewshot_study import Study

RECIPES = Path(__file__).resolve().parents[1] / "train" / "detectors" / "glmd"


def fewshot(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the study; what is there is gone on with.")],
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop in time; default: when all is done.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that take steps.")] = 2,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each process; default: the cores shared out.")] = None,
    shots: Annotated[str, typer.Option(metavar="K,K,..", help="Numbers of shots.")] = "1,3,10",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of each number, from 0.")] = 3,
    variants: Annotated[
        str, typer.Option(metavar="NAMES", help="Some of plain, ca, neck, bnrl.")
    ] = "plain,ca,neck,bnrl",
    base: Annotated[Path, typer.Option(help="Recipe of the base stage.")] = RECIPES / "base_small.yaml",
    novel: Annotated[Path, typer.Option(help="Recipe of the few-shot stage.")] = RECIPES / "novel_small.yaml",
    test: Annotated[str, typer.Option(help="Data to measure on, with all classes.")] = "DRONE-IR:test@-drone,drone",
    pcb: Annotated[bool, typer.Option(help="Measure with PCB too (EfficientNet-Lite0, irforge[rescore]).")] = True,
    table: Annotated[bool, typer.Option("--table", help="Only print the tables of what is there.")] = False,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Plain fine-tuning, confusion-aware losses, the neck, PCB and BNRL side by side, with intervals over draws."""
    begin = time.monotonic()
    from benchmarks.fewshot_study import VARIANTS, Study
    from benchmarks.study import run_study
    from irforge.train.recipe import read_recipe

    names = tuple(name.strip() for name in variants.split(","))
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or len(set(names)) < len(names):
        raise UsageError(f"'{variants}' is no list of different variants", f"Variants: {', '.join(VARIANTS)}")
    study = Study(
        out,
        read_recipe(base),
        read_recipe(novel),
        test,
        numbers(shots),
        seeds,
        names,
        pcb,
        None if data_root is None else str(data_root),
    )
    for step in study.steps:
        study.record(step)
    if table:
        show(study)
        return
    if pcb:
        from irforge.train.rescoring.encoders import load_encoder

        # Better now than after the first training.
        load_encoder("efficientnet-lite0")
    run_study(study, minutes=minutes, jobs=jobs, threads=threads, begin=begin)
    show(study)


def numbers(text: str) -> tuple[int, ...]:
    """'1,3,10' -> (1, 3, 10).

    Raises:
        UsageError: anything else.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1 or len(set(found)) < len(found):
        raise UsageError(f"'{text}' is no list of different numbers of shots", "Such as 1,3,10")
    return found


def show(study: Study) -> None:
    """Print the tables, and write them to OUT/table.md and OUT/table.json."""
    from benchmarks.fewshot_table import markdown, summary
    from irforge import files

    bases: dict[str, dict[str, float]] = {}
    figures: dict[tuple[str, int, int], dict[str, float]] = {}
    for step in study.steps:
        record = study.record(step)
        if record is None:
            continue
        if not step.shots:
            bases[step.variant] = record["plain"]
            continue
        figures[step.variant, step.shots, step.seed] = record["plain"]
        for name in record:
            if name.startswith("pcb"):
                figures[f"{step.variant}+{name}", step.shots, step.seed] = record[name]
    found = summary(figures, bases)
    text = markdown(found)
    files.write_json(study.out / "table.json", found)
    files.write_text(study.out / "table.md", text)
    typer.echo(text)


if __name__ == "__main__":
    run_command(fewshot)
