"""What each part of the few-shot detectors gains: `python benchmarks/fewshot.py -o runs/fewshot --minutes 90`.

A network trains on base classes once; then, for each draw of K shots, every variant is fine-tuned on the same frames
and measured on the test frames, with and without PCB. Each finished step is a file in OUT/steps: the same command goes
on where it stopped, by --minutes, by Ctrl-C or by a kill. `--table` prints what there is so far.
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
    import torch

    from benchmarks.fewshot_study import VARIANTS, Study, work
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
    share = threads or max((os.cpu_count() or 1) // jobs, 1)
    torch.set_num_threads(share)
    if pcb:
        from irforge.train.rescoring.encoders import load_encoder

        # Better now than after the first training.
        load_encoder("efficientnet-lite0")
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
