"""Layouts of maps: peaks of a heat map, and masks. Each is one function, see `irforge.export.adopt.recognise`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irforge.errors import UsageError
from irforge.export.adopt.observation import (
    NearlyThisLayout,
    NotThisLayout,
    Observation,
    Values,
    activation_of,
    is_distribution,
    the_only,
)
from irforge.export.adopt.reading import Peaks, Plane


def centernet(seen: Observation) -> Peaks:
    """A heat map a class, box sizes and, mostly, offsets, all at one stride."""
    maps = seen.of_rank(4)
    given = seen.choices.outputs
    if not 2 <= len(maps) <= 3:
        raise NotThisLayout(f"it has {len(maps)} maps, not heat, sizes and offsets")
    if len({value.shape[2:] for value in maps.values()}) > 1:
        raise NotThisLayout("its maps have different sizes")
    heat, size, offset = _map_roles(maps, given)
    height, width = maps[heat].shape[2:]
    stride = seen.height // height
    if (height * stride, width * stride) != (seen.height, seen.width):
        raise NotThisLayout(f"maps of {height}x{width} do not divide the input")
    activation, also = activation_of(maps[heat], seen)
    if activation == "softmax":
        raise NotThisLayout("a heat map is no softmax")
    roles = f"'{heat}' is the heat, '{size}' the sizes" + (
        f", '{offset}' the offsets" if offset else ", without offsets"
    )
    return Peaks(
        layout="centernet",
        heat=heat,
        size=size,
        offset=offset,
        activation=activation,
        stride=stride,
        cells=(height, width),
        count=maps[heat].shape[1],
        reasons=(f"{roles}, at stride {stride}", "sizes and offsets are in cells", also),
    )


def _map_roles(maps: Mapping[str, Values], given: tuple[str, ...]) -> tuple[str, str, str]:
    if given:
        return given[0], given[1], given[2] if len(given) > 2 else ""
    words = {"heat": ("hm", "heat", "cls", "center_map"), "size": ("wh", "size"), "offset": ("reg", "off")}
    found = {
        role: [name for name in maps if any(word in name.lower() for word in parts)] for role, parts in words.items()
    }
    if any(len(names) != 1 for role, names in found.items() if role != "offset" or len(maps) == 3):
        raise NearlyThisLayout("which map is which cannot be told by name; name them: --outputs HEAT,SIZE,OFFSET")
    heat, size = found["heat"][0], found["size"][0]
    offset = found["offset"][0] if len(maps) == 3 else ""
    if any(maps[name].shape[1] != 2 for name in (size, offset) if name):
        raise NotThisLayout("its sizes or offsets have not two channels")
    return heat, size, offset


def logits(seen: Observation) -> Plane:
    """A score a pixel for one class or several."""
    maps = seen.of_rank(4)
    if len(maps) > 1 and "out" in maps:
        # torchvision's segmentation networks also return the training's auxiliary head.
        maps = {"out": maps["out"]}
    name, value = the_only(maps, "4-D output")
    channels, height, width = value.shape[1:]
    if value.dtype.kind != "f":
        raise NotThisLayout(f"'{name}' holds {value.dtype}")
    if seen.height % height or seen.width % width or seen.height // height != seen.width // width:
        raise NotThisLayout(f"'{name}' has {height}x{width} cells for {seen.height}x{seen.width} pixels")
    target = seen.choices.target or ((0,) if channels == 1 else (1,) if channels == 2 else ())
    if not target:
        raise UsageError(
            f"'{name}' scores {channels} classes a pixel, and which of them are targets cannot be found out",
            "Name them with --target, as --target 1,4",
        )
    if max(target) >= channels:
        raise UsageError(f"'{name}' has no channel {max(target)}", f"It has {channels}, from 0")
    activation, note = activation_of(value, seen)
    done = activation != "sigmoid" and is_distribution(np.moveaxis(value, 1, -1))
    if done:
        activation, note = "none", "a pixel's channels sum to 1"
    elif channels > 1 and activation == "none":
        note += "; a pixel's channels do not sum to 1, so each stands for itself"
    elif channels > 1 and seen.choices.scores in ("", "softmax"):
        activation, note = "softmax", "channels become probabilities by softmax (--scores sigmoid?)"
    scale = seen.height // height
    return Plane(
        layout="logits",
        tensor=name,
        channels=channels,
        activation=activation,
        foreground=target,
        exclusive=done or activation == "softmax",
        cells=(height, width),
        reasons=(
            f"'{name}' has {channels} channel{'s' * (channels > 1)} of {height}x{width}",
            f"targets are channel{'s' * (len(target) > 1)} {', '.join(map(str, target))}" if channels > 1 else "",
            note,
            f"enlarged {scale} times, bilinearly" if scale > 1 else "",
        ),
    )
