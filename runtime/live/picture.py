"""Raw frames as the pictures that a browser shows. Gain is for the eye: the detector never sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from irforge.detections import Detections
from irforge.frames import Frame, to_gray
from irforge.frames.levels import percentile_levels, stretch
from irforge.runtime.drawing import Palette, palette_table
from irforge.runtime.pipeline import Result
from irforge.runtime.sinks.overlay import draw_tracks
from irforge.runtime.tracking.tracked import Tracked

# High enough that a target of three pixels keeps its shape.
_JPEG_QUALITY = 92
_AUTO = (0.3, 99.9)
BINS = 96


@dataclass(frozen=True)
class DisplayGain:
    """Which levels are black and white: all that the camera has (`full`), two percentiles of each frame (`auto`), or
    `low` and `high` (`manual`)."""

    mode: Literal["full", "auto", "manual"] = "auto"
    low: int = 0
    high: int = 255

    def window(self, gray: Frame, depth: int) -> tuple[int, int]:
        """The levels of this frame, H x W, that become black and white."""
        if self.mode == "full":
            return 0, (1 << depth) - 1
        if self.mode == "manual":
            return self.low, max(self.high, self.low + 1)
        low, high = percentile_levels(gray, *_AUTO, bits(gray))
        return low, max(high, low + 1)


def bits(frame: Frame) -> int:
    """Of the type that holds a frame's levels."""
    return 8 * frame.dtype.itemsize


def encoded(frame: Frame, gain: DisplayGain, depth: int, lossless: bool) -> tuple[bytes, tuple[int, int]]:
    """A frame as a gray JPEG or PNG, and the two levels that are black and white in it."""
    shown, levels = _shown(frame, gain, depth)
    if lossless:
        return _file(".png", shown, cv2.IMWRITE_PNG_COMPRESSION, 1), levels
    return _file(".jpg", shown, cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY), levels


def raw_png(frame: Frame) -> bytes:
    """A frame with its levels and channels as they came, as PNG."""
    return _file(".png", frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


def snapshot_png(result: Result, threshold: float, gain: DisplayGain, depth: int, palette: Palette) -> bytes:
    """A frame in a palette's colours, with marks and tracks of what scores more than the threshold, as PNG."""
    shown, _ = _shown(result.record.frame, gain, depth)
    record = replace(result.record, frame=palette_table(palette)[shown])
    return _file(".png", draw_tracks(record, _above(result.detections, threshold)))


class Histogram:
    """Counts of levels over a range that grows with what was seen, so that it stands still under the eye."""

    def __init__(self, depth: int) -> None:
        self._low, self._high = (0, 255) if depth == 8 else (1 << depth, 0)
        self._highest = (1 << depth) - 1

    def __call__(self, frame: Frame) -> dict[str, Any]:
        """JSON-ready: the range's two levels, and in each of its `BINS` equal parts the share of the fullest, 0..1."""
        counts = np.bincount(to_gray(frame).reshape(-1), minlength=self._highest + 1)
        there = np.flatnonzero(counts)
        first, last = int(there[0]), int(there[-1])
        if first < self._low or last > self._high:
            room = max((last - first) // 4, 8)
            self._low = min(self._low, max(first - room, 0))
            self._high = max(self._high, min(last + room, self._highest), last)
        edges = np.linspace(self._low, self._high + 1, BINS + 1).astype(np.int64)
        below = np.concatenate([[0], np.cumsum(counts)])
        parts = np.diff(below[np.minimum(edges, counts.size)])
        return {
            "low": self._low,
            "high": self._high,
            # Roots: a few hot pixels are what one looks for.
            "bins": [round(float(v), 3) for v in np.sqrt(parts / max(int(parts.max()), 1))],
        }


def _shown(frame: Frame, gain: DisplayGain, depth: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    gray = to_gray(frame)
    low, high = gain.window(gray, depth)
    return stretch(gray, low, high, bits(gray)), (low, high)


def _above(found: Detections, threshold: float) -> Detections:
    kept = found.scores > np.float32(threshold)
    taken = found.take(kept)
    return Tracked.of(taken, found.tracks[kept], found.trails) if isinstance(found, Tracked) else taken


def _file(suffix: str, picture: npt.NDArray[Any], *options: int) -> bytes:
    done, content = cv2.imencode(suffix, picture, options)
    assert done
    data: bytes = content.tobytes()
    return data
