"""Small bright targets with exact masks, rendered onto a real infrared background.

A target is an intensity profile with its peak at 1, integrated over each pixel's area, at a sub-pixel position. Its
mask is where that noise-free profile exceeds half its peak pixel, so that truth and picture come from one array.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Gray = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MASK_LEVEL = 0.5
AREAS = (2, 60)
_CONTRAST_SIGMAS = (3.0, 10.0)
_CONTRAST_FLOOR = (24.0, 64.0)
_CONTRAST_CEILING = 120.0
_BRIGHTEST = 250.0
_OVERSAMPLING = 7
_WINDOW = 31
_BORDER = 6
_SPACING = 24
_TRIES = 200


@dataclass(frozen=True)
class Target:
    """A rendered target: centre in edge coordinates (pixel index + 0.5), mask area in pixels, peak above background."""

    x: float
    y: float
    area: int
    contrast: float


def profile(kind: str, centre: tuple[float, float], semi_axes: tuple[float, float], angle: float, side: int) -> Plane:
    """The target's intensity over a `side` x `side` window, integrated over pixel areas, highest pixel = 1.

    Args:
        kind: 'spot' (Gaussian, half its peak at the semi-axes) or 'soft-edged' (flat top, edge about 0.7 px wide).
        centre: (x, y) in the window's edge coordinates.
        semi_axes: pixels from the centre to the half-peak contour, along and across `angle` (radians).
    """
    steps = (np.arange(side * _OVERSAMPLING) + 0.5) / _OVERSAMPLING
    dx, dy = steps[None, :] - centre[0], steps[:, None] - centre[1]
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / semi_axes[0]
    across = (dy * np.cos(angle) - dx * np.sin(angle)) / semi_axes[1]
    radius = np.hypot(along, across)
    if kind == "spot":
        fine = np.exp2(-(radius**2))
    else:
        fine = 1 / (1 + np.exp((radius - 1) * np.sqrt(semi_axes[0] * semi_axes[1]) / 0.18))
    pixels = fine.reshape(side, _OVERSAMPLING, side, _OVERSAMPLING).mean(axis=(1, 3))
    return np.asarray(pixels / pixels.max())


def _random_profile(rng: np.random.Generator) -> tuple[Plane, tuple[float, float]]:
    # Log-normal areas: median 9 px, nine in ten within 3..27 px, as in the public small-target sets.
    while True:
        area = float(np.exp(rng.normal(np.log(9.0), 0.67)))
        elongation = float(rng.choice([1.0, rng.uniform(1.0, 1.6), rng.uniform(1.6, 3.0)], p=[0.35, 0.4, 0.25]))
        minor = np.sqrt(area / np.pi / elongation)
        side = 2 * int(np.ceil(4 * minor * elongation + 3)) + 1
        centre = (side / 2 + rng.uniform(-0.5, 0.5), side / 2 + rng.uniform(-0.5, 0.5))
        kind = "spot" if rng.random() < 0.65 else "soft-edged"
        shape = profile(kind, centre, (minor * elongation, minor), rng.uniform(0, np.pi), side)
        if AREAS[0] <= np.count_nonzero(shape > MASK_LEVEL) <= AREAS[1]:
            return shape, centre


def add_targets(background: Gray, count: int, rng: np.random.Generator) -> tuple[Gray, Mask, list[Target]]:
    """Render `count` targets onto a gray background (H x W, uint8), none near another or the border.

    The peak stands 3 to 10 local standard deviations (31 x 31 window) above its surroundings, but no less than a floor
    drawn from 24..64 levels, since calm sky has next to no deviation, and no more than 120 levels. Places too bright
    for that without saturating are passed over, so fewer targets may come back.

    Returns:
        The frame (H x W, uint8), the mask (H x W, bool) and the targets.
    """
    height, width = background.shape
    frame, mask = background.astype(np.float64), np.zeros(background.shape, np.bool_)
    mean = cv2.blur(frame, (_WINDOW, _WINDOW))
    spread = np.sqrt(np.maximum(cv2.blur(frame**2, (_WINDOW, _WINDOW)) - mean**2, 0))
    targets: list[Target] = []
    for _ in range(_TRIES):
        if len(targets) == count:
            break
        shape, offset = _random_profile(rng)
        half = shape.shape[0] // 2
        margin = max(_BORDER, half)
        x, y = int(rng.integers(margin, width - margin)), int(rng.integers(margin, height - margin))
        contrast = max(rng.uniform(*_CONTRAST_SIGMAS) * spread[y, x], rng.uniform(*_CONTRAST_FLOOR))
        contrast = float(min(contrast, _CONTRAST_CEILING))
        window = np.s_[y - half : y + half + 1, x - half : x + half + 1]
        # The peak is measured from the local mean; a place that is already brighter than its surroundings is clutter.
        lift = mean[y, x] + contrast - frame[y, x]
        crowded = any(np.hypot(x - t.x, y - t.y) < _SPACING for t in targets)
        if crowded or mean[y, x] + contrast > _BRIGHTEST or lift < 0.7 * contrast:
            continue
        frame[window] += lift * shape
        inside = shape > MASK_LEVEL
        mask[window] |= inside
        centre = (x - half + offset[0], y - half + offset[1])
        targets.append(Target(*centre, area=int(inside.sum()), contrast=contrast))
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8), mask, targets
