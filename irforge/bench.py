"""`irforge bench MODELS...`: what each precision costs and gains, measured on the same frames, into a report.

The front door's part of it: it opens models through `runtime` and the trained network through `export`, and hands
both to `irforge.runtime.measure`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting
from irforge.options import Tile

if TYPE_CHECKING:
    from irforge.contract import Contract
    from irforge.datasets import Dataset
    from irforge.runtime.custom_ops import Life
    from irforge.runtime.measure import Entry, Plan, Progress
    from irforge.runtime.report.schema import Report
    from irforge.session import Session


def bench_models(
    models: Sequence[Path],
    *,
    plan: Callable[[tuple[int, int]], Plan],
    data: str = "",
    data_root: Path | None = None,
    protocol: str | None = None,
    tile: int | None = None,
    reference: Path | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    threads: int = 1,
    backend: str | None = None,
    trust: bool = False,
    trust_engine: bool = False,
    custom_ops: Life = "body",
    watch: float | None = None,
    command: str,
) -> Report:
    """Measure models against each other and, with `reference`, against the trained network in torch.

    Args:
        models: `.onnx` files or engines, of any sizes.
        plan: how much to measure at a size (height, width).
        data: NAME[:SPLIT] or a path; by default the frames that come with the package.
        protocol: see `irforge.runtime.measure.under_protocol`.
        tile: see `irforge.tiles.in_tiles`.
        reference: the checkpoint that the models were exported from.
        sizes: (height, width) at which models of dynamic size are measured.
        threads: CPU threads of every session.
        custom_ops: how the custom operators of those `.onnx` files that have some run.
        watch: seconds between two looks at power, clocks and temperature; 0 for none, None for the usual.

    Raises:
        UsageError: models, sizes, protocol and data do not fit together.
        InputError, ArtifactError, EnvironmentFault: a frame, a file or a backend cannot be used.
    """
    from irforge.datasets import open_dataset
    from irforge.runtime.measure import LOOK_EVERY, measure

    if tile is not None and protocol is not None:
        raise UsageError(f"frames are either cut (--tile) or fitted whole (--protocol {protocol})", "Give one of them")
    settings = {
        "protocol": protocol,
        "tile": tile,
        "backend": backend,
        "threads": threads,
        "trust_engine": trust_engine,
        "custom_ops": custom_ops,
    }
    entries = _entries(models, sizes, **settings)
    if custom_ops == "plugin" and not any(_has_custom_ops(path) for path in models):
        raise UsageError(
            "none of the models has a custom operator that a plugin could run", "'irforge fuse' writes them"
        )
    if reference is not None:
        entries = [*_references(entries, reference, threads, trust), *entries]
    dataset = open_dataset(data, data_root) if data else sample_frames()
    with _progress() as progress:
        return measure(
            entries,
            dataset,
            plan=plan,
            threads=threads,
            command=command,
            watch=LOOK_EVERY if watch is None else watch,
            progress=progress,
        )


def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODELS...", help=".onnx files or engines, of any sizes.")],
    data: Annotated[str, typer.Option(help="NAME[:SPLIT] or a path; by default the frames of the package.")] = "",
    data_root: Annotated[Path | None, typer.Option(help="Where named data lie, instead of IRFORGE_DATA.")] = None,
    protocol: Annotated[
        str | None, typer.Option(metavar="squash|native", help="Instead of what the contracts say of a frame's size.")
    ] = None,
    tile: Tile = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="CHECKPOINT", help="The trained network that all are compared with.")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="HxW", help="For models of dynamic size; may be repeated.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each model.")] = 1,
    backend: Annotated[str | None, typer.Option(help="Instead of the fastest one here.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often the models take turns.")] = 10,
    frames_per_round: Annotated[int, typer.Option(min=1, help="Frames of one turn.")] = 10,
    warm_up: Annotated[int, typer.Option(min=0, help="Frames of each model before the clocks count.")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use the first N frames.")] = None,
    sustained: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Then run each model alone for so long: does p99 hold?")
    ] = 0.0,
    batches: Annotated[
        str, typer.Option(metavar="1,2,4", help="Then run each model of a free batch size in these batches.")
    ] = "",
    watch: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Look at power and clocks so often meanwhile; 0: never."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The report to write.")] = Path("report.json"),
    check: Annotated[bool, typer.Option("--check", help="Fail (exit code 6) if a parity limit is missed.")] = False,
    trust: Annotated[bool, typer.Option(help="Load a pickled checkpoint. It can run any code: only your own.")] = False,
    trust_engine: Annotated[bool, typer.Option(help="Load an engine that no sidecar vouches for.")] = False,
    custom_ops: Annotated[str, typer.Option(help="Of .onnx files: body, or plugin for native operators.")] = "body",
) -> None:
    """Measure what each precision costs and gains: accuracy, parity, latency, into a report.

    With --tile all times and figures are of whole frames.
    """
    from irforge.datasets import dataset_paths
    from irforge.runtime.benchmark import Schedule
    from irforge.runtime.custom_ops import parse_life
    from irforge.runtime.measure import Plan
    from irforge.runtime.parity import require
    from irforge.runtime.report.schema import write_report
    from irforge.runtime.report.table import print_report

    if output.suffix != ".json":
        raise UsageError(f"'{output}' does not end in .json")
    refuse_overwriting([output], [*models, reference, *(dataset_paths(data, data_root) if data else ())])
    plan = Plan(Schedule(rounds, frames_per_round, warm_up), limit, sustained, _batches(batches))
    report = bench_models(
        models,
        plan=lambda size: plan,
        data=data,
        data_root=data_root,
        protocol=protocol,
        tile=tile,
        reference=reference,
        sizes=[_size(text) for text in size or ()],
        threads=threads,
        backend=backend,
        trust=trust,
        trust_engine=trust_engine,
        custom_ops=parse_life(custom_ops),
        watch=watch,
        command=shlex.join(["irforge", "bench", *_arguments()]),
    )
    write_report(report, output)
    print_report(report)
    typer.echo(f"{output} (a page of it: irforge report {shlex.quote(str(output))})")
    if check:
        if not any(model.parity and model.parity.targets for model in report.models):
            raise UsageError("--check has no truth to hold the models to", "Name --data with truth, and two models")
        for model in report.models:
            if model.parity:
                require(model.name, model.parity)


def sample_frames() -> Dataset:
    """The frames with truth that come with the package, for figures that need no download."""
    from irforge.datasets import open_dataset
    from irforge.samples import FRAMES

    licence = "CC0 1.0; please cite Svanström et al., Data in Brief 2021"
    return replace(open_dataset(FRAMES, split="test"), name="irforge samples", licence=licence)


def _entry(
    path: Path,
    size: tuple[int, int] | None,
    protocol: str | None,
    tile: int | None,
    backend: str | None,
    threads: int,
    trust_engine: bool,
    custom_ops: Life,
) -> Entry:
    from irforge.runtime.backends import open_session
    from irforge.runtime.measure import Entry, at_size, under_protocol
    from irforge.tiles import in_tiles

    sized = at_size(_contract(path), size)
    contract = under_protocol(sized, protocol) if tile is None else in_tiles(sized, tile)
    life: Life = custom_ops if _has_custom_ops(path) else "body"
    name = path.name if size is None else f"{path.name} at {size[0]}x{size[1]}"
    return Entry(
        name=name,
        path=path,
        contract=contract,
        open=lambda: open_session(path, backend, threads=threads, trust_engine=trust_engine, custom_ops=life),
    )


def _entries(models: Sequence[Path], sizes: Sequence[tuple[int, int]], **settings: Any) -> list[Entry]:
    entries: list[Entry] = []
    for path in models:
        dynamic = _contract(path).input.is_dynamic
        entries += [_entry(path, size, **settings) for size in (sizes if dynamic and sizes else (None,))]
    if len({entry.name for entry in entries}) < len(entries):
        raise UsageError("two of the models have the same name", "Name each file once, and differently")
    fixed = {entry.size for entry in entries}
    for height, width in sizes:
        if (height, width) not in fixed:
            raise UsageError(f"no model runs at {height}x{width}", "--size is for files exported with --dynamic-size")
    return entries


def _has_custom_ops(path: Path) -> bool:
    from irforge.artifact import load_model
    from irforge.ops import count_custom_ops

    return path.suffix == ".onnx" and bool(count_custom_ops(load_model(path, check=False)))


def _contract(path: Path) -> Contract:
    from irforge.artifact import read_contract
    from irforge.runtime.sidecar import read_sidecar

    return read_sidecar(path).contract if path.name.endswith(".engine") else read_contract(path)


def _references(entries: Sequence[Entry], checkpoint: Path, threads: int, trust: bool) -> list[Entry]:
    """The trained network once for each size, under the contract that the models of that size share."""
    from irforge.export.reference import TorchSession
    from irforge.runtime.measure import Entry

    def opened(size: tuple[int, int]) -> Callable[[], Session]:
        return lambda: TorchSession(checkpoint, threads=threads, size=size, trust=trust)

    contracts = {entry.size: entry.contract for entry in reversed(entries)}
    return [
        Entry(
            name=f"{checkpoint.name} at {size[0]}x{size[1]}",
            path=checkpoint,
            contract=contract.with_provenance(precision="fp32"),
            open=opened(size),
            role="reference",
        )
        for size, contract in contracts.items()
    ]


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UsageError(f"'{text}' is no size", "Write height x width, as 512x640")
    return int(height), int(width)


def _batches(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"'{text}' are no batches", "Write numbers of frames: 1,2,4,8")
    return tuple(sorted({int(part) for part in parts}))


def _arguments() -> list[str]:
    """What the user typed after the verb, be it `irforge bench` or this file."""
    arguments = sys.argv[1:]
    return arguments[1:] if arguments[:1] == ["bench"] else arguments


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar a step of the measurement, on a terminal's stderr only."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:

        def begin(description: str, steps: int) -> Callable[[], None]:
            task = bars.add_task(description, total=steps)
            return lambda: bars.advance(task)

        yield begin


if __name__ == "__main__":
    run_command(bench)
