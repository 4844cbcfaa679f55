"""When a thermal camera shows its own shutter, or nothing new, instead of the scene."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from irforge.frames import Frame, to_gray
from irforge.runtime.sources import SourceFrame

_CELL = 8
# Of a normal distribution, in standard deviations: what lies between its 10th and 90th percentile; and the mean size
# of the difference of two, cut at its 98th percentile.
_TENTH_TO_NINETIETH, _MEAN_DIFFERENCE = 2.563, 1.119
# Levels are whole: that alone is noise of this standard deviation.
_ROUNDING = 0.29
# How far a cell's mean has to move, in standard deviations of a pixel: little where the picture has lost its spread as
# well, for the shutter may have the level of the scene; far where a change of level is the only sign.
_MOVE, _JUMP = 0.5, 2.0
_SHARE, _BARE = 0.75, 2.0
# A blade may be seen half open: this frame, the next and the one that it is compared with say nothing of a closing.
_SETTLING = 3


@dataclass(frozen=True, eq=False)
class _Look:
    """A frame from afar.

    cells: the mean of every 8 x 8 pixels. spread: their standard deviation and noise: that of a pixel, in levels, both
    such that a few pixels, dead ones or targets, count for nothing.
    """

    cells: npt.NDArray[np.float32]
    spread: float
    noise: float

    @classmethod
    def at(cls, frame: Frame) -> _Look:
        gray = to_gray(frame).astype(np.float32)
        height, width = gray.shape
        cells = np.asarray(
            cv2.resize(gray, (width // _CELL or 1, height // _CELL or 1), interpolation=cv2.INTER_AREA), np.float32
        )
        low, high = np.percentile(cells, (10, 90))
        # From row to row, since uncooled sensors have offsets of whole columns.
        apart = np.abs(gray[1::2, ::2] - gray[:-1:2, ::2])
        noise = float(np.minimum(apart, np.percentile(apart, 98)).mean()) / _MEAN_DIFFERENCE
        return cls(cells, float(high - low) / _TENTH_TO_NINETIETH, max(noise, _ROUNDING))

    @property
    def is_bare(self) -> bool:
        """Nothing to see but noise."""
        return self.spread < _BARE * self.noise / _CELL

    @property
    def level(self) -> float:
        return float(np.median(self.cells))

    def differs(self, before: _Look, by: float) -> bool:
        """Almost everywhere, by more than so many standard deviations of a pixel."""
        return float((np.abs(self.cells - before.cells) > by * self.noise).mean()) >= _SHARE


class Shutter:
    """Flags frames taken while the camera calibrates itself (flat-field correction), so that tracks can be held.

    Two signs. A frame equals the one before it in every pixel, which noise makes impossible in a running sensor: many
    cameras repeat their last frame meanwhile; compressed video may repeat frames for other reasons. Or a flat picture
    has come from one frame to the next or the one after: what is left of the picture's spread is below `ratio` of what
    it was and nearly all levels have changed, or there is no more than noise and they have changed by more than that.
    So neither a clear sky nor a camera that turns towards one is a shutter: there the levels stay, or go one after the
    other. Nor is a step of the offset, which leaves the picture its spread.

    The shutter has opened when the spread is back; where there was hardly any, when the level is nearer to what it was
    before than to the closed one. After `longest` flat frames in a row the flat picture is the scene. What cannot be
    told apart: in a picture of nothing but noise a step of the offset, and a recording cut to a flat scene; both are
    flagged for so long.
    """

    def __init__(self, ratio: float = 0.25, longest: int = 60) -> None:
        self._ratio = ratio
        self._longest = longest
        self._previous: Frame | None = None
        self._scene: deque[_Look] = deque(maxlen=2)
        self._closed: _Look | None = None
        self._flat = self._settling = 0

    def __call__(self, record: SourceFrame) -> SourceFrame:
        frame, previous = record.frame, self._previous
        self._previous = frame
        if previous is not None and previous.shape != frame.shape:
            self._scene.clear()
            self._closed, self._flat = None, 0
        elif previous is not None and np.array_equal(previous, frame):
            self._settling = _SETTLING
            return replace(record, shutter=True)
        look = _Look.at(frame)
        if self._flat < self._longest and self._is_closed(look):
            self._closed = self._closed or look
            self._flat += 1
            return replace(record, shutter=True)
        if self._closed is not None:
            self._closed, self._flat, self._settling = None, 0, _SETTLING
        self._settling = max(self._settling - 1, 0)
        self._scene.append(look)
        return record

    def _is_closed(self, look: _Look) -> bool:
        if not self._scene:
            return False
        scene = self._scene[0]
        faded = look.spread < self._ratio * scene.spread
        if not (faded or look.is_bare):
            return False
        if self._closed is None:
            return not self._settling and look.differs(scene, _MOVE if faded else _JUMP)
        if scene.spread > scene.noise:
            return True
        return abs(look.level - self._closed.level) < abs(look.level - scene.level)
