"""`irforge batch MODEL VIDEOS... -o DIR`: a detector over an archive, one result file a video, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from irforge.errors import InputError, run_command

if TYPE_CHECKING:
    from irforge.runtime.batch_plan import Job
    from irforge.runtime.batch_work import Outcome


def batch(
    model: Annotated[Path, typer.Argument(help="The deployable: an .onnx file, or an engine with its sidecar.")],
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEOS...", help="Videos and raw files, patterns, or folders to look through for them."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where the results go: VIDEO.HASH.jsonl.")
    ],
    ray: Annotated[
        bool, typer.Option("--ray", help="By Ray Data, on its cluster (RAY_ADDRESS) or on this machine.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Videos at a time. [default: one a GPU, or without one, a CPU core]"),
    ] = None,
    redo: Annotated[
        bool, typer.Option("--redo", help="Replace results of another model or of other settings.")
    ] = False,
    frames: Annotated[
        int | None, typer.Option("--batch", min=1, help="Frames, or tiles, a run of the graph. [default: 1]")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Instead of the fastest one here.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each video. [default: what there are, shared]")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Score threshold, instead of the contract's.")
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(min=0, metavar="OVERLAP", help="Cut frames into tiles of the model's size that overlap: 32, say."),
    ] = None,
    track: Annotated[bool, typer.Option("--track", help="Follow targets from frame to frame.")] = False,
    track_by: Annotated[
        Literal["centre", "overlap"], typer.Option(help="Overlap is for targets of 20 pixels and more.")
    ] = "centre",
    track_reach: Annotated[
        float, typer.Option(min=0.1, metavar="PIXELS", help="From where a track's target is expected, by centre.")
    ] = 12.0,
    track_confirm: Annotated[int, typer.Option(min=1, metavar="N", help="Frames in a row that make a track.")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames of each video.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Of raw frames as stored.")] = None,
    bit_depth: Annotated[
        int | None, typer.Option(min=8, max=16, help="Of raw frames, instead of the contract's.")
    ] = None,
    big_endian: Annotated[bool, typer.Option("--big-endian", help="Raw levels have their high byte first.")] = False,
    telemetry: Annotated[str, typer.Option(metavar="TOP,BOTTOM", help="Rows to cut off.")] = "0,0",
    shutter: Annotated[bool, typer.Option("--shutter", help="Flag frames of a closed shutter.")] = False,
    dead_pixels: Annotated[
        str | None, typer.Option(metavar="MASK", help="Fill dead pixels: a mask file, or flat:SOURCE to learn it from.")
    ] = None,
    column_noise: Annotated[bool, typer.Option("--column-noise", help="Take column offsets away.")] = False,
    invert: Annotated[bool, typer.Option("--invert", help="Turn black-hot to white-hot.")] = False,
    smooth_gain: Annotated[
        float | None,
        typer.Option(min=0.001, max=1, metavar="WEIGHT", help="Smooth gain control over time: 0.05, say."),
    ] = None,
    trust_engine: Annotated[bool, typer.Option(help="Load an engine that no sidecar vouches for.")] = False,
    custom_ops: Annotated[str, typer.Option(help="Of an .onnx file: body, or plugin for native operators.")] = "body",
) -> None:
    """Detect in an archive of videos: one file of JSON lines each, as 'irforge run --json' writes.

    What is done stays done: the same command goes on where it was stopped, and skips videos that have their result.
    HASH stands for the model and the settings. A video that fails is named in the end, after all others are done.
    """
    from irforge.runtime.batch_plan import Recipe, find_videos, plan
    from irforge.runtime.batch_pools import in_processes, on_ray, ray_package

    if ray:
        ray_package()
    recipe = Recipe(
        model=model.absolute(),
        batch=frames,
        backend=backend,
        threads=threads,
        threshold=threshold,
        tile=tile,
        track=track,
        track_by=track_by,
        track_reach=track_reach,
        track_confirm=track_confirm,
        limit=limit,
        size=size,
        bit_depth=bit_depth,
        big_endian=big_endian,
        telemetry=telemetry,
        shutter=shutter,
        dead_pixels=dead_pixels,
        column_noise=column_noise,
        invert=invert,
        smooth_gain=smooth_gain,
        trust_engine=trust_engine,
        custom_ops=custom_ops,
    ).checked()
    found = find_videos(videos)
    todo = plan(recipe, found, output.absolute(), redo=redo)
    skipped = len(found) - len(todo)
    if skipped:
        typer.echo(f"{skipped} of {len(found)} videos have their result already")
    if todo:
        run = on_ray if ray else in_processes
        _report(run(recipe, todo, jobs), todo, len(found))


def _report(outcomes: Iterator[Outcome], todo: list[Job], total: int) -> None:
    """Show a line for each video as it is done; those that failed come in the end again, as an error."""
    from rich.console import Console
    from rich.progress import track

    failed = []
    console = Console(stderr=True)
    shown = track(outcomes, "videos", len(todo), console=console, transient=True, disable=not console.is_terminal)
    going_on = ""
    try:
        for outcome in shown:
            typer.echo(outcome.line)
            failed += [outcome] if outcome.error else []
    except KeyboardInterrupt:
        going_on = "; the same command goes on with the others"
        raise
    finally:
        # What lies there, not what was heard of: an interruption may come in between.
        done = total - sum(not job.result.is_file() for job in todo)
        typer.echo(f"{done} of {total} videos are done{going_on}")
    if failed:
        names = ", ".join(outcome.name for outcome in failed)
        raise InputError(
            f"{len(failed)} of {total} videos failed: {names}", "Mend them, and run the same command again for them"
        )


if __name__ == "__main__":
    run_command(batch)
