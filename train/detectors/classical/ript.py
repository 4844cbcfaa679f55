"""RIPT: the patches of a frame as a tensor, whose background is of low rank along each of its three axes."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from irforge.train.detectors.classical.lowrank import shrink
from irforge.train.detectors.classical.method import HostMethod, Plane
from irforge.train.detectors.classical.patches import Patches

TOP = 255.0


class TensorSplit(NamedTuple):
    """targets: [side, side, n], not below 0."""

    targets: Plane
    iterations: int


class Ript(HostMethod):
    """Reweighted infrared patch-tensor model (Dai and Wu, JSTARS 2017); each pixel is the mean of its patches.

    Args:
        patch: side of a patch in pixels. step: from one patch to the next.
        weight: lambda = weight / sqrt(smallest side of the patch tensor).
        structure: how much edges, by their structure tensor, count against a pixel.
        offset: levels of 8 bits added to a target before its weight is divided by it.
    """

    def __init__(
        self, patch: int = 30, step: int = 10, weight: float = 0.7, structure: float = 1.0, offset: float = 0.01
    ) -> None:
        super().__init__()
        Patches((patch, patch), patch, step)
        if offset <= 0:
            raise ValueError(f"the offset is above 0, not {offset:g}")
        self.patch, self.step, self.weight, self.structure, self.offset = patch, step, weight, structure, offset

    def targets(self, levels: Plane) -> Plane:
        # The published offset belongs to levels of 8 bits, on which the method depends.
        frame = TOP * levels
        patches = Patches((frame.shape[0], frame.shape[1]), self.patch, self.step)
        data = patches.gather(frame)
        edges = np.exp(self.structure * patches.gather(edgeness(frame)))
        found = reweighted_split(data, self.weight / min(data.shape) ** 0.5, edges, self.offset)
        return patches.mean(found.targets) / TOP


def edgeness(frame: Plane) -> Plane:
    """0..1, H x W: the difference of the eigenvalues of the structure tensor, stretched over the frame."""

    def smooth(plane: Plane, sigma: float) -> Plane:
        blurred: Plane = cv2.GaussianBlur(plane, (3, 3), sigma, borderType=cv2.BORDER_REPLICATE)
        return blurred

    slopes = np.gradient(smooth(frame, 1.2))
    down, right = slopes[0], slopes[1]
    xx, xy, yy = smooth(right**2, 2.0), smooth(right * down, 2.0), smooth(down**2, 2.0)
    difference = np.hypot(xx - yy, 2 * xy)
    low, high = difference.min(), difference.max()
    return (difference - low) / (high - low) if high > low else np.zeros_like(difference)


def reweighted_split(
    data: Plane, weight: float, edges: Plane, offset: float, tolerance: float = 1e-7, limit: int = 100
) -> TensorSplit:
    """min sum over the axes of the background's nuclear norms + weight |edges / (|targets| + offset) targets|_1.

    By alternating directions; it ends at `tolerance`, or when the number of target pixels stays.
    """
    targets = np.zeros_like(data)
    duals = [np.zeros_like(data) for _ in range(3)]
    factors = edges
    mu = 5 * float(data.std(ddof=1))
    size = np.linalg.norm(data)
    count, iterations = -1, 0
    while mu and iterations < limit:
        iterations += 1
        pulled = [data + mu * dual for dual in duals]
        backgrounds = [_shrink_along(axis, pulled[axis] - targets, mu) for axis in range(3)]
        rest = sum(one - background for one, background in zip(pulled, backgrounds, strict=True)) / 3
        targets = np.maximum(rest - factors * (mu * weight / 3), 0)
        factors = edges / (targets + offset)
        for dual, background in zip(duals, backgrounds, strict=True):
            dual -= (background + targets - data) / mu
        mu /= 1.5
        gap = np.linalg.norm(data - sum(backgrounds) / 3 - targets)
        before, count = count, int(np.count_nonzero(targets))
        if gap < tolerance * size or count == before:
            break
    return TensorSplit(targets, iterations)


def _shrink_along(axis: int, tensor: Plane, by: float) -> Plane:
    first = np.moveaxis(tensor, axis, 0)
    shrunk, _ = shrink(first.reshape(len(first), -1), by)
    return np.moveaxis(shrunk.reshape(first.shape), 0, axis)
