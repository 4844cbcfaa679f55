"""From raw frames to what a stranger's network takes: the contract's input, and the nodes before the first layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from irforge.contract import (
    ClaheGain,
    Fit,
    Gain,
    InputSpec,
    Letterbox,
    MinMaxGain,
    NoGain,
    Normalization,
    PadToMultiple,
    PercentileGain,
    Squash,
)
from irforge.errors import UsageError
from irforge.export.adopt.source import ULTRALYTICS, Source
from irforge.graph import Graph, attribute, is_op

FRAMES = "frames"
FITS = ("letterbox", "squash", "pad-to-multiple")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SCALINGS = (
    "levels (0..255), unit (0..1), signed (-1..1), imagenet, or MEANS/STDS in the frames' own levels, as 114.5/57.6"
    " (0/1: as they come)"
)
GAINS = "min-max, percentile:LOW,HIGH, clahe:LIMIT,TILES"

_TO_SQUARE = ("RTDETRDecoder",)
_LEVELS = 255.0
_ULTRALYTICS_PAD = 114.0

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frames:
    """What the user said of frames; empty where it is to be found out."""

    normalize: str = ""
    fit: str = ""
    resize: Literal["", "antialias", "linear", "nearest"] = ""
    pad_level: float | None = None
    bit_depth: int = 8
    gain: str = ""


@dataclass(frozen=True)
class Door:
    """The contract's input, how each channel is scaled, and why.

    mean, std: one a channel, in levels of the door.
    """

    spec: InputSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reasons: tuple[str, ...]

    def normalised(self, tensor: npt.NDArray[Any], source: Source) -> npt.NDArray[Any]:
        """What the stranger's own input takes, of a tensor [N, 1, H, W] at the door."""
        mean, std = (np.asarray(values, np.float32).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        pixels = (tensor.astype(np.float32) - mean) / std
        pixels = np.repeat(pixels, source.channels // pixels.shape[1], axis=1)
        if source.channels_last:
            pixels = np.moveaxis(pixels, 1, 3)
        return np.ascontiguousarray(np.rint(pixels) if source.door == "uint8" else pixels).astype(source.door)


def door_of(source: Source, frames: Frames) -> Door:
    """How frames get to a stranger's network.

    Raises:
        UsageError: the scaling of pixels or the fit cannot be found out, what was said does not exist, or frames have
            more levels than a uint8 input.
    """
    normalize, fit = frames.normalize or _scaling(source), frames.fit or _fit(source)
    missing = []
    if not normalize:
        missing.append(("how pixels are scaled", f"--normalize {SCALINGS}"))
    if not fit:
        missing.append(("how frames of another size are fitted", f"--fit {', '.join(FITS)}"))
    if missing:
        raise UsageError(
            f"nothing in '{source.path}' says {' nor '.join(what for what, _ in missing)}",
            "Say it as it was in training: " + "; ".join(options for _, options in missing),
        )
    if fit not in FITS:
        raise UsageError(f"there is no fit '{fit}'", f"Fits: {', '.join(FITS)}")
    gain = parse_gain(frames.gain)
    door: Literal["uint8", "float32"] = "float32" if frames.bit_depth > 8 and gain.kind == "none" else "uint8"
    if door == "float32" and source.door == "uint8":
        raise UsageError(
            f"'{source.path}' takes uint8 levels, and frames of {frames.bit_depth} bits have more",
            f"Say how they become 8 bits with --gain {GAINS}",
        )
    top = _LEVELS if door == "uint8" else float(2**frames.bit_depth - 1)
    mean, std = parse_scaling(normalize, source.channels, top)
    if source.door == "uint8" and (set(mean), set(std)) != ({0.0}, {1.0}):
        raise UsageError(f"'{source.path}' takes uint8 levels and scales them itself", "Leave out --normalize")
    ultralytics = source.framework == ULTRALYTICS
    pad = frames.pad_level
    if pad is None:
        pad = _ULTRALYTICS_PAD * top / _LEVELS if ultralytics else float(round(float(np.mean(mean))))
    elif not 0 <= pad <= top:
        raise UsageError(f"--pad-level {pad:g} is no level of these frames", f"Their levels are 0 to {top:g}")
    kinds: dict[str, Fit] = {
        "squash": Squash(),
        "letterbox": Letterbox(),
        "pad-to-multiple": PadToMultiple(multiple=1),
    }
    spec = InputSpec(
        name=FRAMES,
        height=source.height,
        width=source.width,
        door=door,
        bit_depth=frames.bit_depth,
        gain=gain,
        fit=kinds[fit],
        resize=frames.resize or ("linear" if ultralytics else "antialias"),
        pad_level=pad,
        normalization=Normalization(mean=float(np.mean(mean)), std=float(np.mean(std))),
    )
    moved = f"; 0..{top:g} become 0..255" if normalize == "levels" and top > _LEVELS else ""
    reasons = (
        f"pixels: {_said(frames.normalize, 'normalize', normalize, _why_scaling(source))}{moved}",
        f"frames: {_said(frames.fit, 'fit', fit, _why_fit(source))}, {spec.resize}, padded with {pad:g}",
        "the network takes three channels: the gray frame fills each" if source.channels == 3 else "one channel",
    )
    return Door(spec, mean, std, reasons)


def add_door(graph: Graph, source: Source, door: Door) -> None:
    """Put frames N x 1 x H x W of the contract's dtype before the network, normalised in FP32."""
    value = next(value for value in graph.model.graph.input if value.name == source.input)
    batch = value.type.tensor_type.shape.dim[0]
    sides = [batch.dim_value or batch.dim_param, 1, source.height, source.width]
    kind = TensorProto.UINT8 if door.spec.door == "uint8" else TensorProto.FLOAT
    graph.model.graph.input.remove(value)
    graph.model.graph.input.insert(0, helper.make_tensor_value_info(FRAMES, kind, sides))
    graph.touch()
    x = FRAMES
    if door.spec.door != "float32":
        x = graph.add("Cast", [x], "door_pixels", to=TensorProto.FLOAT)
    same = len(set(door.mean)) == len(set(door.std)) == 1
    # One factor for all channels comes before the repetition, so that a stem can take in both.
    if same:
        x = _scaled(graph, x, door.mean[:1], door.std[:1])
    if source.channels > 1 and same:
        x = graph.add("Concat", [x] * source.channels, "door_channels", axis=1)
    elif not same:
        x = _scaled(graph, x, door.mean, door.std)
    if source.channels_last:
        x = graph.add("Transpose", [x], "door_channels_last", perm=[0, 2, 3, 1])
    if source.door == "uint8":
        # TensorRT does nothing with uint8 but cast it, so that the stranger's own cast gives way to ours.
        for node in graph.consumers(source.input):
            if is_op(node, "Cast") and attribute(node, "to") == TensorProto.FLOAT:
                graph.replace(node, x)
        if graph.consumers(source.input):
            x = graph.add("Cast", [x], "door_levels", to=TensorProto.UINT8)
    graph.reroute(source.input, x)


def _scaled(graph: Graph, x: str, mean: Sequence[float], std: Sequence[float]) -> str:
    for kind, values, idle in (("Sub", mean, 0.0), ("Div", std, 1.0)):
        if set(values) != {idle}:
            constant = graph.add_array(np.asarray(values, np.float32).reshape(1, -1, 1, 1), f"door_{kind.lower()}_by")
            x = graph.add(kind, [x, constant], f"door_{kind.lower()}")
    return x


def parse_scaling(text: str, channels: int, top: float = _LEVELS) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and standard deviations, one a channel, in levels up to `top`. `levels` brings these to 0..255.

    Raises:
        UsageError: not a scaling.
    """
    named: dict[str, tuple[Sequence[float], Sequence[float]]] = {
        "levels": ((0.0,), (top / _LEVELS,)),
        "unit": ((0.0,), (top,)),
        "signed": ((top / 2,), (top / 2,)),
        "imagenet": ([value * top for value in IMAGENET[0]], [value * top for value in IMAGENET[1]]),
    }
    try:
        parts = text.split("/")
        mean, std = named[text] if text in named else [[float(v) for v in part.split(",")] for part in parts]
    except ValueError:
        raise UsageError(f"'{text}' is no scaling of pixels", f"There are: {SCALINGS}") from None
    if len(mean) != len(std) or len(mean) not in (1, channels) or min(std) <= 0 or not np.isfinite([*mean, *std]).all():
        raise UsageError(f"'{text}' does not scale {channels} channel{'s' * (channels > 1)}", f"There are: {SCALINGS}")
    repeat = channels // len(mean)
    return tuple(mean) * repeat, tuple(std) * repeat


def parse_gain(text: str) -> Gain:
    """'', 'none', 'min-max', 'percentile:LOW,HIGH' or 'clahe:LIMIT,TILES'.

    Raises:
        UsageError: anything else.
    """
    name, _, numbers = text.partition(":")
    try:
        if name in ("", "none", "min-max") and not numbers:
            return MinMaxGain() if name == "min-max" else NoGain()
        first, second = (float(number) for number in numbers.split(","))
        if name == "percentile":
            return PercentileGain(low=first, high=second)
        if name == "clahe":
            return ClaheGain(clip_limit=first, tiles=int(second))
    except ValueError:
        pass
    raise UsageError(f"there is no gain control '{text}'", f"There are: {GAINS}")


def _scaling(source: Source) -> str:
    return source.levels or ("unit" if source.framework == ULTRALYTICS else "")


def _why_scaling(source: Source) -> str:
    if source.levels == "levels":
        return "the graph scales them itself" if source.door == "float32" else "it takes uint8"
    return "its own first nodes subtract a mean below 1" if source.levels else "Ultralytics divides by 255"


def _fit(source: Source) -> str:
    if source.framework != ULTRALYTICS:
        return ""
    return "squash" if _squashes(source) else "letterbox"


def _why_fit(source: Source) -> str:
    return f"as Ultralytics does for {'RT-DETR' if _squashes(source) else 'YOLO'}"


def _squashes(source: Source) -> bool:
    return source.metadata.get("head", "") in _TO_SQUARE or source.title.lower().startswith("rtdetr")


def _said(given: str, option: str, value: str, reason: str) -> str:
    return f"{value}, as --{option} says" if given else f"{value}: {reason}"
