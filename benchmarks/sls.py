"""What the SLS loss gains for networks it was not made for: `python benchmarks/sls.py -o runs/sls --minutes 75`.

DNA-Net and ACM train by the loss they were published with, and by SLS, from the same seeds on the same crops. Each
finished run is a file in OUT/steps: the same command goes on where it stopped, by --minutes, by Ctrl-C or by a kill.
`--table` prints what there is so far.
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
    from benchmarks.sls_study import Study

RECIPES = Path(__file__).resolve().parent / "sls_recipes"


def sls(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the study; what is there is gone on with.")],
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop in time; default: when all is done.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that take runs.")] = 2,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each process; default: the cores shared out.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm.")] = 3,
    networks: Annotated[str, typer.Option(metavar="NAMES", help="Some of dna-net, acm.")] = "dna-net,acm",
    recipes: Annotated[Path, typer.Option(metavar="FOLDER", help="Their recipes, NETWORK.yaml.")] = RECIPES,
    test: Annotated[str, typer.Option(help="Data to measure on.")] = "NUDT-SIRST:test",
    every: Annotated[int, typer.Option(min=1, help="Take every n-th of its frames.")] = 4,
    table: Annotated[bool, typer.Option("--table", help="Only print the table of what is there.")] = False,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Networks with their published loss and with SLS side by side, with intervals over seeds."""
    begin = time.monotonic()
    from benchmarks.sls_study import WITHOUT, Study
    from benchmarks.study import run_study
    from irforge.train.recipe import read_recipe

    names = [name.strip() for name in networks.split(",")]
    if not set(names) <= set(WITHOUT) or len(set(names)) < len(names):
        raise UsageError(f"'{networks}' is no list of different networks", f"Networks: {', '.join(WITHOUT)}")
    chosen = {name: read_recipe(recipes / f"{name}.yaml") for name in names}
    study = Study(out, chosen, test, every, seeds, None if data_root is None else str(data_root))
    for step in study.steps:
        study.record(step)
    if table:
        show(study)
        return
    run_study(study, minutes=minutes, jobs=jobs, threads=threads, begin=begin)
    show(study)


def show(study: Study) -> None:
    """Print the table, and write it to OUT/table.md and OUT/table.json."""
    from benchmarks.sls_study import markdown, summary
    from irforge import files

    found = summary(study)
    text = markdown(found)
    files.write_json(study.out / "table.json", found)
    files.write_text(study.out / "table.md", text)
    typer.echo(text)


if __name__ == "__main__":
    run_command(sls)
