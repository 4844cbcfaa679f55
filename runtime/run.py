"""`irforge run MODEL SOURCE`: a detector over a folder or a video, to JSON lines and an overlay."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import run_command

if TYPE_CHECKING:
    from irforge.session import StageTimes


def run(
    model: Annotated[Path, typer.Argument(help="The deployable: an .onnx file, or an engine with its sidecar.")],
    source: Annotated[str, typer.Argument(help="A video, an image, a folder, a pattern, or a dataset NAME[:SPLIT].")],
    json_lines: Annotated[
        Path | None, typer.Option("--json", metavar="OUT.jsonl", help="Write one JSON object a frame.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="OUT.mp4", help="Write a video with marks, or a folder of pictures.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Instead of the fastest one here.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Score threshold, instead of the contract's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames.")] = None,
    trust_engine: Annotated[bool, typer.Option(help="Load an engine that no sidecar vouches for.")] = False,
    custom_ops: Annotated[str, typer.Option(help="Of an .onnx file: body, or plugin for native operators.")] = "body",
) -> None:
    """Detect in a folder or a video; write JSON lines and an overlay."""
    from rich.console import Console
    from rich.progress import track

    from irforge.runtime.custom_ops import parse_life
    from irforge.runtime.detector import load
    from irforge.runtime.sinks import JsonLines, Sink, overlay_sink
    from irforge.runtime.sources import open_source

    with ExitStack() as stack:
        detector = stack.enter_context(
            load(
                model,
                backend,
                threads,
                threshold=threshold,
                trust_engine=trust_engine,
                custom_ops=parse_life(custom_ops),
            )
        )
        frames = stack.enter_context(open_source(source))
        wanted: list[Sink] = []
        if json_lines:
            wanted.append(JsonLines(json_lines, detector.contract.output.classes))
        if overlay:
            wanted.append(overlay_sink(overlay, frames.fps))
        sinks = [stack.enter_context(sink) for sink in wanted]
        typer.echo(repr(detector))
        times: list[StageTimes] = []
        detections = 0
        total = min(filter(None, (limit, frames.frames)), default=None)
        console = Console(stderr=True)
        records = islice(frames.records(), limit)
        hidden = not console.is_terminal
        for record in track(records, frames.name, total, console=console, transient=True, disable=hidden):
            found = detector(record.frame, f"'{record.id}'")
            times.append(detector.last_times)
            detections += len(found)
            for sink in sinks:
                sink.write(record, found)
    typer.echo(closing_line(times, detections))


def closing_line(times: list[StageTimes], detections: int) -> str:
    """Frames, detections, and each stage's p50/p99 in milliseconds."""
    from irforge.runtime.clocks import distribution

    stages = []
    for name in ("prepare", "infer", "decode"):
        spread = distribution([getattr(time, name) for time in times])
        stages.append(f"{name} {spread.p50:.2f}/{spread.p99:.2f}")
    return f"{len(times)} frames, {detections} detections; ms at p50/p99: {', '.join(stages)}"


if __name__ == "__main__":
    run_command(run)
