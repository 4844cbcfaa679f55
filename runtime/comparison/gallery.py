"""The frames on which the contestants disagree most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from irforge.datasets import Sample
from irforge.frames import to_gray
from irforge.metrics import BoxMatch
from irforge.metrics.matching import box_centres
from irforge.runtime.comparison.schema import Box, Disagreement, Seen
from irforge.runtime.report.pictures import neighbourhood_png

RADIUS = 32
"""Half the side of a picture, in pixels."""


def disagreement(matches: Sequence[BoxMatch]) -> tuple[float, npt.NDArray[np.float64]]:
    """How much contestants disagree on one frame, and how much about each of its true targets.

    A target that a share p of the contestants finds counts 4 p (1 - p), the variance of found or missed, 1 where half
    of them find it. False detections count once a frame, however many: with the share p of the contestants that have
    any.

    Args:
        matches: of the contestants, all with the same truth.
    """
    found = np.zeros((len(matches), len(matches[0].true)), np.bool_)
    for row, match in zip(found, matches, strict=True):
        row[[i for i, _ in match.pairs]] = True
    about_targets = _variance(found.mean(axis=0))
    about_alarms = _variance(np.mean([bool(match.extra) for match in matches]))
    return float(about_targets.sum() + about_alarms), about_targets


def gallery(
    samples: Sequence[Sample], matches: Sequence[Sequence[BoxMatch]], names: Sequence[str], most: int
) -> list[Disagreement]:
    """At most `most` frames with the largest disagreement; none where all agree.

    Args:
        matches: of each contestant, of all frames.
        names: of the contestants.
    """
    by_frame = list(zip(*matches, strict=True))
    amounts = [disagreement(frame)[0] for frame in by_frame]
    order = sorted(range(len(samples)), key=lambda i: -amounts[i])
    return [_row(samples[i], by_frame[i], names) for i in order[:most] if amounts[i] > 0]


def _row(sample: Sample, matches: Sequence[BoxMatch], names: Sequence[str]) -> Disagreement:
    amount, about_targets = disagreement(matches)
    centre = _place(matches, about_targets) - 0.5
    column, row = centre.tolist()
    corner = np.tile(np.round(centre) - RADIUS, 2)
    truth = matches[0].true

    def here(boxes: npt.NDArray[np.float32]) -> list[Box]:
        return [tuple(box) for box in (boxes - corner).round(2).tolist()]

    return Disagreement(
        frame=sample.id,
        amount=amount,
        targets=len(truth),
        row=row,
        column=column,
        picture=neighbourhood_png(to_gray(sample.frame()), row, column, radius=RADIUS, stretch=True),
        truth=here(truth.boxes),
        seen=[
            Seen(
                name=name,
                found=[i for i, _ in match.pairs],
                boxes=here(match.found.boxes),
                right=[j in {used for _, used in match.pairs} for j in range(len(match.found))],
                false=len(match.extra),
            )
            for name, match in zip(names, matches, strict=True)
        ],
    )


def _place(matches: Sequence[BoxMatch], about_targets: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The target that is most at issue, (x, y); where none is, the first false detection of who has fewest of them."""
    place: npt.NDArray[np.float64]
    if about_targets.size and about_targets.max() > 0:
        place = box_centres(matches[0].true.boxes)[int(about_targets.argmax())]
        return place
    fewest = min((match for match in matches if match.extra), key=lambda match: len(match.extra))
    place = box_centres(fewest.found.boxes)[fewest.extra[0]]
    return place


def _variance(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
    p = np.asarray(share, np.float64)
    return 4 * p * (1 - p)
