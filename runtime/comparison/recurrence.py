"""Frames of a test set that a training list holds too, or nearly: by content, and by a small hash of how they look."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from irforge.datasets import Dataset, Sample
from irforge.datasets.describe import frame_digest
from irforge.frames import Frame, to_gray

Signs = npt.NDArray[np.bool_]

GRID = 16
MOST_FRAMES = 5000
"""Of a training list at most so many frames are read, evenly spaced: a set of a hundred thousand would take hours."""
NEAR = 0.18
"""Share of the signs in which two pictures of one scene may differ. Of 160 frames of SIRST and 663 of NUDT-SIRST, which
share no scene, no two differ in less than 0.2; on NUDT-SIRST's two lists those below are the same scenes to the eye."""
NEAR_SAME_STEM = 0.22
"""The same for frames whose names differ in nothing but a number: two frames of one video, say."""


_AT = np.linspace(-1, 1, GRID + 1)
_SLOPES = np.stack([(_AT[:, None] ** i * _AT[None] ** j).reshape(-1) for i in range(4) for j in range(4 - i)], axis=1)


@dataclass(frozen=True, eq=False)
class Look:
    """One frame: its name without the number that it ends with, a hash of its levels, and its signs [2 * GRID**2]."""

    name: str
    stem: str
    digest: str
    signs: Signs


@dataclass(frozen=True)
class Recurrence:
    """What a training list holds of the test frames. `same`: the rows of those that it holds by content. `near`: pairs
    (row of the test, name in training) of other frames that look alike, one for each such row. `read`, `held`:
    frames of the list read, and in all."""

    same: tuple[int, ...]
    near: tuple[tuple[int, str], ...]
    read: int
    held: int


def look(sample: Sample) -> Look:
    """Read a frame and sum up how it looks.

    Raises:
        InputError: the frame cannot be read.
    """
    frame = sample.frame()
    name = sample.frame_path.stem
    return Look(name, re.sub(r"[\W_]*\d+$", "", name), frame_digest(frame), signs(frame))


def signs(frame: Frame) -> Signs:
    """A difference hash: on a grid of block means, is each cell brighter than its neighbour on the right, and below?

    Means are not rounded, and the slope and bend that all skies have are taken off first: on a plain sky the signs are
    then those of the noise, which no other frame shares.
    """
    means = cv2.resize(to_gray(frame).astype(np.float32), (GRID + 1, GRID + 1), interpolation=cv2.INTER_AREA)
    fit, *_ = np.linalg.lstsq(_SLOPES, means.reshape(-1), rcond=None)
    grid = means - (_SLOPES @ fit).reshape(means.shape)
    across, down = grid[:-1, :-1] > grid[:-1, 1:], grid[:-1, :-1] > grid[1:, :-1]
    return np.concatenate([across.reshape(-1), down.reshape(-1)])


def looks(dataset: Dataset, rows: Sequence[int], tick: Callable[[], None] = lambda: None) -> list[Look]:
    """Of the frames in these rows."""
    found = []
    for row in rows:
        found.append(look(dataset[row]))
        tick()
    return found


def spaced(count: int) -> Sequence[int]:
    """The rows that are read of a training list of `count` frames."""
    return range(count) if count <= MOST_FRAMES else np.linspace(0, count - 1, MOST_FRAMES).astype(int).tolist()


def recurrence(test: Sequence[Look], train: Sequence[Look], held: int) -> Recurrence:
    """Compare two sets of looks; `held` is how many frames the training list has in all."""
    known = {one.digest for one in train}
    same = tuple(row for row, one in enumerate(test) if one.digest in known)
    rows = [row for row in range(len(test)) if row not in set(same)]
    near: list[tuple[int, str]] = []
    if rows and train:
        others = [test[row] for row in rows]
        apart = _differences([one.signs for one in others], [one.signs for one in train])
        limits = np.where(_same_stem(others, train), NEAR_SAME_STEM, NEAR)
        closest = (apart - limits).argmin(axis=1)
        near = [
            (row, train[j].name)
            for i, (row, j) in enumerate(zip(rows, closest.tolist(), strict=True))
            if apart[i, j] <= limits[i, j]
        ]
    return Recurrence(same, tuple(near), len(train), held)


def _differences(one: Iterable[Signs], other: Iterable[Signs]) -> npt.NDArray[np.float32]:
    """[n, m]: the share of signs that differ."""
    a, b = (np.stack(list(part)).astype(np.float32) * 2 - 1 for part in (one, other))
    share: npt.NDArray[np.float32] = (1 - a @ b.T / a.shape[1]) / 2
    return share


def _same_stem(one: Sequence[Look], other: Sequence[Look]) -> npt.NDArray[np.bool_]:
    mine, theirs = np.array([look.stem for look in one]), np.array([look.stem for look in other])
    same: npt.NDArray[np.bool_] = (mine[:, None] == theirs[None]) & (mine != "")[:, None]
    return same
