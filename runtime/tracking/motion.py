"""How far the camera moved between two frames."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from irforge.frames import Frame, to_gray

_LONGEST_SIDE = 320
# A shift has to explain the frame this much better than none: that of noise does not.
_BETTER = 0.98

Floats = npt.NDArray[np.float32]


class CameraMotion:
    """The shift of the whole picture from each frame to the next, by phase correlation (Kuglin & Hines, 1975).

    It works on the picture at up to 320 pixels of its longer side, sees any shift below a quarter of the picture, and
    no roll or zoom: of those, what a pixel in the middle does. A shift that leaves more difference between the frames
    than standing still does is none: a sky without clouds has nothing to hold on to.
    """

    def __init__(self) -> None:
        self._previous: Floats | None = None
        self._window: Any = None

    def update(self, frame: Frame) -> npt.NDArray[np.float64]:
        """(dx, dy) in frame pixels from the frame before; zeros for the first one, and where the size changed."""
        picture, step = _reduced(frame)
        previous, self._previous = self._previous, picture
        if previous is None or previous.shape != picture.shape:
            self._window = cv2.createHanningWindow(picture.shape[::-1], cv2.CV_32F)
            return np.zeros(2)
        shift = np.array(cv2.phaseCorrelate(previous, picture, self._window)[0])
        return shift * step if _explains(shift, previous, picture) else np.zeros(2)


def _reduced(frame: Frame) -> tuple[Floats, float]:
    """The gray picture at most so large, around zero with about unit contrast, and pixels of the frame per pixel."""
    gray = to_gray(frame)
    step = max(max(gray.shape) / _LONGEST_SIDE, 1.0)
    size = round(gray.shape[1] / step), round(gray.shape[0] / step)
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return (small - small.mean()) / (small.std() + np.float32(1e-3)), step


def _explains(shift: npt.NDArray[np.float64], previous: Floats, picture: Floats) -> bool:
    height, width = picture.shape
    dx, dy = (int(v) for v in np.rint(shift))
    if (dx, dy) == (0, 0):
        # Less than a pixel does no harm if it is wrong.
        return True
    if abs(dx) > width // 4 or abs(dy) > height // 4:
        return False
    rows, columns = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    before_rows, before_columns = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
    moved = np.abs(picture[rows, columns] - previous[before_rows, before_columns]).mean()
    still = np.abs(picture[rows, columns] - previous[rows, columns]).mean()
    return bool(moved < _BETTER * still)
