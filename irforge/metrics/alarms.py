"""False alarms per hour at a wanted probability of detection: what an operator behind a camera lives with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FRAME_RATE = 25.0
"""Frames a second where nobody says otherwise."""


@dataclass(frozen=True)
class AlarmCount:
    """False alarms on a number of frames; `interval` is the exact 95 % Poisson interval of `per_hour`."""

    frames: int
    alarms: int
    per_hour: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class AlarmRate:
    """False alarms at the highest score threshold that finds the share `pd` of the targets.

    threshold and reached_pd: that threshold (score > threshold) and the share it finds. target_free: on frames without
    a target, the figure to quote. every_frame: on all frames. What cannot be said is None, and `reason` says why.
    """

    pd: float
    frame_rate: float
    threshold: float | None
    reached_pd: float | None
    target_free: AlarmCount | None
    every_frame: AlarmCount | None
    reason: str = ""


def alarm_rate(
    scores: npt.NDArray[np.float32],
    hits: npt.NDArray[np.bool_],
    on_target_free: npt.NDArray[np.bool_],
    *,
    targets: int,
    frames: int,
    target_free_frames: int,
    pd: float,
    frame_rate: float,
) -> AlarmRate:
    """Lower the threshold until the share `pd` of the targets is found, and count what else is found.

    The interval takes alarms as independent events. Frames of one video repeat their alarms: there it is too narrow.

    Args:
        scores, hits, on_target_free: [n], each detection's score, whether it finds a target, and whether its frame has
            none.
        targets, frames, target_free_frames: how many there are.
        pd: the wanted share of targets found, in (0, 1].
        frame_rate: frames per second.

    Raises:
        ValueError: `pd` or `frame_rate` is out of range.
    """
    if not 0 < pd <= 1 or not 0 < frame_rate < math.inf:
        raise ValueError(f"pd {pd} must lie in (0, 1], frame rate {frame_rate} above 0")
    found = np.sort(scores[hits])[::-1]
    # Rounded, so that 0.9 of 10 targets is 9 and not 10.
    wanted = math.ceil(round(pd * targets, 9))
    if not targets or wanted > len(found):
        reason = f"Pd {pd:g} is out of reach: all detections together find {len(found)} of {targets} targets"
        return AlarmRate(pd, frame_rate, None, None, None, None, reason if targets else "there are no targets")
    lowest = found[wanted - 1]
    counted = scores >= lowest
    alarms = counted & ~hits
    return AlarmRate(
        pd,
        frame_rate,
        threshold_below(scores, lowest),
        int(np.count_nonzero(counted & hits)) / targets,
        alarm_count(int(np.count_nonzero(alarms & on_target_free)), target_free_frames, frame_rate),
        alarm_count(int(np.count_nonzero(alarms)), frames, frame_rate),
        "" if target_free_frames else "no frame is free of targets",
    )


def threshold_below(scores: npt.NDArray[np.float32], score: np.float32) -> float:
    """A threshold that keeps `score` and nothing lower: midway to the next lower score, or to 0, in float32."""
    lower = scores[scores < score]
    below = lower.max() if len(lower) else np.float32(0)
    middle = np.float32((np.float64(score) + np.float64(below)) / 2)
    # Between neighbouring float32 values the middle may round up to the score, which is kept only by something lower.
    return float(middle if middle < score else below)


def poisson_interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a Poisson mean (Garwood, Biometrika 1936): halves of chi-square quantiles."""
    tail = (1 - confidence) / 2
    return gamma_quantile(count, tail) if count else 0.0, gamma_quantile(count + 1, 1 - tail)


def gamma_quantile(shape: float, share: float) -> float:
    """The x at which the regularised lower incomplete gamma function P(shape, x) is `share`; `shape` at least 1.

    Half the quantile of a chi-square distribution with 2 * shape degrees of freedom.
    """
    low, high = 0.0, shape + 10 * math.sqrt(shape) + 10
    while regularised_gamma(shape, high) < share:
        high *= 2
    x = shape
    for _ in range(200):
        error = regularised_gamma(shape, x) - share
        low, high = (low, x) if error > 0 else (x, high)
        slope = math.exp((shape - 1) * math.log(x) - x - math.lgamma(shape))
        step = x - error / slope if slope > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - x) <= 1e-14 * x:
            break
        x = following
    return x


def regularised_gamma(shape: float, x: float) -> float:
    """P(shape, x), by its series or its continued fraction (Abramowitz & Stegun 6.5.29, 6.5.31)."""
    if x <= 0:
        return 0.0
    front = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:
        term = total = 1 / shape
        k = shape
        while term > total * 1e-17:
            k += 1
            term *= x / k
            total += term
        return front * total
    # The modified Lentz method.
    b = x + 1 - shape
    c, d = math.inf, 1 / b
    fraction = d
    k = 0
    while True:
        k += 1
        numerator = -k * (k - shape)
        b += 2
        d = 1 / (numerator * d + b)
        c = b + numerator / c
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            return 1 - front * fraction


def alarm_count(alarms: int, frames: int, frame_rate: float) -> AlarmCount | None:
    """What `alarms` on `frames` frames are in an hour of `frame_rate` frames a second; None without frames."""
    if not frames:
        return None
    per_alarm = frame_rate * 3600 / frames
    low, high = poisson_interval(alarms)
    return AlarmCount(frames, alarms, alarms * per_alarm, (low * per_alarm, high * per_alarm))
