"""What is in a dataset: sizes, levels, targets per frame, areas, contrast. Every frame is read once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from irforge.components import components
from irforge.datasets.base import Dataset, Sample
from irforge.frames import Frame, to_gray

AREA_EDGES = (0, 4, 9, 16, 25, 49, 81, 144, 256, 1024, math.inf)
LEVEL_EDGES = (-math.inf, 0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, math.inf)
DEVIATION_EDGES = (-math.inf, 0, 1, 2, 3, 5, 10, 20, 50, math.inf)

_RING = 3
"""Pixels around a target that surroundings take in at least: fewer say little of a background's spread."""
_ROUNDING_DEVIATION = 1 / math.sqrt(12)
"""Standard deviation, in levels, that rounding to whole levels alone leaves: no background is calmer than that."""


@dataclass(frozen=True, eq=False)
class FrameFacts:
    """One frame and its targets.

    size: (height, width). stored: depth and channels in words. highest: highest level. digest: of the decoded levels,
    so that a frame stored in another file format, or as RGB of equal channels, is the same frame. areas: square pixels.
    levels, deviations: each target's mean less that of its surroundings, in levels and in standard deviations of the
    surroundings; targets that leave no surroundings are left out. Without truth all three are empty.
    """

    name: str
    size: tuple[int, int]
    stored: str
    highest: int
    digest: str
    classes: npt.NDArray[np.int64]
    areas: npt.NDArray[np.float64]
    levels: npt.NDArray[np.float64]
    deviations: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """Counts of values in (low, high] between edges; None is infinity. The empty bins at both ends are left out."""

    bins: tuple[tuple[float | None, float | None, int], ...]
    p5: float
    median: float
    p95: float


@dataclass(frozen=True)
class Description:
    """A split in figures. targets, target_free and what follows them are None where there is no truth.

    sizes, stored: frames by "WIDTHxHEIGHT" and by depth and channels. targets_per_frame: frames by number of targets.
    area: pixels of the mask's components, or of the boxes. contrast, local_contrast: see `FrameFacts`.
    """

    name: str
    split: str
    licence: str
    truth: str
    frames: int
    sizes: dict[str, int]
    stored: dict[str, int]
    highest_level: int
    targets: int | None = None
    target_free: int | None = None
    classes: dict[str, int] = field(default_factory=dict)
    targets_per_frame: dict[int, int] = field(default_factory=dict)
    area: Histogram | None = None
    contrast: Histogram | None = None
    local_contrast: Histogram | None = None


def frame_facts(sample: Sample) -> FrameFacts:
    """Read a frame with its truth, and measure both.

    Raises:
        InputError: frame or mask cannot be used.
    """
    frame = sample.frame()
    gray = to_gray(frame)
    owners, boxes, classes = _targets(sample, gray.shape)
    areas = (
        np.bincount(owners[owners >= 0], minlength=len(boxes)).astype(np.float64)
        if sample.box_truth is None
        else ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float64)
    )
    contrasts = [_contrast(gray, owners, number, box) for number, box in enumerate(boxes)]
    measured = np.array([pair for pair in contrasts if pair is not None], np.float64).reshape(-1, 2)
    return FrameFacts(
        name=sample.id,
        size=(gray.shape[0], gray.shape[1]),
        stored=_stored(frame),
        highest=int(frame.max()),
        digest=frame_digest(frame),
        classes=classes,
        areas=areas,
        levels=measured[:, 0],
        deviations=measured[:, 1],
    )


def frame_digest(frame: Frame) -> str:
    """A hash of a frame's size, depth and levels; channels that are equal count as one."""
    pixels = frame[:, :, 0] if frame.ndim == 3 and not _is_coloured(frame) else frame
    head = f"{pixels.shape} {pixels.dtype} ".encode()
    return hashlib.blake2b(head + np.ascontiguousarray(pixels).tobytes(), digest_size=16).hexdigest()


def describe(dataset: Dataset, facts: Sequence[FrameFacts]) -> Description:
    """The figures of a split from those of its frames."""
    has_truth = dataset.has_boxes
    per_frame = Counter(len(frame.areas) for frame in facts)
    number = Counter(int(value) for frame in facts for value in frame.classes)
    return Description(
        name=dataset.name,
        split=dataset.split,
        licence=dataset.licence,
        truth=dataset.truth,
        frames=len(dataset),
        sizes=dict(Counter(f"{frame.size[1]}x{frame.size[0]}" for frame in facts).most_common()),
        stored=dict(Counter(frame.stored for frame in facts).most_common()),
        highest_level=max((frame.highest for frame in facts), default=0),
        targets=sum(len(frame.areas) for frame in facts) if has_truth else None,
        target_free=per_frame[0] if has_truth else None,
        classes={name: number[index] for index, name in enumerate(dataset.classes)} if has_truth else {},
        targets_per_frame=dict(sorted(per_frame.items())) if has_truth else {},
        area=histogram((frame.areas for frame in facts), AREA_EDGES),
        contrast=histogram((frame.levels for frame in facts), LEVEL_EDGES),
        local_contrast=histogram((frame.deviations for frame in facts), DEVIATION_EDGES),
    )


def histogram(parts: Iterable[npt.NDArray[np.float64]], edges: Sequence[float]) -> Histogram | None:
    """The histogram of all values between `edges`, ascending; None where there are no values."""
    values = np.concatenate([np.empty(0), *parts])
    if not len(values):
        return None
    counts = np.bincount(np.searchsorted(edges, values, side="left") - 1, minlength=len(edges) - 1)
    first, last = np.flatnonzero(counts)[[0, -1]]
    bounds = [None if math.isinf(edge) else float(edge) for edge in edges]
    bins = tuple((bounds[i], bounds[i + 1], int(counts[i])) for i in range(first, last + 1))
    p5, median, p95 = (round(float(value), 3) for value in np.percentile(values, (5, 50, 95)))
    return Histogram(bins, p5, median, p95)


def _targets(
    sample: Sample, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(number of the target that owns each pixel, -1 for none; boxes [n, 4]; classes [n])."""
    owners = np.full(shape, -1, np.int64)
    mask = sample.mask() if sample.box_truth is None else None
    if mask is not None:
        found = components(mask)
        owners[found.rows, found.columns] = found.owners
        return owners, found.boxes().astype(np.float64), np.zeros(len(found), np.int64)
    truth = sample.box_truth
    if truth is None:
        return owners, np.empty((0, 4)), np.empty(0, np.int64)
    for number, (x1, y1, x2, y2) in enumerate(truth.boxes):
        # The pixels whose centres the box holds; a box between centres has the pixel that its corner lies in.
        left, top = min(round(x1), shape[1] - 1), min(round(y1), shape[0] - 1)
        owners[top : max(round(y2), top + 1), left : max(round(x2), left + 1)] = number
    return owners, truth.boxes.astype(np.float64), truth.classes


def _contrast(
    gray: Frame, owners: npt.NDArray[np.int64], number: int, box: npt.NDArray[np.float64]
) -> tuple[float, float] | None:
    """A target's mean less its surroundings', in levels and in their standard deviations.

    Surroundings are what no target owns in the box grown on all sides by its longer one, and by `_RING` at least.
    """
    x1, y1, x2, y2 = int(box[0]), int(box[1]), math.ceil(box[2]), math.ceil(box[3])
    grow = max(x2 - x1, y2 - y1, _RING)
    window = slice(max(y1 - grow, 0), y2 + grow), slice(max(x1 - grow, 0), x2 + grow)
    levels, owner = gray[window].astype(np.float64), owners[window]
    target, around = levels[owner == number], levels[owner < 0]
    if not len(target) or not len(around):
        return None
    difference = float(target.mean() - around.mean())
    return difference, difference / max(float(around.std()), _ROUNDING_DEVIATION)


def _stored(frame: Frame) -> str:
    depth = f"{8 * frame.dtype.itemsize}-bit"
    if frame.ndim == 2:
        return f"{depth} gray"
    return f"{depth} RGB, coloured" if _is_coloured(frame) else f"{depth} RGB, equal channels"


def _is_coloured(frame: Frame) -> bool:
    return frame.ndim == 3 and not (frame == frame[:, :, :1]).all()
