"""`irforge compare MODELS... --data SET`: different detectors on the same frames, each under its own contract.

The front door's part of it: it opens deployables through `runtime` and checkpoints through `export` and `train`, and
hands all of them to `irforge.runtime.comparison`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import UsageError, run_command

if TYPE_CHECKING:
    from irforge.runtime.comparison.entry import Entry
    from irforge.runtime.comparison.schema import Comparison
    from irforge.runtime.comparison.training import Progress


def compare(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODELS...", help=".onnx files, engines, or checkpoints (.safetensors)."),
    ] = None,
    data: Annotated[str, typer.Option(help="NAME[:SPLIT] or a path, with masks or boxes.")] = "",
    data_root: Annotated[Path | None, typer.Option(help="Where named data lie, instead of IRFORGE_DATA.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use the first N frames.")] = None,
    max_pixels: Annotated[int | None, typer.Option(min=1, metavar="N", help="Leave larger frames out.")] = None,
    gallery: Annotated[bool, typer.Option("--gallery", help="Show the frames on which they disagree most.")] = False,
    pictures: Annotated[int, typer.Option(min=1, metavar="N", help="Frames of the gallery.")] = 12,
    unseen: Annotated[bool, typer.Option("--unseen", help="Leave out frames that any model saw in training.")] = False,
    any_class: Annotated[bool, typer.Option("--any-class", help="Classes play no part: all is a target.")] = False,
    frame_rate: Annotated[float, typer.Option(min=1e-3, help="Frames a second, of false alarms an hour.")] = 25.0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each model.")] = 1,
    rounds: Annotated[int, typer.Option(min=0, help="How often models take turns on the clock; 0: no clock.")] = 10,
    frames_per_round: Annotated[int, typer.Option(min=1, help="Frames of one turn.")] = 10,
    warm_up: Annotated[int, typer.Option(min=0, help="Frames of each model before the clocks count.")] = 3,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures here too, a row a model.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The .json; the page lies beside it. [default: compare.json]"),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="COMPARE.json", help="Show what was measured before.")
    ] = None,
    trust: Annotated[bool, typer.Option(help="Load a pickled checkpoint. It can run any code: only your own.")] = False,
    trust_engine: Annotated[bool, typer.Option(help="Load an engine that no sidecar vouches for.")] = False,
) -> None:
    """Compare different detectors on the same frames: accuracy, cost, and where they disagree.

    What each model answers is kept beside the JSON: an interrupted comparison goes on, and another model is added
    without running the others again.
    """
    from irforge import files
    from irforge.datasets import dataset_paths
    from irforge.runtime.comparison.page import render
    from irforge.runtime.comparison.schema import read_comparison, write_comparison
    from irforge.runtime.comparison.table import as_csv, print_comparison

    if source is not None:
        if models or data or output:
            raise UsageError("--from shows a comparison that was made before", "Leave models, --data and -o out")
        page = source.with_suffix(".html")
        files.refuse_overwriting([page, csv], [source])
        measured = read_comparison(source)
    else:
        if not models or not data:
            raise UsageError(
                f"there {'are no models' if not models else 'is no --data'} to compare on",
                "irforge compare MODELS... --data NAME:SPLIT, or --from COMPARE.json",
            )
        output = output or Path("compare.json")
        if output.suffix != ".json" or output.is_dir():
            raise UsageError(f"'{output}' is not a .json file", "Name one with -o; the page is written beside it")
        page = output.with_suffix(".html")
        files.refuse_overwriting([output, page, csv], [*models, *dataset_paths(data, data_root)])
        measured = compare_models(
            models,
            data,
            folder=output.with_suffix(".answers"),
            data_root=data_root,
            limit=limit,
            max_pixels=max_pixels,
            pictures=pictures if gallery else 0,
            unseen=unseen,
            any_class=any_class,
            frame_rate=frame_rate,
            threads=threads,
            schedule=(rounds, frames_per_round, warm_up),
            trust=trust,
            trust_engine=trust_engine,
            command=shlex.join(["irforge", "compare", *_arguments()]),
        )
        write_comparison(measured, output)
    files.write_text(page, render(measured))
    if csv is not None:
        files.write_text(csv, as_csv(measured))
    print_comparison(measured)
    typer.echo(", ".join(str(path) for path in (source or output, page, csv) if path is not None))


def compare_models(
    models: Sequence[Path],
    data: str,
    *,
    folder: Path,
    data_root: Path | None = None,
    limit: int | None = None,
    max_pixels: int | None = None,
    pictures: int = 0,
    unseen: bool = False,
    any_class: bool = False,
    frame_rate: float = 25.0,
    threads: int = 1,
    schedule: tuple[int, int, int] = (10, 10, 3),
    trust: bool = False,
    trust_engine: bool = False,
    command: str = "",
) -> Comparison:
    """Measure models of any kind on the first `limit` frames of `data`; see `irforge.runtime.comparison.measure`.

    Args:
        max_pixels: larger frames are left out, and not counted by `limit`.
        folder: where the answers of each model are kept.
        schedule: rounds (0: no clock), frames of a round, frames of warm-up.

    Raises:
        UsageError: models and data do not fit together, or two models have one name.
        InputError, ArtifactError, EnvironmentFault: a frame, a file or a backend cannot be used.
    """
    from irforge.datasets import open_dataset
    from irforge.runtime.benchmark import Schedule
    from irforge.runtime.comparison.measure import compare_entries

    names = [path.name for path in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"two of the models are called '{twice}'", "Name each file once, and differently")
    dataset = open_dataset(data, data_root)
    part = dataset if max_pixels is None else dataset.within(max_pixels)
    part = part if limit is None else part.first(limit)
    rounds, frames_per_round, warm_up = schedule
    entries = [_entry(path, threads, trust, trust_engine) for path in models]
    with _progress() as progress:
        return compare_entries(
            entries,
            part,
            folder=folder,
            schedule=Schedule(rounds, frames_per_round, warm_up) if rounds else None,
            threads=threads,
            frame_rate=frame_rate,
            command=command,
            any_class=any_class,
            pictures=pictures,
            unseen=unseen,
            data_root=data_root,
            held=len(dataset),
            progress=progress,
        )


def _entry(path: Path, threads: int, trust: bool, trust_engine: bool) -> Entry:
    if path.name.endswith((".onnx", ".engine")):
        return _deployable(path, threads, trust_engine)
    return _checkpoint(path, threads, trust)


def _deployable(path: Path, threads: int, trust_engine: bool) -> Entry:
    from irforge.artifact import load_model, read_contract
    from irforge.graph import macs, parameter_count
    from irforge.runtime.backends import choose_backend, open_session
    from irforge.runtime.comparison.entry import Entry
    from irforge.runtime.sidecar import read_sidecar

    choose_backend(path)
    compiled = path.name.endswith(".engine")
    contract = read_sidecar(path).contract if compiled else read_contract(path)

    def counted(size: tuple[int, int]) -> int:
        shape = (1, contract.input.channels, *size)
        return sum(macs(load_model(path, check=False), {contract.input.name: shape}).values())

    return Entry(
        name=path.name,
        path=path,
        contract=contract,
        open=lambda: open_session(path, threads=threads, trust_engine=trust_engine),
        parameters=None if compiled else parameter_count(load_model(path, check=False)),
        macs=None if compiled else counted,
        uncounted="a compiled plan does not hold the graph that it was made of" if compiled else "",
    )


def _checkpoint(path: Path, threads: int, trust: bool) -> Entry:
    """A trained network in torch, or a method without training. Where its frames keep their size, any size will do."""
    from irforge.export.reference import TorchSession
    from irforge.runtime.comparison.entry import Entry
    from irforge.train.checkpoint import load_deployable
    from irforge.train.evaluation import protocol_spec

    deployable, contract = load_deployable(path, trust=trust)
    free = contract.input.fit.kind == "pad-to-multiple"
    if free and not contract.input.is_dynamic:
        spec = protocol_spec(contract.input, "native", deployable.stride)
        contract = contract.model_copy(update={"input": spec})
    parameters = sum(weight.numel() for weight in deployable.parameters())

    def opened() -> TorchSession:
        return TorchSession(path, threads=threads, size=("H", "W") if free else None, trust=trust)

    def counted(size: tuple[int, int]) -> int:
        import numpy as np
        from torch.utils.flop_counter import FlopCounterMode

        frame = np.zeros((1, contract.input.channels, *size), contract.input.door)
        with opened() as session, FlopCounterMode(display=False) as counter:
            session.run({contract.input.name: frame})
        return int(counter.get_total_flops()) // 2

    return Entry(
        name=path.name,
        path=path,
        contract=contract,
        open=opened,
        parameters=parameters,
        # A classical method may take a minute a frame, and what it does is not what is counted here.
        macs=counted if parameters else None,
        uncounted="" if parameters else "a method without weights: its work is not that of layers",
    )


def _arguments() -> list[str]:
    """What the user typed after the verb, be it `irforge compare` or this file."""
    arguments = sys.argv[1:]
    return arguments[1:] if arguments[:1] == ["compare"] else arguments


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar a step of the comparison, with the time that is left, on a terminal's stderr only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def begin(description: str, steps: int) -> Callable[[], None]:
            task = bars.add_task(description, total=steps)
            return lambda: bars.advance(task)

        yield begin


if __name__ == "__main__":
    run_command(compare)
