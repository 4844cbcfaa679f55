"""`irforge run MODEL SOURCE...`: a detector over recordings or cameras, to JSON lines, a MOT file and an overlay."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from irforge.errors import IrforgeError, run_command
from irforge.files import refuse_overwriting
from irforge.runtime import options

if TYPE_CHECKING:
    from irforge.contract import Contract
    from irforge.runtime.pipeline import Pipeline
    from irforge.runtime.sinks import Sink
    from irforge.runtime.sources import Source


def run(
    model: options.ModelFile,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A video, an image, a folder, a pattern, a raw file, a dataset NAME[:SPLIT]; camera:0, rtsp://...,"
            " v4l2:/dev/video0, gst:PIPELINE, synthetic:640x512.",
        ),
    ],
    json_lines: Annotated[
        Path | None, typer.Option("--json", metavar="OUT.jsonl", help="Write one JSON object a frame.")
    ] = None,
    mot: Annotated[
        Path | None, typer.Option(metavar="OUT.csv", help="Write boxes in the MOT challenge's form.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="OUT.mp4", help="Write a video with marks, or a folder of pictures.")
    ] = None,
    timing: Annotated[
        Path | None, typer.Option(metavar="OUT.json", help="Write the run's times, for 'irforge report'.")
    ] = None,
    policy: Annotated[
        Literal["lossless", "latest"] | None,
        typer.Option(
            help="Where frames come faster than they are done: make the source wait, or drop the oldest. Without it,"
            " latest for live sources."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Frames, or tiles, a run of the graph; without it, one of each source.")
    ] = None,
    backend: options.Backend = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    threshold: options.Threshold = None,
    tile: options.Tile = None,
    track: options.Track = False,
    track_by: options.TrackBy = "centre",
    track_reach: options.TrackReach = 12.0,
    track_confirm: options.TrackConfirm = 3,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames of each source.")] = None,
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
    """Detect in recordings or live; write JSON lines, a MOT file and an overlay.

    With --track and a --threshold below the model's own, what lies between the two continues tracks and starts none.

    Ctrl-C ends a run on live sources: what was found so far is written whole. A run on recordings leaves nothing then.
    Several sources write to numbered files, out.0.jsonl and out.1.jsonl, and pictures to folders out/0 and out/1.
    """
    from irforge.runtime.corrections import FLAT, Corrections, parse_size, parse_telemetry, read_dead_pixels
    from irforge.runtime.custom_ops import parse_life
    from irforge.runtime.detector import load
    from irforge.runtime.pipeline import Pipeline
    from irforge.runtime.sources import Layout, open_source, paths_read
    from irforge.runtime.sources.images import ImageFiles
    from irforge.runtime.tiling import TiledDetector
    from irforge.runtime.tracking import Tracker, TrackSettings, tracking_packages

    numbers = range(len(sources)) if len(sources) > 1 else (None,)
    overlays = [numbered(overlay, number) for number in numbers]
    others = [numbered(path, number) for path in (mot, json_lines) for number in numbers]
    dead_pixels_file = dead_pixels.removeprefix(FLAT) if dead_pixels else None
    refuse_overwriting([*overlays, *others, timing], [model, *paths_read(*sources, dead_pixels_file)])
    if track:
        tracking_packages()
    with ExitStack() as stack:
        life = parse_life(custom_ops)
        detector = stack.enter_context(
            load(model, backend, threads, threshold=threshold, trust_engine=trust_engine, custom_ops=life)
        )
        contract = detector.contract
        layout = Layout(parse_size(size) if size else None, bit_depth or contract.input.bit_depth, big_endian)
        rows = parse_telemetry(telemetry)
        dead = read_dead_pixels(dead_pixels, layout, rows) if dead_pixels else None
        corrections = Corrections(rows, shutter, dead, column_noise, invert, smooth_gain)
        opened = [stack.enter_context(open_source(text, layout)) for text in sources]
        # Pictures go into a folder one by one: neither may it hold any frame.
        if overlay:
            refuse_overwriting(overlays, {p.parent for s in opened if isinstance(s, ImageFiles) for p in s.paths})
        streams = [corrections.behind(source, contract) for source in opened]
        detector.contract = corrections.contract(contract)
        overlap = tile if tile is not None or contract.input.fit.kind != "tile" else contract.input.fit.overlap
        steps = detector if overlap is None else TiledDetector(detector, overlap, batch)
        settings = TrackSettings(track_by, track_reach, track_confirm, start=contract.output.score_threshold)
        trackers = [Tracker(settings, stream.fps) for stream in streams] if track else []
        failures: list[IrforgeError | OSError] = []
        stack.enter_context(_first_of(failures))
        outputs: list[list[Sink]] = []
        for stream, number in zip(streams, numbers, strict=True):
            stream.notify = _say
            outputs.append(
                _sinks(stream, contract, numbered(overlay, number), numbered(mot, number), numbered(json_lines, number))
            )
        # Kind by kind, overlays first: they close last, and one that cannot be finished takes no lines with it.
        for sink in chain(*zip(*outputs, strict=True)):
            stack.enter_context(sink)
        # Of a tiled detector the batch is one of tiles.
        frames = batch if overlap is None else None
        pipeline = stack.enter_context(
            Pipeline(steps, streams, policy=policy, batch=frames, limit=limit, trackers=trackers)
        )
        typer.echo(repr(steps))
        failures += _publish(pipeline, streams, outputs, limit)
    for line in pipeline.counts.lines():
        typer.echo(line)
    for source in opened:
        if source.damaged:
            typer.echo(f"{source.name}: {source.damaged} damaged frames left out")
    if timing is not None:
        from irforge.runtime.report.run_timing import run_timing, write_run_timing

        command = shlex.join(["irforge", "run", str(model), *sources])
        names = [stream.name for stream in streams]
        told = run_timing(pipeline.counts, command=command, detector=repr(steps), sources=names, policy=pipeline.policy)
        write_run_timing(told, timing)
    if failures:
        raise failures[0]


def _publish(
    pipeline: Pipeline, streams: Sequence[Source], outputs: Sequence[Sequence[Sink]], limit: int | None
) -> list[IrforgeError | OSError]:
    """Hand all results to their sinks. What stops a run on live sources comes back instead of up: nobody can record
    again what a camera saw, so the sinks are to end well."""
    from rich.console import Console
    from rich.progress import track

    live = any(stream.live for stream in streams)
    lengths = [min(filter(None, (limit, stream.frames)), default=None) for stream in streams]
    total = None if None in lengths else sum(filter(None, lengths))
    title = streams[0].name if len(streams) == 1 else f"{len(streams)} sources"
    console = Console(stderr=True)
    shown = track(pipeline, title, total, console=console, transient=True, disable=not console.is_terminal)
    try:
        with _ended_by_signals(pipeline, live):
            for result in shown:
                for sink in outputs[result.stream]:
                    sink.write(result.record, result.detections)
    except (IrforgeError, OSError) as error:
        if not live:
            raise
        return [error]
    return []


@contextmanager
def _first_of(failures: Sequence[Exception]) -> Iterator[None]:
    """What stopped a run says more than what then could not be finished."""
    try:
        yield
    except (IrforgeError, OSError):
        if failures:
            raise failures[0] from None
        raise


def numbered(path: Path | None, number: int | None) -> Path | None:
    """`out.mp4` -> `out.0.mp4`, or a folder `out` -> `out/0`: where the results of one source among several go."""
    if path is None or number is None:
        return path
    return path.with_name(f"{path.stem}.{number}{path.suffix}") if path.suffix else path / str(number)


def _sinks(
    source: Source, contract: Contract, overlay: Path | None, mot: Path | None, json_lines: Path | None
) -> list[Sink]:
    from irforge.runtime.sinks import JsonLines, MotLines, overlay_sink

    sinks: list[Sink] = []
    if overlay:
        sinks.append(overlay_sink(overlay, source.fps))
    if mot:
        sinks.append(MotLines(mot))
    if json_lines:
        sinks.append(JsonLines(json_lines, contract.output.classes))
    return sinks


@contextmanager
def _ended_by_signals(pipeline: Pipeline, wanted: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the pipeline as if its sources had ended; a second one interrupts."""

    def end(_number: int, _frame: object) -> None:
        if pipeline.finishing:
            raise KeyboardInterrupt
        pipeline.finish()

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if wanted and signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    typer.echo(f"irforge: {line}", err=True)


if __name__ == "__main__":
    run_command(run)
