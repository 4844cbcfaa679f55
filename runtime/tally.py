"""What the tallies of masks and of boxes have in common: protocols, and targets that a candidate lost or gained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from irforge.datasets import Sample
from irforge.errors import ArtifactError
from irforge.frames import Frame, Geometry
from irforge.runtime.limits import Limits
from irforge.runtime.report.figures import Accuracy, BoxAccuracy, Crop, MaskAccuracy, Parity, SizeCount, TargetChange
from irforge.runtime.report.pictures import neighbourhood_png
from irforge.session import Array

Plane = npt.NDArray[np.float32]
A = TypeVar("A", MaskAccuracy, BoxAccuracy)
Held = Mapping[str, tuple[Callable[[A], float | None], float]]
"""By a limit's name: the figure whose change it holds, and the factor that makes it the limit's unit."""
Pictures = tuple[Plane, Plane, Plane, Plane]
"""Frame, truth, and what reference and candidate gave."""


@dataclass(frozen=True)
class FrameRead:
    """One frame on its way through all sessions."""

    sample: Sample
    raw: Frame
    feed: Array
    geometry: Geometry


class Seen(Protocol):
    """One frame as the reference saw it; `truth` is None where nobody knows it."""

    @property
    def truth(self) -> object | None: ...


class Tally(Protocol):
    """One candidate's sums."""

    def add(self, seen: Any, answer: Any) -> None: ...

    def result(self, base: Any, reference: str, frames: int) -> tuple[Accuracy | None, Parity]:
        """Its accuracy, and its parity with the reference called so, whose accuracy is `base` (None without truth)."""
        ...


class Judge(Protocol):
    """One kind of output: how it is read, scored and compared. It scores the reference itself."""

    def read(self, outputs: Mapping[str, Array], geometry: Geometry, name: str) -> Any:
        """What session `name` answers. Raises ArtifactError: it does not fit the contract."""
        ...

    def see(self, frame: FrameRead, expected: Any) -> Seen:
        """Score the reference's answer. Raises ArtifactError: it is not finite."""
        ...

    def tally(self, limits: Limits, crops: int) -> Tally: ...

    def accuracy(self) -> Accuracy: ...


@dataclass(frozen=True)
class Target:
    """A true target and what (reference, candidate) made of it; the other fields are those of `TargetChange`."""

    frame: str
    row: float
    column: float
    area: float
    size_class: str
    found: tuple[bool, bool]
    peaks: tuple[float, float]


@dataclass
class Changes:
    """Targets by size class, and those that only one of reference and candidate found; the first few in pictures."""

    sizes: tuple[str, ...]
    crops_left: int
    targets: dict[str, int] = field(init=False)
    listed: list[TargetChange] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.targets = dict.fromkeys(self.sizes, 0)

    def add(self, target: Target, pictures: Callable[[], Pictures]) -> None:
        self.targets[target.size_class] += 1
        before, after = target.found
        if before == after:
            return
        self.listed.append(
            TargetChange(
                kind="lost" if before else "gained",
                frame=target.frame,
                row=target.row,
                column=target.column,
                area=target.area,
                size_class=target.size_class,
                reference_peak=target.peaks[0],
                candidate_peak=target.peaks[1],
                crop=_crop(pictures(), target.row, target.column) if self.crops_left > 0 else None,
            )
        )
        self.crops_left -= 1

    def by_size(self) -> list[SizeCount]:
        kinds = [(change.size_class, change.kind) for change in self.listed]
        return [
            SizeCount(
                size_class=name,
                targets=self.targets[name],
                lost=kinds.count((name, "lost")),
                gained=kinds.count((name, "gained")),
            )
            for name in self.sizes
        ]


def _crop(pictures: Pictures, row: float, column: float) -> Crop:
    frame, *planes = pictures
    truth, reference, candidate = (neighbourhood_png(plane, row, column) for plane in planes)
    return Crop(
        frame=neighbourhood_png(frame, row, column, stretch=True),
        truth=truth,
        reference=reference,
        candidate=candidate,
    )


def require_finite(faults: int, name: str, frame: FrameRead) -> None:
    """Raise ArtifactError if the reference itself gives values that are not finite."""
    if faults:
        raise ArtifactError(f"'{name}' gives values that are not finite on frame '{frame.sample.id}'")


def change(own: A | None, base: A | None, figure: Callable[[A], float | None], scale: float = 1.0) -> float | None:
    """How much more of a figure the candidate has than the reference, times `scale`; None where one has none."""
    after = None if own is None else figure(own)
    before = None if base is None else figure(base)
    # Adding 0.0 turns -0.0 into 0.0: a loss of -0.0 reads as if something were wrong.
    return None if after is None or before is None else scale * (after - before) + 0.0


def held(own: A | None, base: A | None, figures: Held[A]) -> dict[str, float | None]:
    """For `checks`: the changes of figures with a limit, but for those that the reference itself does not have."""
    there = {name: entry for name, entry in figures.items() if base and entry[0](base) is not None}
    return {name: change(own, base, figure, scale) for name, (figure, scale) in there.items()}
