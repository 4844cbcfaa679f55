"""FKRW: a facet filter finds candidates, and random walks from them tell targets from clutter."""

from __future__ import annotations

from functools import reduce

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from irforge.train.detectors.classical.contrast import AROUND, LEAST_LEVEL, extended, window
from irforge.train.detectors.classical.method import Method, Plane, plane_by_plane, refuse_export

FACET = (
    (-4, -1, 0, -1, -4),
    (-1, 2, 3, 2, -1),
    (0, 3, 4, 3, 0),
    (-1, 2, 3, 2, -1),
    (-4, -1, 0, -1, -4),
)
LEAST_WEIGHT = 1e-5
LEAST_SHARE = 1e-9
DISK = (np.hypot(*np.mgrid[-2:3, -2:3]) <= 2).astype(np.uint8)

Mask = npt.NDArray[np.bool_]


class Fkrw(Method):
    """Facet kernel and random walker (Qin et al., TGRS 2019).

    Levels float32 N x 1 x H x W, 1 the brightest possible one -> the response, the same shape.

    Args:
        deviations: a pixel whose facet response exceeds the frame's mean by so many standard deviations is a candidate.
        power: of the contrast between a target and the ring around it.
        beta: how fast a walker's steps get unlikely with the difference of levels.
        side: of the patch that a walk stays in, in pixels, odd.
        walk: False leaves the walks out: the response is the facet filter's, which exports.
    """

    floor = 1e-4

    facet: Tensor

    def __init__(
        self, deviations: float = 4.0, power: float = 6.0, beta: float = 200.0, side: int = 11, walk: bool = True
    ) -> None:
        super().__init__()
        if side < 5 or side % 2 == 0:
            raise ValueError(f"the side of a patch is odd and at least 5, not {side}")
        self.deviations, self.power, self.beta, self.side, self.walk = deviations, power, beta, side, walk
        self.register_buffer("facet", torch.tensor(FACET, dtype=torch.float32)[None, None], persistent=False)

    def forward(self, levels: Tensor) -> Tensor:
        smooth = smoothed(levels)
        response = F.conv2d(F.pad(smooth, (2, 2, 2, 2), mode="reflect"), self.facet)
        if not self.walk:
            return response
        refuse_export("FKRW with its random walks")
        return response * plane_by_plane(self.walked, smooth, response)

    def walked(self, frame: Plane, response: Plane) -> Plane:
        """H x W: for each pixel of a target that a walk found the contrast of the walk, 0 elsewhere.

        Candidates come by descending level, and those that lie in a target already found are passed over.
        """
        reach = self.side // 2
        around = np.pad(frame, reach, mode="edge")
        # Wide enough that a target may be written without regard to the border.
        contrast, seen = np.zeros_like(around), np.zeros(around.shape, np.bool_)
        rows, columns = np.nonzero(response > response.mean() + self.deviations * response.std(ddof=1))
        order = np.argsort(-frame[rows, columns], kind="stable")
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            if seen[row + reach, column + reach]:
                continue
            area = slice(row, row + self.side), slice(column, column + self.side)
            patch = around[area]
            probability = walk_probability(patch, self.beta)
            target = probability > 0.5
            seen[area] |= target
            contrast[area][target] = walk_contrast(patch, probability, target, self.power)
        return contrast[reach:-reach, reach:-reach]


def smoothed(levels: Tensor) -> Tensor:
    """Single pixels brighter than all their neighbours brought down to these, then means of 2 x 2 pixels."""
    beyond = extended(levels, 1)
    brightest = reduce(torch.maximum, [window(beyond, 1, y, x) for y, x in AROUND])
    return F.avg_pool2d(F.pad(torch.minimum(levels, brightest), (0, 1, 0, 1), mode="replicate"), 2, stride=1)


def walk_probability(patch: Plane, beta: float) -> Plane:
    """The probability that a walk from each pixel reaches the middle of the patch before its border (Grady, PAMI 2006).

    Steps go to the four neighbours, in proportion to exp(-beta |difference of levels|) + 1e-5.

    Args:
        patch: side x side, side odd.
    """
    side = len(patch)
    cells = np.arange(side * side).reshape(side, side)
    start = np.concatenate([cells[:, :-1].ravel(), cells[:-1].ravel()])
    stop = np.concatenate([cells[:, 1:].ravel(), cells[1:].ravel()])
    flat = patch.ravel()
    weight = np.exp(-beta * np.abs(flat[start] - flat[stop])) + LEAST_WEIGHT
    laplacian = np.zeros((side * side, side * side))
    laplacian[start, stop] = laplacian[stop, start] = -weight
    np.fill_diagonal(laplacian, -laplacian.sum(axis=1))
    middle = side * side // 2
    inner = cells[1:-1, 1:-1].ravel()
    free = inner[inner != middle]
    probability = np.zeros(side * side)
    probability[middle] = 1
    probability[free] = np.linalg.solve(laplacian[np.ix_(free, free)], -laplacian[free, middle])
    return probability.reshape(side, side)


def walk_contrast(patch: Plane, probability: Plane, target: Mask, power: float) -> float:
    """How much a target stands out: its probabilities over those around it, times the contrast of its levels.

    The latter is (mean level of the target / highest level of the ring around it) ^ `power`. 0 for a target of one
    pixel, and for one that is not brighter than its ring.
    """
    others = target.copy()
    others[len(target) // 2, len(target) // 2] = False
    near = cv2.dilate(target.astype(np.uint8), DISK)
    ring = cv2.dilate(near, DISK) > near
    if not others.any() or not ring.any():
        return 0.0
    level, rival = float(patch[target].mean()), float(patch[ring].max())
    if rival >= level:
        return 0.0
    inside, outside = float(probability[others].mean()), float(probability[~target].mean())
    return inside / max(outside, LEAST_SHARE) * (level / max(rival, LEAST_LEVEL)) ** power
