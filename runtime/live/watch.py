"""`irforge live MODEL SOURCE`: a detector at work, on a web page."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from irforge.errors import EnvironmentFault, run_command
from irforge.files import refuse_overwriting
from irforge.runtime import options


def live(
    model: options.ModelFile,
    source: Annotated[
        str,
        typer.Argument(
            help="A video, a folder, a pattern, a raw file, a dataset NAME[:SPLIT]; camera:0, rtsp://...,"
            " v4l2:/dev/video0, gst:PIPELINE, synthetic:640x512,live=1."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0 is for all who know the URL that is printed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8765,
    fps: Annotated[
        float | None, typer.Option(min=0.01, help="Of a recording, instead of its own rate, or 10 where it has none.")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Play a recording again and again.")] = False,
    json_lines: Annotated[
        Path | None, typer.Option("--json", metavar="OUT.jsonl", help="Also write one JSON object a frame.")
    ] = None,
    policy: Annotated[
        Literal["lossless", "latest"],
        typer.Option(help="Where frames come faster than they are done: drop the oldest, or make the source wait."),
    ] = "latest",
    backend: options.Backend = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Score threshold to begin with, instead of the contract's.")
    ] = None,
    tile: options.Tile = None,
    track: options.Track = False,
    track_by: options.TrackBy = "centre",
    track_reach: options.TrackReach = 12.0,
    track_confirm: options.TrackConfirm = 3,
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
    """Show a detector at work on a web page: the stream with its marks, latency, threshold and gain.

    Only this machine can open it, unless --host says otherwise; then the URL that is printed holds a token. Ctrl-C ends
    it, and what --json wrote is whole.
    """
    from irforge.runtime.corrections import FLAT, Corrections, parse_size, parse_telemetry, read_dead_pixels
    from irforge.runtime.custom_ops import parse_life
    from irforge.runtime.detector import load
    from irforge.runtime.live.hub import Hub
    from irforge.runtime.live.session import LiveSession
    from irforge.runtime.sinks import JsonLines
    from irforge.runtime.sources import Layout, Source, open_source, paths_read
    from irforge.runtime.tiling import TiledDetector
    from irforge.runtime.tracking import Tracker, TrackSettings, tracking_packages

    dead_pixels_file = dead_pixels.removeprefix(FLAT) if dead_pixels else None
    refuse_overwriting([json_lines], [model, *paths_read(source, dead_pixels_file)])
    if track:
        tracking_packages()
    try:
        from irforge.runtime.live.server import PageServer
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise EnvironmentFault("the live page needs aiohttp", "pip install 'irforge[live]'") from None

    life = parse_life(custom_ops)
    loaded = load(model, backend, threads, threshold=threshold, trust_engine=trust_engine, custom_ops=life)
    with loaded as detector:
        with ExitStack() as stack:
            contract = detector.contract
            layout = Layout(parse_size(size) if size else None, bit_depth or contract.input.bit_depth, big_endian)
            rows = parse_telemetry(telemetry)
            dead = read_dead_pixels(dead_pixels, layout, rows) if dead_pixels else None
            corrections = Corrections(rows, shutter, dead, column_noise, invert, smooth_gain)
            detector.contract = corrections.contract(contract)

            def opened() -> Source:
                return corrections.behind(open_source(source, layout), contract)

            overlap = tile if tile is not None or contract.input.fit.kind != "tile" else contract.input.fit.overlap
            steps = detector if overlap is None else TiledDetector(detector, overlap)
            # What lies above the threshold starts tracks: viewers set it.
            tracker = partial(Tracker, TrackSettings(track_by, track_reach, track_confirm)) if track else None
            hub = Hub(detector.threshold)
            sinks = [stack.enter_context(JsonLines(json_lines, contract.output.classes))] if json_lines else []
            session = LiveSession(
                detector,
                opened,
                hub,
                sinks,
                steps=steps,
                tracker=tracker,
                policy=policy,
                fps=fps,
                loop=loop,
                say=_say,
            )
            server = stack.enter_context(PageServer(session, hub, host, port))
            stack.enter_context(session)
            typer.echo(repr(steps))
            typer.echo("\n".join([f"Open {server.urls[0]}", *(f"  or {url}" for url in server.urls[1:])]))
            with _set_by_signals(session.over):
                session.over.wait()
        for line in hub.lines():
            typer.echo(line)
        if session.is_running:
            # A driver or a long run of the graph, which can neither be stopped nor have its memory taken away.
            sys.stdout.flush()
            os._exit(0)
    if session.error is not None:
        raise session.error


@contextmanager
def _set_by_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM set an event instead of interrupting."""
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    typer.echo(f"irforge: {line}", err=True)


if __name__ == "__main__":
    run_command(live)
