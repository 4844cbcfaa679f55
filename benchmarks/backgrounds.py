"""Real pictures without targets, and real targets without their pictures, for scenes whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irforge.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from irforge.datasets import Dataset

    Target = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

_MARGIN = 3


def backgrounds(dataset: Dataset, count: int, side: int) -> list[Any]:
    """The first `count` gray frames that hold no target and are at least `side` pixels high and wide.

    Raises:
        UsageError: there are not so many.
    """
    from irforge.frames import frame_size, to_gray

    found: list[Any] = []
    for sample in dataset:
        if len(found) == count:
            return found
        mask = sample.mask() if min(frame_size(sample.frame_path)) >= side else None
        if mask is not None and not mask.any():
            found.append(to_gray(sample.frame()))
    if len(found) < count:
        raise UsageError(
            f"'{dataset.name}' has {len(found)} frames of {side} pixels without a target, not {count}", "Ask for fewer"
        )
    return found


def targets(dataset: Dataset, largest: int) -> list[Target]:
    """Every target of up to `largest` pixels in width and height, as (excess, share): levels above the median around
    it, float32 [h, w], and how much of each pixel is the target, 0..1, with 3 pixels of its surroundings."""
    import cv2
    import numpy as np

    from irforge.components import components
    from irforge.frames import to_gray

    found: list[Target] = []
    for sample in dataset:
        mask = sample.mask()
        if mask is None or not mask.any():
            continue
        gray = to_gray(sample.frame()).astype(np.float32)
        for left, top, right, bottom in components(mask).boxes().tolist():
            rows = slice(top - _MARGIN, bottom + _MARGIN)
            columns = slice(left - _MARGIN, right + _MARGIN)
            inside = rows.start >= 0 and columns.start >= 0 and rows.stop <= len(gray) and columns.stop <= len(gray[0])
            if not inside or max(right - left, bottom - top) > largest:
                continue
            share = cv2.GaussianBlur(cv2.dilate(mask[rows, columns].astype(np.float32), np.ones((3, 3))), (3, 3), 0)
            around = gray[rows, columns][share == 0]
            if len(around):
                found.append((gray[rows, columns] - np.median(around), share))
    return found


def paste(frame: npt.NDArray[np.float32], target: Target, centre: tuple[int, int]) -> tuple[float, float]:
    """Add a target to a frame around (x, y), in place; where its centre came to lie, as edge coordinates."""
    import numpy as np

    excess, share = target
    top, left = centre[1] - len(share) // 2, centre[0] - len(share[0]) // 2
    frame[top : top + len(share), left : left + len(share[0])] += excess * share
    ys, xs = np.nonzero(share > 0.5)
    return left + float(xs.mean()) + 0.5, top + float(ys.mean()) + 0.5
