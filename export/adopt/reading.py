"""What a stranger's outputs mean, once that is known: the one thing that the decoder and its check are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["none", "sigmoid", "softmax"]


@dataclass(frozen=True)
class Part:
    """Features `start` to `stop` of a row tensor N x rows x features; `first` if it is N x features x rows instead.

    A tensor of two dimensions, N x rows, has one feature.
    """

    tensor: str
    start: int
    stop: int
    first: bool = False
    flat: bool = False

    @property
    def width(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Rows:
    """One candidate box a row.

    coordinates: `centre` is (centre x, centre y, width, height), `corners` is (x0, y0, x1, y1).
    unit: `pixels` of the network's input, or `fraction` of its sides.
    scores: of all classes, after `activation`; without column `background`; times `objectness`, if there is one.
    labels: class numbers, where the graph has chosen classes already; `scores` then has one feature.
    pick: `best` is one class a row, `each` makes a candidate of every pair of row and class.
    suppress: whether boxes are left to be suppressed.
    """

    layout: str
    boxes: Part
    scores: Part
    coordinates: Literal["centre", "corners"]
    unit: Literal["pixels", "fraction"]
    activation: Activation = "none"
    background: int | None = None
    objectness: Part | None = None
    labels: Part | None = None
    pick: Literal["best", "each"] = "best"
    suppress: bool = False
    rows: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def class_count(self) -> int | None:
        """None where the graph chose the class itself, so that its shapes do not tell."""
        return None if self.labels else self.scores.width - (self.background is not None)


@dataclass(frozen=True)
class Peaks:
    """Objects as Points (Zhou et al., 2019): a heat map a class, N x classes x h x w, whose peaks are the objects.

    size, offset: tensors N x 2 x h x w, in cells; the centre of an object is its cell plus the offset, if there is one.
    stride: pixels a cell.
    """

    layout: str
    heat: str
    size: str
    offset: str
    activation: Activation
    stride: int
    cells: tuple[int, int]
    count: int
    reasons: tuple[str, ...] = ()

    @property
    def class_count(self) -> int | None:
        return self.count


@dataclass(frozen=True)
class Plane:
    """A score a pixel, N x channels x h x w.

    exclusive: whether a pixel's channels sum to 1; the target's probability is then the sum over the `foreground`
    channels, else the highest of them.
    """

    layout: str
    tensor: str
    channels: int
    activation: Activation
    foreground: tuple[int, ...]
    exclusive: bool
    cells: tuple[int, int]
    reasons: tuple[str, ...] = ()

    @property
    def class_count(self) -> int | None:
        return 1


Reading = Rows | Peaks | Plane
