"""`irforge batch MODEL VIDEOS... -o DIR`: a detector over an archive, one result file a video, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import InputError, run_command
from irforge.runtime import options

if TYPE_CHECKING:
    from irforge.runtime.batch_plan import Job
    from irforge.runtime.batch_work import Outcome


def batch(
    model: options.ModelFile,
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
    backend: options.Backend = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each video. [default: what there are, shared]")
    ] = None,
    threshold: options.Threshold = None,
    tile: options.Tile = None,
    track: options.Track = False,
    track_by: options.TrackBy = "centre",
    track_reach: options.TrackReach = 12.0,
    track_confirm: options.TrackConfirm = 3,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames of each video.")] = None,
    size: options.Size = None,
    bit_depth: options.BitDepth = None,
    big_endian: options.BigEndian = False,
    telemetry: options.Telemetry = "0,0",
    shutter: options.Shutter = False,
    dead_pixels: options.DeadPixels = None,
    column_noise: options.ColumnNoise = False,
    invert: options.Invert = False,
    smooth_gain: options.SmoothGain = None,
    trust_engine: options.TrustEngine = False,
    custom_ops: options.CustomOps = "body",
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
