"""Moving targets on noise, with their true boxes: for tests, soak runs and trying things without a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.errors import UsageError
from irforge.runtime.sources.base import Frame, Source, SourceFrame


@dataclass(frozen=True)
class Scene:
    """What a synthetic source shows.

    frames: how many, 0 without end. targets: how many, each `extent` pixels wide and high, that move in straight lines
    at up to `speed` pixels a frame and turn at the frame's edge. contrast: of a target's brightest pixel, and noise:
    the standard deviation, both in levels around the middle level `background`. depth: bits a level. live: give frames
    at `fps` as a camera does, with capture times, instead of as fast as they are taken.
    """

    width: int = 640
    height: int = 512
    frames: int = 100
    targets: int = 2
    extent: int = 3
    speed: float = 1.5
    contrast: float = 120.0
    background: float = 90.0
    noise: float = 2.0
    depth: int = 8
    fps: float = 25.0
    live: int = 0
    seed: int = 0


# Lowest and highest value of each field; sides end where a frame and its noise still fit a small machine.
_BOUNDS: dict[str, tuple[float, float]] = {
    "width": (1, 8192),
    "height": (1, 8192),
    "frames": (0, 2**53),
    "targets": (0, 10_000),
    "extent": (1, 8192),
    "speed": (0, 8192),
    "contrast": (-65535, 65535),
    "background": (-65535, 65535),
    "noise": (0, 65535),
    "depth": (8, 16),
    "fps": (0.001, 1e9),
    "live": (0, 1),
    "seed": (0, 2**63),
}


class Synthetic(Source):
    """`synthetic:640x512,frames=100,targets=2,...`: a `Scene`. The same scene is the same frames, in any order.

    Raises:
        UsageError: a value that no scene can have, or targets that do not fit the frame.
    """

    def __init__(self, scene: Scene) -> None:
        for name, (lowest, highest) in _BOUNDS.items():
            value = getattr(scene, name)
            if not lowest <= value <= highest:
                raise _unknown(f"{name}={value}", f": {name} goes from {lowest:g} to {highest:g}")
        self.scene = scene
        self.name = "synthetic"
        self.frames = scene.frames or None
        self.fps = scene.fps
        self.size = scene.height, scene.width
        self.live = bool(scene.live)
        self._stopped = threading.Event()
        random = np.random.default_rng(scene.seed)
        room = np.array((scene.width, scene.height)) - scene.extent
        if room.min() < 1:
            raise UsageError(f"targets of {scene.extent} pixels do not fit {scene.width}x{scene.height}", "Enlarge it")
        self._room = room
        self._start = random.uniform(0, 1, (scene.targets, 2)) * room
        self._step = random.uniform(-scene.speed, scene.speed, (scene.targets, 2))

    @classmethod
    def parse(cls, text: str) -> Synthetic:
        """`WIDTHxHEIGHT` and fields of `Scene` as `name=value`, with commas between, all optional.

        Raises:
            UsageError: an unknown field, a value that is no number or that no scene can have, or no end
                (`frames=0`) without `live=1`.
        """
        known: dict[str, Any] = {field.name: type(field.default) for field in fields(Scene)}
        chosen: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, equals, value = part.partition("=")
            width, _, height = part.partition("x")
            pairs = {name: value} if equals else {"width": width, "height": height}
            for name, value in pairs.items():
                try:
                    chosen[name] = known[name](value)
                except (KeyError, ValueError):
                    raise _unknown(part) from None
        scene = Scene(**chosen)
        if not scene.frames and not scene.live:
            raise _unknown("frames=0", ": only live=1 goes without an end")
        return cls(scene)

    def truth(self, index: int) -> npt.NDArray[np.float32]:
        """The boxes of frame `index`: float32 [n, 4], xyxy, in frame pixels; targets lie on whole pixels."""
        # Straight on in a world of mirrored frames is there and back in one.
        unfolded = (self._start + index * self._step) % (2 * self._room)
        corner = np.rint(np.where(unfolded > self._room, 2 * self._room - unfolded, unfolded))
        return np.concatenate([corner, corner + self.scene.extent], axis=1).astype(np.float32)

    def frame(self, index: int) -> Frame:
        """Frame `index`, H x W."""
        scene = self.scene
        random = np.random.default_rng((scene.seed, index))
        levels = random.standard_normal((scene.height, scene.width), np.float32)
        levels *= np.float32(scene.noise)
        levels += np.float32(scene.background)
        profile = np.bartlett(scene.extent + 2)[1:-1]
        spot = scene.contrast * np.outer(profile, profile)
        for left, top, right, bottom in self.truth(index).astype(int):
            levels[top:bottom, left:right] += spot
        highest = (1 << scene.depth) - 1
        rounded = np.clip(np.rint(levels), 0, highest)
        return rounded.astype(np.uint8) if scene.depth == 8 else rounded.astype(np.uint16)

    def records(self) -> Iterator[SourceFrame]:
        start = time.monotonic()
        index = 0
        while index != self.frames and not self._stopped.is_set():
            due = start + index / self.scene.fps
            frame = self.frame(index)
            if self.live and self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            captured = time.monotonic() if self.live else None
            yield SourceFrame(index, self.name, index / self.scene.fps, frame, captured)
            index += 1

    def stop(self) -> None:
        self._stopped.set()


def _unknown(part: str, why: str = "") -> UsageError:
    names = ", ".join(field.name for field in fields(Scene))
    return UsageError(
        f"'{part}' is nothing that a synthetic source knows{why}",
        f"Write synthetic:WIDTHxHEIGHT,NAME=NUMBER,... with {names}",
    )
