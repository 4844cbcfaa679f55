"""IPI and NIPPS: the patches of a frame as the columns of a matrix, split into a background of low rank and targets.

What a frame repeats goes into the background; targets are the few pixels that do not fit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from irforge.train.detectors.classical.method import HostMethod, Plane
from irforge.train.detectors.classical.patches import Patches

Solver = Literal["apg", "ialm"]

RANK_ONE = 1e-7


class Split(NamedTuple):
    """background, targets: two matrices that add up to the data, but for the solver's tolerance."""

    background: Plane
    targets: Plane
    iterations: int


class Ipi(HostMethod):
    """Infrared patch-image model (Gao et al., TIP 2013): least nuclear norm of the background + lambda |targets|_1,
    each pixel the median of its patches.

    Args:
        patch: side of a patch in pixels. step: from one patch to the next.
        solver: `apg`, the authors' accelerated proximal gradient with lambda = weight / sqrt(longer side of the frame),
            or `ialm`, the inexact augmented Lagrangian that later work takes in its place, with
            lambda = weight / sqrt(smaller side of the patch matrix).
        weight: see `solver`.
    """

    def __init__(self, patch: int = 50, step: int = 10, solver: Solver = "apg", weight: float = 1.0) -> None:
        super().__init__()
        if solver not in get_args(Solver):
            raise ValueError(f"there is no solver '{solver}': {', '.join(get_args(Solver))}")
        Patches((patch, patch), patch, step)
        self.patch, self.step, self.solver, self.weight = patch, step, solver, weight

    def targets(self, levels: Plane) -> Plane:
        patches = Patches((levels.shape[0], levels.shape[1]), self.patch, self.step)
        stack = patches.gather(levels)
        data = stack.reshape(-1, len(patches))
        if self.solver == "apg":
            found = accelerated_gradient(data, self.weight / max(levels.shape) ** 0.5).targets
        else:
            found = augmented_lagrangian(data, self.weight / min(data.shape) ** 0.5).targets
        return patches.median(found.reshape(stack.shape))


class Nipps(HostMethod):
    """Non-negative IPI with a partial sum of singular values (Dai et al., Infrared Physics & Technology 2017).

    The largest singular values of the background cost nothing, and targets are bright only; each pixel is the mean of
    its patches.

    Args:
        patch: side of a patch in pixels. step: from one patch to the next.
        weight: lambda = weight / sqrt(smaller side of the patch matrix).
        energy: singular values from this share of the largest one on are free.
    """

    def __init__(self, patch: int = 50, step: int = 10, weight: float = 2.0, energy: float = 0.005) -> None:
        super().__init__()
        Patches((patch, patch), patch, step)
        self.patch, self.step, self.weight, self.energy = patch, step, weight, energy

    def targets(self, levels: Plane) -> Plane:
        patches = Patches((levels.shape[0], levels.shape[1]), self.patch, self.step)
        stack = patches.gather(levels)
        data = stack.reshape(-1, len(patches))
        free = free_values(data, self.energy)
        found = augmented_lagrangian(data, self.weight / min(data.shape) ** 0.5, free, signed=False)
        return patches.mean(found.targets.reshape(stack.shape))


def free_values(data: Plane, energy: float) -> int:
    """How many singular values reach `energy` times the largest one."""
    values = singular_values(data)
    return int(np.count_nonzero(values >= energy * values[0]))


def augmented_lagrangian(
    data: Plane, weight: float, free: int = 0, signed: bool = True, tolerance: float = 1e-7, limit: int = 500
) -> Split:
    """min sum of the background's singular values behind the first `free` + weight |targets|_1, by the inexact
    augmented Lagrangian (Lin et al., arXiv:1009.5055).

    Args:
        signed: False keeps targets from going below 0.
        tolerance: of |data - background - targets| / |data|, Frobenius norms. limit: of iterations.
    """
    background, targets = np.zeros_like(data), np.zeros_like(data)
    largest = singular_values(data)[0]
    if not largest:
        return Split(background, targets, 0)
    size = np.linalg.norm(data)
    dual = data / max(largest, np.abs(data).max() / weight)
    mu = 1.25 / largest
    highest = 1e7 * mu
    iterations = 0
    while iterations < limit:
        iterations += 1
        pulled = data + dual / mu
        targets = soft(pulled - background, weight / mu)
        if not signed:
            np.maximum(targets, 0, out=targets)
        background, _ = shrink(pulled - targets, 1 / mu, free)
        gap = data - background - targets
        dual += mu * gap
        mu = min(1.5 * mu, highest)
        if np.linalg.norm(gap) < tolerance * size:
            break
    return Split(background, targets, iterations)


def accelerated_gradient(data: Plane, weight: float, tolerance: float = 1e-6, limit: int = 500) -> Split:
    """min |background|_* + weight |targets|_1 by accelerated proximal gradient (Toh and Yun, 2010; Gao et al., 2013).

    It ends as the authors of IPI let it: at `tolerance`, or when for ten iterations the rank stays and the number of
    target pixels hardly moves, or when the rank exceeds three tenths of the full one.
    """
    background = before = np.zeros_like(data)
    targets = targets_before = np.zeros_like(data)
    values = singular_values(data)
    if len(values) == 1 or values[1] <= RANK_ONE * values[0]:
        # Steps begin as long as the second singular value: there is none to take on a plain frame.
        return Split(data.copy(), targets, 0)
    mu, lowest = values[1], 0.005 * values[min(3, len(values) - 1)]
    t = t_before = 1.0
    rank = count = steady = iterations = 0
    while iterations < limit:
        iterations += 1
        momentum = (t_before - 1) / t
        ahead = background + momentum * (background - before)
        targets_ahead = targets + momentum * (targets - targets_before)
        # The gradient's Lipschitz constant is 2.
        half_gap = (ahead + targets_ahead - data) / 2
        before, targets_before, rank_before, count_before = background, targets, rank, count
        background, rank = shrink(ahead - half_gap, mu / 2)
        targets = soft(targets_ahead - half_gap, weight * mu / 2)
        count = int(np.count_nonzero(targets))
        t_before, t = t, (1 + (1 + 4 * t * t) ** 0.5) / 2
        mu = max(0.9 * mu, lowest)
        gap = background + targets - ahead - targets_ahead
        left = np.hypot(
            np.linalg.norm(2 * (ahead - background) + gap), np.linalg.norm(2 * (targets_ahead - targets) + gap)
        )
        size = np.hypot(np.linalg.norm(background), np.linalg.norm(targets))
        steady = steady + 1 if rank == rank_before and abs(count - count_before) < 20 else 0
        if left <= 2 * tolerance * max(1.0, size) or steady > 10 or rank > 0.3 * min(data.shape):
            break
    return Split(background, targets, iterations)


def soft(values: Plane, by: float) -> Plane:
    """Values moved towards 0 by `by`, and no further."""
    moved: Plane = np.sign(values) * np.maximum(np.abs(values) - by, 0)
    return moved


def singular_values(data: Plane) -> Plane:
    """All of them, descending; those below 1e-8 of the largest one are not exact."""
    return np.sqrt(np.maximum(np.linalg.eigvalsh(_gram(data))[::-1], 0))


def shrink(data: Plane, by: float, free: int = 0) -> tuple[Plane, int]:
    """(data with its singular values moved towards 0 by `by`, but for the `free` largest ones; its rank then).

    Through the eigenvectors of the smaller Gram matrix, in half the time of a singular value decomposition. Values
    below 1e-8 of the largest one drown in rounding, where every solver here has long set them to 0.
    """
    squares, vectors = np.linalg.eigh(_gram(data))
    values = np.sqrt(np.maximum(squares, 0))
    shrunk = np.maximum(values - by, 0)
    if free:
        shrunk[-free:] = values[-free:]
    kept = shrunk > 0
    basis = vectors[:, kept]
    scaled = basis * (shrunk[kept] / values[kept])
    tall = data.shape[0] >= data.shape[1]
    return (data @ scaled) @ basis.T if tall else scaled @ (basis.T @ data), int(np.count_nonzero(kept))


def _gram(data: Plane) -> Plane:
    product: Plane = data.T @ data if data.shape[0] >= data.shape[1] else data @ data.T
    return product
