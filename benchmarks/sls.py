"""What the SLS loss gains for networks it was not made for: `python benchmarks/sls.py -o runs/sls --minutes 75`.

DNA-Net and ACM train by the loss they were published with, and by SLS, from the same seeds on the same crops. Each
finished run is a file in OUT/runs: the same command goes on where it stopped, by --minutes, by Ctrl-C or by a kill.
`--table` prints what there is so far.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    import torch

    from benchmarks.sls_study import WITHOUT, Study, work
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
    share = threads or max((os.cpu_count() or 1) // jobs, 1)
    torch.set_num_threads(share)
    end = None if minutes is None else begin + 60 * minutes

    def say(text: str) -> None:
        typer.echo(f"{(time.monotonic() - begin) / 60:6.1f} min  {text}", err=True)

    helpers = [helper(out, number, share, end) for number in range(1, jobs)]
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        if end is not None:
            signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 0.001))
        work(study, say)
    except KeyboardInterrupt:
        if end is None or time.monotonic() < end:
            raise
        say("the time is over; the same command goes on")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        for child in helpers:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        for child in helpers:
            child.wait()
    show(study)


def interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def helper(out: Path, number: int, threads: int, end: float | None) -> subprocess.Popen[bytes]:
    """Another worker on the same folder: this command with one job, and the time that is left."""
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--jobs", "1", "--threads", str(threads)]
    if end is not None:
        command += ["--minutes", str(max((end - time.monotonic()) / 60, 0.01))]
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"worker{number}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


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
