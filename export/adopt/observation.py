"""What is known of a stranger's outputs, and what their values tell: coordinates, units, probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from irforge.errors import UsageError
from irforge.export.adopt.reading import Activation

Values = npt.NDArray[Any]

_WHOLE = 1e-4


class NotThisLayout(Exception):
    """What speaks against a layout."""


class NearlyThisLayout(NotThisLayout):
    """What speaks against a layout whose shapes are right: worth a word where no layout fits."""


@dataclass(frozen=True)
class Choices:
    """What the user said of the outputs; empty where it is to be found out.

    Raises:
        UsageError: a channel is named twice.
    """

    kind: str = ""
    layout: str = ""
    outputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    scores: Literal["", "probability", "sigmoid", "softmax"] = ""
    coordinates: Literal["", "centre", "corners"] = ""
    target: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        twice = next((channel for channel in self.target if self.target.count(channel) > 1), None)
        if twice is not None:
            raise UsageError(f"--target names channel {twice} twice", "Name each channel once")


@dataclass(frozen=True)
class Observation:
    """Outputs of a few frames, float or integer arrays by name, and the size of the network's input."""

    values: Mapping[str, Values]
    height: int
    width: int
    choices: Choices

    @property
    def class_count(self) -> int | None:
        return len(self.choices.classes) or None

    def of_rank(self, rank: int) -> dict[str, Values]:
        return {name: value for name, value in self.values.items() if value.ndim == rank}

    def roles(self, count: int) -> tuple[str, ...]:
        """The outputs named by the user, in the layout's order; empty if none are."""
        given = self.choices.outputs
        if given and len(given) != count:
            raise NotThisLayout(f"it takes {count} outputs, and --outputs names {len(given)}")
        return given


def coordinates_of(
    boxes: Values, seen: Observation, surely: float = 0.99
) -> tuple[Literal["centre", "corners"], Literal["pixels", "fraction"], str]:
    """How four numbers are a box, and in which unit.

    Corners are in order in every row; centres with sizes are so by chance only in some. Boxes in pixels reach over the
    frame; fractions hardly exceed 1.

    Args:
        surely: share of rows in order from which they are corners.
    """
    a, b, c, d = np.moveaxis(boxes.astype(np.float64), -1, 0)
    used = (boxes != 0).any(axis=-1)
    if not np.isfinite(boxes).all():
        raise NotThisLayout("its coordinates are not finite")
    if not used.any():
        raise NearlyThisLayout("all its boxes are empty on the frames tried (--frames names others)")
    a, b, c, d = a[used], b[used], c[used], d[used]
    ordered = float(((c >= a) & (d >= b)).mean())
    positive = float(((c >= 0) & (d >= 0)).mean())
    largest = float(np.abs(boxes).max())
    unit: Literal["pixels", "fraction"] = "fraction" if largest <= 2 else "pixels"
    given = seen.choices.coordinates
    if given:
        coordinates, why = given, "as --coordinates says"
    elif ordered > surely:
        coordinates, why = "corners", f"the second corner is behind the first in {ordered:.0%} of the rows"
    elif positive > 0.99 and ordered < surely - 0.04:
        coordinates, why = "centre", f"sizes are positive, and only {ordered:.0%} of the rows could be corners"
    elif positive > 0.99:
        raise NearlyThisLayout("corners or centre and size cannot be told; say --coordinates corners, or centre")
    else:
        raise NearlyThisLayout("its boxes are undecoded: sizes are negative, so they are offsets to anchors")
    names = {"centre": "centre and size", "corners": "corners"}
    where = "fractions of the sides" if unit == "fraction" else "pixels"
    return coordinates, unit, f"boxes are {names[coordinates]} in {where} (up to {largest:.4g}): {why}"


def activation_of(scores: Values, seen: Observation) -> tuple[Activation, str]:
    """What makes scores probabilities, with the reason."""
    low, high = float(scores.min()), float(scores.max())
    given = seen.choices.scores
    if given:
        return ("none" if given == "probability" else given), f"scores: {given}, as --scores says"
    if low >= 0 and high <= 1:
        return "none", f"scores are probabilities ({low:.3g} to {high:.3g})"
    if scores.ndim == 3 and scores.shape[2] > 1:
        # A softmax's "no object" wins in nearly every query, and clearly; sigmoids of most queries lie below a half.
        wins = (scores.argmax(axis=2) == scores.shape[2] - 1) & (scores[..., -1] > 0)
        last = float(wins.mean())
        if last > 0.5:
            return "softmax", f"scores become probabilities by softmax: the last class wins in {last:.0%} of the rows"
    return "sigmoid", f"scores become probabilities by sigmoid ({low:.3g} to {high:.3g})"


def is_distribution(scores: Values) -> bool:
    """Whether the last axis holds probabilities that sum to 1."""
    return bool(scores.shape[-1] > 1 and scores.min() >= 0 and np.abs(scores.sum(axis=-1) - 1).max() < 1e-3)


def are_whole(values: Values) -> bool:
    """Whether all values are whole numbers, as class numbers are, within what a float can lose."""
    return values.dtype.kind in "iu" or bool(np.abs(values - np.round(values)).max() <= _WHOLE)


def the_only(found: Mapping[str, Values], what: str) -> tuple[str, Values]:
    """The one output of a kind, with its name."""
    if len(found) != 1:
        raise NotThisLayout(f"it has {len(found)} {what}s; --outputs names one" if found else f"it has no {what}")
    return next(iter(found.items()))
