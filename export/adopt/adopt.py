"""Adopt another's detector: `python export/adopt/adopt.py MODEL.onnx -o OUT.onnx`, the same as `irforge adopt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting


def adopt(
    model: Annotated[Path, typer.Argument(help="Somebody's .onnx file; or an engine, with --contract.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The .onnx file to write; without it, only say what would be.")
    ] = None,
    kind: Annotated[str, typer.Option(help="boxes or mask. [default: found out]")] = "",
    layout: Annotated[
        str, typer.Option(help="yolo, yolo-e2e, dets, detr, ssd, centernet or logits. [default: found out]")
    ] = "",
    outputs: Annotated[
        str, typer.Option(metavar="NAMES", help="Which outputs, by comma: boxes,scores; heat,size,offset.")
    ] = "",
    classes: Annotated[
        str, typer.Option(metavar="NAMES", help="Class names by comma. [default: the file's, else numbers]")
    ] = "",
    normalize: Annotated[
        str, typer.Option(help="How pixels are scaled: levels, unit, signed, imagenet, or MEANS/STDS in levels.")
    ] = "",
    fit: Annotated[str, typer.Option(help="letterbox, squash or pad-to-multiple, as in training.")] = "",
    resize: Annotated[str, typer.Option(help="antialias, linear or nearest. [default: antialias]")] = "",
    pad_level: Annotated[float | None, typer.Option(help="Level of the padding. [default: the mean]")] = None,
    size: Annotated[str, typer.Option(help="HxW, for a model that leaves its size free.")] = "",
    bit_depth: Annotated[int, typer.Option(min=8, max=16, help="Of the frames' levels.")] = 8,
    gain: Annotated[
        str, typer.Option(help="From deeper levels to 8 bits: min-max, percentile:LOW,HIGH, clahe:LIMIT,TILES.")
    ] = "",
    scores: Annotated[str, typer.Option(help="probability, sigmoid or softmax. [default: found out]")] = "",
    coordinates: Annotated[str, typer.Option(help="centre or corners. [default: found out]")] = "",
    target: Annotated[str, typer.Option(metavar="NUMBERS", help="Channels of a mask that are targets.")] = "",
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Score threshold. [default: 0.25 for boxes, 0.5 for a mask]")
    ] = None,
    iou: Annotated[float, typer.Option(min=0, max=1, help="Boxes of a class that overlap more are one.")] = 0.7,
    candidates: Annotated[int, typer.Option(min=1, max=3840, help="Boxes that are suppressed.")] = 512,
    detections: Annotated[int, typer.Option(min=1, max=3840, help="Boxes that leave the graph.")] = 100,
    frames: Annotated[
        str,
        typer.Option(metavar="DATA", help="Frames to try it on: a folder or NAME[:SPLIT]. [default: the package's]"),
    ] = "",
    plain: Annotated[bool, typer.Option("--plain", help="Leave the network's graph as it is.")] = False,
    contract: Annotated[
        Path | None, typer.Option(help="For an engine: an .onnx file with its contract, a sidecar or the JSON.")
    ] = None,
    trust_engine: Annotated[bool, typer.Option(help="Vouch for an engine that irforge did not build.")] = False,
) -> None:
    """Write a contract and the decode into somebody else's ONNX file.

    The graph is looked at and run once; what cannot be found out so is asked for, one line naming the option. From then
    on it is a deployable as any: calibrate, half, quantize, build, bench, run, report.
    """
    from irforge.export.adopt.decode import Limits
    from irforge.export.adopt.deployable import adopt_model
    from irforge.export.adopt.door import Frames
    from irforge.export.adopt.engine import adopt_engine
    from irforge.export.adopt.observation import Choices
    from irforge.export.adopt.table import print_adopted

    if model.name.endswith(".engine"):
        if contract is None:
            raise UsageError(
                f"nothing in '{model}' says what its frames must look like", "Name it with --contract FILE"
            )
        sidecar = adopt_engine(model, contract, trust=trust_engine)
        typer.echo(f"{sidecar}: the contract of '{contract}' now stands beside '{model.name}', bound to its content")
        return
    if contract is not None or trust_engine:
        raise UsageError("--contract and --trust-engine are for engines", "Leave them out for an .onnx file")
    if output is not None and output.suffix != ".onnx":
        raise UsageError(f"'{output}' does not end in .onnx")
    refuse_overwriting([output], [model])
    adopted = adopt_model(
        model,
        Frames(normalize, fit, _one_of("resize", resize, RESIZES), pad_level, bit_depth, gain),
        Choices(
            kind=_one_of("kind", kind, ("boxes", "mask")),
            layout=layout,
            outputs=tuple(outputs.split(",")) if outputs else (),
            classes=tuple(name.strip() for name in classes.split(",")) if classes else (),
            scores=_one_of("scores", scores, ("probability", "sigmoid", "softmax")),
            coordinates=_one_of("coordinates", coordinates, ("centre", "corners")),
            target=_numbers(target),
        ),
        Limits(candidates, iou, detections),
        size=_size(size) if size else None,
        threshold=threshold,
        frames=frames,
        plain=plain,
    )
    if output is not None:
        adopted.save(output)
    print_adopted(adopted, output)


RESIZES = ("antialias", "linear", "nearest")


def _one_of(option: str, value: str, known: tuple[str, ...]) -> Any:
    if value and value not in known:
        raise UsageError(f"there is no --{option} '{value}'", f"There are: {', '.join(known)}")
    return value


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",") if text else []
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"'{text}' are no channel numbers", "Write them as --target 1,4, from 0")
    return tuple(int(part) for part in parts)


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"'{text}' is no size", "Write height x width, as 512x640")
    return int(sides[0]), int(sides[1])


if __name__ == "__main__":
    run_command(adopt)
