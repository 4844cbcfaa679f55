"""Where a frame lies inside the tensor that was made of it, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """A frame of `frame_height` x `frame_width` pixels that fills the window `content_height` x `content_width` at
    (`top`, `left`) of a tensor of `model_height` x `model_width`.

    Coordinates are edge coordinates: 0 is the left edge of the first pixel, 1 its right edge, so that scaling is a
    plain factor and a pixel's centre is its index + 0.5.
    """

    frame_height: int
    frame_width: int
    model_height: int
    model_width: int
    content_height: int
    content_width: int
    top: int = 0
    left: int = 0

    @property
    def scale(self) -> tuple[float, float]:
        """(along x, along y): model pixels per frame pixel."""
        return self.content_width / self.frame_width, self.content_height / self.frame_height

    @property
    def is_identity(self) -> bool:
        """Model pixels are frame pixels, apart from padding on the right and at the bottom."""
        return (
            self.top == 0
            and self.left == 0
            and self.content_height == self.frame_height
            and self.content_width == self.frame_width
        )

    def to_frame_points(self, points: npt.ArrayLike) -> Floats:
        """Points [n, 2] as (x, y) in model pixels -> float32 [n, 2] in frame pixels, clipped to the frame."""
        return self._to_frame(np.asarray(points, np.float32).reshape(-1, 2))

    def to_frame_boxes(self, boxes: npt.ArrayLike) -> Floats:
        """Boxes [n, 4] as xyxy, half-open, in model pixels -> float32 [n, 4] in frame pixels, clipped to the frame."""
        corners = np.asarray(boxes, np.float32).reshape(-1, 2)
        return self._to_frame(corners).reshape(-1, 4)

    def to_model_points(self, points: npt.ArrayLike) -> Floats:
        """Points [n, 2] as (x, y) in frame pixels -> float32 [n, 2] in model pixels."""
        factors = np.array(self.scale)
        shifted = np.asarray(points, np.float64).reshape(-1, 2) * factors + (self.left, self.top)
        return np.asarray(shifted, np.float32)

    def to_model_boxes(self, boxes: npt.ArrayLike) -> Floats:
        """Boxes [n, 4] as xyxy in frame pixels -> float32 [n, 4] in model pixels."""
        return self.to_model_points(np.asarray(boxes).reshape(-1, 2)).reshape(-1, 4)

    def crop(self, plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The frame's window of a plane [..., model_height, model_width], as a view, without the padding."""
        return plane[..., self.top : self.top + self.content_height, self.left : self.left + self.content_width]

    def to_frame_mask(self, mask: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
        """A mask [model_height, model_width] -> bool [frame_height, frame_width].

        A frame pixel takes the value of the model pixel under its centre, so that the mask agrees with boxes and
        points mapped by the same geometry.
        """
        content = np.asarray(self.crop(mask), np.bool_)
        if self.content_height == self.frame_height and self.content_width == self.frame_width:
            return content.copy()
        rows = centre_samples(self.content_height, self.frame_height)
        columns = centre_samples(self.content_width, self.frame_width)
        return content[rows[:, None], columns]

    def _to_frame(self, points: Floats) -> Floats:
        if not self.is_identity:
            factors = np.array(self.scale)
            points = np.asarray((points - np.array((self.left, self.top))) / factors, np.float32)
        return np.clip(points, 0, np.array((self.frame_width, self.frame_height), np.float32))


def centre_samples(source: int, target: int) -> npt.NDArray[np.intp]:
    """For each of `target` pixels the index of the source pixel under its centre (Pillow's rule for NEAREST)."""
    step = source / target
    # Summed up as Pillow does it, so that a centre on the border of two pixels falls to the same side.
    centres = np.cumsum(np.concatenate([[step / 2], np.full(target - 1, step)]))
    return np.minimum(centres.astype(np.intp), source - 1)
