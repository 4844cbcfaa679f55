"""What thermal cameras do to their pictures, undone or recognised before a detector looks.

A filter takes a `SourceFrame` and gives one; it remembers what it saw, so each stream needs filters of its own.
`Filtered` puts them behind a source, and is a source itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from irforge.contract import Contract, MinMaxGain, NoGain, PercentileGain
from irforge.errors import InputError, UsageError
from irforge.frames import Frame, to_gray
from irforge.frames.levels import percentile_levels, stretch
from irforge.runtime.shutter import Shutter
from irforge.runtime.sources import Source, SourceFrame

__all__ = [
    "ColumnNoise",
    "CutRows",
    "DeadPixels",
    "Filter",
    "Filtered",
    "InvertPolarity",
    "Shutter",
    "SmoothGain",
    "eight_bit_contract",
    "learn_dead_pixels",
]

Filter = Callable[[SourceFrame], SourceFrame]
Floats = npt.NDArray[np.float32]

# Within so many standard deviations lie 80 % of a normal distribution.
_SIGMAS_AT_80 = 1.2816


class Filtered(Source):
    """A source whose frames pass through filters, in the order given."""

    def __init__(self, source: Source, filters: Sequence[Filter]) -> None:
        self._source = source
        self._filters = list(filters)
        self.name, self.frames, self.fps, self.live = source.name, source.frames, source.fps, source.live
        source.notify = lambda line: self.notify(line)

    def records(self) -> Iterator[SourceFrame]:
        for record in self._source.records():
            for apply in self._filters:
                record = apply(record)
            yield record

    def stop(self) -> None:
        self._source.stop()

    def close(self) -> None:
        self._source.close()


@dataclass(frozen=True)
class CutRows:
    """Telemetry is no picture: cut rows off at the top and the bottom.

    Raises:
        InputError: nothing would be left of a frame.
    """

    top: int = 0
    bottom: int = 0

    def __call__(self, record: SourceFrame) -> SourceFrame:
        height = record.frame.shape[0]
        if self.top + self.bottom >= height:
            raise InputError(
                f"'{record.id}' has {height} rows, of which {self.top + self.bottom} would be cut as telemetry",
                "Check --telemetry",
            )
        return replace(record, frame=record.frame[self.top : height - self.bottom])


class DeadPixels:
    """Replaces dead pixels by the median of live neighbours, from the smallest square around them that has three.

    Args:
        dead: bool [H, W].

    Raises:
        InputError: the map leaves some pixel without live neighbours within 3 pixels; or, on a frame, has another size.
    """

    _REACH, _ENOUGH = 3, 3

    def __init__(self, dead: npt.NDArray[np.bool_]) -> None:
        self._shape = dead.shape
        width = dead.shape[1]
        self._at = np.flatnonzero(dead)
        # Row k names the live neighbours of dead pixel k; the rest of the row repeats the pixel itself, masked out.
        side = (2 * self._REACH + 1) ** 2
        self._near = np.tile(self._at[:, None], (1, side))
        self._used = np.zeros(self._near.shape, bool)
        for k, place in enumerate(self._at):
            y, x = divmod(int(place), width)
            for reach in range(1, self._REACH + 1):
                rows = slice(max(y - reach, 0), y + reach + 1)
                columns = slice(max(x - reach, 0), x + reach + 1)
                ys, xs = np.nonzero(~dead[rows, columns])
                if len(ys) >= self._ENOUGH:
                    break
            else:
                raise InputError(
                    f"the dead-pixel map has no three live pixels within {self._REACH} of ({x}, {y})",
                    "Mend the map: so large a hole cannot be filled from around it",
                )
            self._near[k, : len(ys)] = (ys + rows.start) * width + xs + columns.start
            self._used[k, : len(ys)] = True

    def __len__(self) -> int:
        return len(self._at)

    def __call__(self, record: SourceFrame) -> SourceFrame:
        frame = record.frame
        if frame.shape[:2] != self._shape:
            raise InputError(
                f"the dead-pixel map is {self._shape[1]}x{self._shape[0]}, '{record.id}' {frame.shape[1]}x"
                f"{frame.shape[0]}",
                "Give the map of this camera, of the picture without telemetry rows",
            )
        mended = frame.copy()
        planes = mended.reshape(self._shape[0] * self._shape[1], -1)
        for plane in planes.T if len(self) else ():
            levels = np.where(self._used, plane[self._near].astype(np.float32), np.nan)
            plane[self._at] = np.rint(np.nanmedian(levels, axis=1)).astype(frame.dtype)
        return replace(record, frame=mended)


def learn_dead_pixels(frames: Iterable[Frame], tolerance: float = 8.0) -> npt.NDArray[np.bool_]:
    """The dead pixels of a camera that looks at a flat scene (its lens cap, a wall out of focus): bool [H, W].

    A pixel is dead where its mean over time differs from the median of the 5 x 5 around it by more than `tolerance`
    standard deviations of all such differences; where its level never moves although half of the others move; or
    where it moves `tolerance` times as much as they do.

    Raises:
        InputError: fewer than two frames, of several sizes, or more than 2 % of the pixels look dead: no flat scene.
    """
    count = 0
    total = squares = np.zeros((0, 0))
    for frame in frames:
        levels = to_gray(frame).astype(np.float64)
        if count == 0:
            total, squares = np.zeros_like(levels), np.zeros_like(levels)
        elif levels.shape != total.shape:
            raise InputError("the frames of the flat scene differ in size", "Give frames of one camera")
        count += 1
        total += levels
        squares += levels**2
    if count < 2:
        raise InputError(f"{count} frame of a flat scene says nothing about pixels that stand still", "Give 20 or more")
    mean = total / count
    moves = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # Continued straight on, so that a slope at the border is no difference.
    padded = np.pad(mean, 2, mode="reflect", reflect_type="odd").astype(np.float32)
    residual = mean - cv2.medianBlur(padded, 5)[2:-2, 2:-2]
    # Not from the median difference: on a slope a pixel often is the median of those around it. At least the rounding
    # of a level: a noiseless scene must not condemn pixels for a fraction of one.
    sigma = max(float(np.percentile(np.abs(residual), 80)) / _SIGMAS_AT_80, 0.5)
    usual = float(np.median(moves))
    dead: npt.NDArray[np.bool_] = np.abs(residual) > tolerance * sigma
    if usual > 0:
        dead |= (moves == 0) | (moves > tolerance * usual)
    if dead.mean() > 0.02:
        raise InputError(
            f"{dead.mean():.0%} of the pixels look dead: the scene is not flat", "Put the lens cap on and record again"
        )
    return dead


class ColumnNoise:
    """Takes away offsets of whole columns, which the readout of uncooled sensors adds.

    A column's offset is its median minus the median of the 17 columns around it, and of that the exponential mean over
    frames: targets move no median, edges are kept by the second, and what the scene adds fades while it moves.
    """

    def __init__(self, weight: float = 0.2, reach: int = 8) -> None:
        self._weight = weight
        self._reach = reach
        self._offsets: Floats = np.empty(0, np.float32)

    def __call__(self, record: SourceFrame) -> SourceFrame:
        frame = record.frame
        if not record.shutter or not self._fits(frame):
            self._learn(frame)
        limit = np.iinfo(frame.dtype).max
        offsets = self._offsets if frame.ndim == 2 else self._offsets[:, None]
        cleaned: Frame = np.clip(np.rint(frame - offsets), 0, limit).astype(frame.dtype)
        return replace(record, frame=cleaned)

    def _fits(self, frame: Frame) -> bool:
        return bool(self._offsets.size == frame.shape[1])

    def _learn(self, frame: Frame) -> None:
        columns = np.median(to_gray(frame), axis=0).astype(np.float32)
        padded = np.pad(columns, self._reach, mode="reflect")
        around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * self._reach + 1), axis=1)
        found = (columns - around).astype(np.float32)
        weight = np.float32(self._weight)
        self._offsets = self._offsets + weight * (found - self._offsets) if self._fits(frame) else found


@dataclass(frozen=True)
class InvertPolarity:
    """Black-hot to white-hot and back, for levels of `bit_depth` bits."""

    bit_depth: int

    def __call__(self, record: SourceFrame) -> SourceFrame:
        if self.bit_depth > 8 * record.frame.dtype.itemsize:
            raise InputError(
                f"'{record.id}' holds {record.frame.dtype} levels, which are not {self.bit_depth}-bit counts",
                "Record frames of that depth, or leave --invert out",
            )
        highest = (1 << self.bit_depth) - 1
        level = int(record.frame.max())
        if level > highest:
            raise InputError(f"'{record.id}' has level {level}, above {self.bit_depth} bits", "Check the bit depth")
        return replace(record, frame=np.subtract(record.frame.dtype.type(highest), record.frame))


class SmoothGain:
    """A contract's gain control with its two levels smoothed over time, so that a hot object which enters does not
    change every other pixel at once. Frames become 8-bit gray; the detector then goes by `eight_bit_contract`.

    The levels follow those of each frame by an exponential mean with `weight`; closed shutters do not count.

    Raises:
        UsageError: the contract's gain control does not map deep frames between two levels of each frame.
    """

    def __init__(self, contract: Contract, weight: float = 0.05) -> None:
        spec = contract.input
        gain = PercentileGain(low=0, high=100) if isinstance(spec.gain, MinMaxGain) else spec.gain
        if spec.bit_depth == 8 or spec.door != "uint8" or not isinstance(gain, PercentileGain):
            raise UsageError(
                f"this detector takes {spec.bit_depth}-bit frames by gain control '{spec.gain.kind}'"
                f"{' in its graph' if spec.door != 'uint8' else ''}: there is nothing to smooth",
                "Leave --smooth-gain out; it is for frames deeper than 8 bits with gain 'min-max' or 'percentile'",
            )
        self._gain, self._depth, self._colour = gain, spec.bit_depth, spec.colour
        self._weight = weight
        self._levels: npt.NDArray[np.float64] | None = None

    def __call__(self, record: SourceFrame) -> SourceFrame:
        gray = to_gray(record.frame, self._colour, f"'{record.id}'")
        if int(gray.max()) >> self._depth:
            raise InputError(
                f"'{record.id}' has level {int(gray.max())}, above the {self._depth} bits of the contract",
                "Give raw counts of that depth (not scaled to 16 bits)",
            )
        if self._levels is None or not record.shutter:
            found = np.array(percentile_levels(gray, self._gain.low, self._gain.high, self._depth), np.float64)
            self._levels = found if self._levels is None else self._levels + self._weight * (found - self._levels)
        low, high = (int(level) for level in np.rint(self._levels))
        return replace(record, frame=stretch(gray, low, high, self._depth))


def eight_bit_contract(contract: Contract) -> Contract:
    """The contract of a detector whose gain control has been applied already."""
    spec = contract.input.model_copy(update={"bit_depth": 8, "gain": NoGain()})
    return contract.model_copy(update={"input": spec})
