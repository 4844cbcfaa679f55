"""Frames and input specifications that several test modules share."""

from __future__ import annotations

from typing import Any

import numpy as np

from irforge.contract import InputSpec, Letterbox, Normalization, PadToMultiple, Range, Squash
from irforge.frames import Geometry, fit_geometry


def spec(**changes: Any) -> InputSpec:
    fields: dict[str, Any] = {"height": 64, "width": 64, "fit": Squash(), "normalization": Normalization(mean=0, std=1)}
    return InputSpec(**(fields | changes))


def noise(height: int, width: int, bits: int = 8, seed: int = 0) -> Any:
    levels = np.random.default_rng(seed).integers(0, 1 << bits, (height, width))
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def geometries(seed: int) -> list[Geometry]:
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(16, 700, 2))
    dynamic = Range(min=64, opt=256, max=1024, multiple=32)
    wanted = [
        spec(height=256, width=256),
        spec(height=512, width=640, fit=Letterbox()),
        spec(height=704, width=704, fit=PadToMultiple(multiple=32)),
        spec(height=dynamic, width=dynamic, fit=PadToMultiple(multiple=16)),
    ]
    return [fit_geometry(height, width, w) for w in wanted]
