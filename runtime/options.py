"""Options that `irforge run`, `live` and `batch` share: opening a model, reading frames, following targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from irforge.options import Tile as Tile

ModelFile = Annotated[Path, typer.Argument(help="The deployable: an .onnx file, or an engine with its sidecar.")]
Backend = Annotated[str | None, typer.Option(help="Instead of the fastest one here.")]
Threshold = Annotated[float | None, typer.Option(min=0, max=1, help="Score threshold, instead of the contract's.")]
TrustEngine = Annotated[bool, typer.Option(help="Load an engine that no sidecar vouches for.")]
CustomOps = Annotated[str, typer.Option(help="Of an .onnx file: body, or plugin for native operators.")]

Track = Annotated[bool, typer.Option("--track", help="Follow targets from frame to frame.")]
TrackBy = Annotated[Literal["centre", "overlap"], typer.Option(help="Overlap is for targets of 20 pixels and more.")]
TrackReach = Annotated[
    float, typer.Option(min=0.1, metavar="PIXELS", help="From where a track's target is expected, by centre.")
]
TrackConfirm = Annotated[int, typer.Option(min=1, metavar="N", help="Frames in a row that make a track.")]

Size = Annotated[str | None, typer.Option(metavar="WxH", help="Of raw frames as stored, or what to ask a camera for.")]
BitDepth = Annotated[int | None, typer.Option(min=8, max=16, help="Of raw frames, instead of the contract's.")]
BigEndian = Annotated[bool, typer.Option("--big-endian", help="Raw levels have their high byte first.")]
Telemetry = Annotated[str, typer.Option(metavar="TOP,BOTTOM", help="Rows to cut off.")]
Shutter = Annotated[bool, typer.Option("--shutter", help="Flag frames of a closed shutter.")]
DeadPixels = Annotated[
    str | None, typer.Option(metavar="MASK", help="Fill dead pixels: a mask file, or flat:SOURCE to learn it from.")
]
ColumnNoise = Annotated[bool, typer.Option("--column-noise", help="Take column offsets away.")]
Invert = Annotated[bool, typer.Option("--invert", help="Turn black-hot to white-hot.")]
SmoothGain = Annotated[
    float | None,
    typer.Option(min=0.001, max=1, metavar="WEIGHT", help="Smooth gain control over time: 0.05, say."),
]
