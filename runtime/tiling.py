"""Frames larger than the model: cut into tiles that overlap, detected in one by one, and put together again.

A model's own resize would make a target of three pixels in a frame of 1920x1080 one that nobody finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np

from irforge.contract import InputSpec, PadToMultiple, Range, Tile
from irforge.detections import Detections
from irforge.errors import UsageError
from irforge.frames import Frame, Geometry, prepare
from irforge.frames.prepare import Tensor
from irforge.metrics.matching import box_centres, centre_distances
from irforge.runtime.detector import SessionDetector
from irforge.session import Array, StageTimes

TILES_A_RUN = 8
"""Where a graph takes any number: more fill a GPU no better, and an 1080p frame at once would take gigabytes."""

_SAME_TARGET = 3.0
_LARGEST_SIDE = 1 << 15


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of a frame lie, and which part of each counts.

    All have the size `tile` (height, width), in raster order; neighbours share at least `overlap` pixels. Next to a
    neighbour, a quarter of the overlap does not count: a network sees its own padding there. What is left still
    overlaps by half, so that every target of up to half the overlap lies whole within some tile's part.
    """

    height: int
    width: int
    tile: tuple[int, int]
    overlap: int

    @property
    def rows(self) -> list[int]:
        """The first row of each row of tiles."""
        return starts(self.height, self.tile[0], self.overlap)

    @property
    def columns(self) -> list[int]:
        """The first column of each column of tiles."""
        return starts(self.width, self.tile[1], self.overlap)

    @property
    def corners(self) -> list[tuple[int, int]]:
        """(top, left) of each tile, in frame pixels."""
        return list(product(self.rows, self.columns))

    @property
    def parts(self) -> list[tuple[slice, slice]]:
        """What counts of each tile, (rows, columns) in frame pixels."""
        vertical = _parts(self.rows, self.tile[0], self.height)
        return list(product(vertical, _parts(self.columns, self.tile[1], self.width)))


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side: as few as cover it with the overlap, evenly spread from end to end."""
    if length <= tile:
        return [0]
    count = -(-(length - tile) // (tile - overlap))
    return [round(k * (length - tile) / count) for k in range(count + 1)]


def _parts(firsts: list[int], tile: int, length: int) -> list[slice]:
    low, high = list(firsts), [first + tile for first in firsts]
    for k, (one, following) in enumerate(pairwise(firsts)):
        margin = (one + tile - following) // 4
        high[k] -= margin
        low[k + 1] += margin
    return [slice(a, min(b, length)) for a, b in zip(low, high, strict=True)]


class TiledDetector:
    """A detector over frames of any size, at their own resolution; each is cut into tiles of the model's size.

    Gain control is the whole frame's. Masks are stitched, by the higher probability where two tiles count, and then
    decoded as one. Boxes are those of all tiles, and what two of them see of one target is one detection, the one with
    the higher score: centres less than 3 pixels apart, or half the smaller box's side, paired one to one by distance,
    so that two targets side by side stay two. An object larger than half the overlap may be cut.

    Args:
        detector: closed along with this one.
        overlap: pixels that neighbouring tiles share, at least.
        batch: tiles in one run of a graph whose batch size is free.

    Raises:
        UsageError: the overlap is not smaller than half a tile, or a batch that the graph does not have.
    """

    batch = 1

    def __init__(self, detector: SessionDetector, overlap: int, batch: int | None = None) -> None:
        spec = detector.contract.input
        if overlap < 0 or 2 * overlap > min(spec.size):
            raise UsageError(
                f"tiles of {spec.size[1]}x{spec.size[0]} cannot overlap by {overlap} pixels",
                f"Give at most {min(spec.size) // 2}",
            )
        if detector.batch and batch not in (None, detector.batch):
            raise UsageError(f"'{detector.name}' takes batches of {detector.batch}, not of {batch}", "Leave it out")
        self.contract = detector.contract.with_input(height=spec.size[0], width=spec.size[1], fit=Tile(overlap=overlap))
        self.session = detector.session
        self.name = detector.name
        self.last_times = StageTimes()
        self._detector = detector
        self._overlap = overlap
        self._step = detector.batch or batch or TILES_A_RUN
        self._whole = _whole_frame(spec)
        self._shape: tuple[int, ...] = ()
        self._outputs: dict[str, Array] | None = None

    def __call__(self, frame: Frame, where: str = "frame") -> Detections:
        """As `SessionDetector.__call__`."""
        start = perf_counter()
        tensor, tiling = self.prepare(frame, where)
        prepared = perf_counter()
        self._outputs = self.infer(tensor, self._outputs if tensor.shape == self._shape else None)
        self._shape = tensor.shape
        inferred = perf_counter()
        found = self.decode(self._outputs, tiling, 0)
        decoded = perf_counter()
        found = self.rescored(found, frame, where)
        extra = self.extra(perf_counter() - decoded)
        self.last_times = StageTimes(prepared - start, inferred - prepared, decoded - inferred, extra)
        return found

    def prepare(self, frame: Frame, where: str = "frame") -> tuple[Tensor, Tiling]:
        """All tiles of a frame, [n, C, H, W], and where they lie.

        Raises:
            InputError: see `irforge.frames.prepare`.
        """
        tensor, _ = prepare(frame, self._whole, where)
        height, width = self.contract.input.size
        tiling = Tiling(frame.shape[0], frame.shape[1], (height, width), self._overlap)
        tiles = [tensor[:, :, top : top + height, left : left + width] for top, left in tiling.corners]
        stacked: Any = np.concatenate(tiles)
        return stacked, tiling

    def infer(self, tensor: Array, out: dict[str, Array] | None = None) -> dict[str, Array]:
        """The outputs of all tiles, in as few runs as the batch allows; the last one is filled up.

        Args:
            out: what an earlier call at this shape returned, to be written into.
        """
        total = -(-len(tensor) // self._step) * self._step
        if total > len(tensor):
            tensor = np.concatenate([tensor, np.repeat(tensor[-1:], total - len(tensor), axis=0)])
        for first in range(0, total, self._step):
            rows = slice(first, first + self._step)
            into = None if out is None else {name: array[rows] for name, array in out.items()}
            made = self._detector.infer(tensor[rows], into)
            if out is None:
                out = {name: np.empty((total, *array.shape[1:]), array.dtype) for name, array in made.items()}
                for name, array in made.items():
                    out[name][rows] = array
        assert out is not None
        return out

    def decode(self, outputs: Mapping[str, Array], tiling: Tiling, index: int) -> Detections:
        """What the tiles of one frame, from row `index` on, say of it."""
        if self.contract.output.kind == "mask":
            plane = stitch(outputs["mask"][index:, 0], tiling)
            size = plane.shape
            return self._detector.decode({"mask": plane[None, None]}, Geometry(*size, *size, *size), 0)
        found = []
        height, width = tiling.tile
        for number, (top, left) in enumerate(tiling.corners):
            # A frame smaller than a tile is padded to it.
            seen = min(height, tiling.height - top), min(width, tiling.width - left)
            found.append(self._detector.decode(outputs, Geometry(*seen, height, width, *seen), index + number))
        return merge(found, tiling)

    def rescored(self, found: Detections, frame: Frame, where: str) -> Detections:
        """As `SessionDetector.rescored`, on the whole frame."""
        return self._detector.rescored(found, frame, where)

    def extra(self, rescore_seconds: float) -> dict[str, float]:
        """`StageTimes.extra` of the last step."""
        return self._detector.extra(rescore_seconds)

    def close(self) -> None:
        self._detector.close()

    def __enter__(self) -> TiledDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self._detector!r} in tiles that overlap by {self._overlap} pixels"


def stitch(planes: Array, tiling: Tiling) -> Array:
    """Probabilities of tiles, [n, H, W] -> those of the frame, [height, width]; the highest where several count."""
    whole: Array = np.zeros((tiling.height, tiling.width), planes.dtype)
    for plane, (top, left), (rows, columns) in zip(planes, tiling.corners, tiling.parts, strict=False):
        part = plane[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        np.maximum(whole[rows, columns], part, out=whole[rows, columns])
    return whole


def merge(found: Sequence[Detections], tiling: Tiling) -> Detections:
    """Boxes of each tile, in its pixels -> those of the frame, each target once."""
    shifts = [np.array((left, top, left, top), np.float32) for top, left in tiling.corners]
    boxes = np.concatenate([one.boxes + shift for one, shift in zip(found, shifts, strict=True)])
    tiles = np.repeat(np.arange(len(found)), [len(one) for one in found])
    scores, classes = (np.concatenate([getattr(one, name) for one in found]) for name in ("scores", "classes"))
    centres = box_centres(boxes)
    parts = np.array([(c.start, r.start, c.stop, r.stop) for r, c in tiling.parts])[tiles]
    counting = np.flatnonzero(((centres >= parts[:, :2]) & (centres <= parts[:, 2:])).all(axis=1))
    order = counting[np.argsort(-scores[counting], kind="stable")]
    everything = Detections(boxes[order], scores[order], classes[order])
    return everything.take(_first_of_each(everything, tiles[order]))


def _first_of_each(found: Detections, tiles: Array) -> list[int]:
    """Rows of `found`, best score first, without those that another tile sees better.

    Pairs of different tiles are joined by ascending distance, and no group takes two of one tile.
    """
    sides = np.sqrt(np.maximum((found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1), 0))
    apart = centre_distances(found.boxes, found.boxes)
    allowed = apart < np.maximum(_SAME_TARGET, np.minimum(sides[:, None], sides) / 2)
    allowed &= (found.classes[:, None] == found.classes) & (tiles[:, None] != tiles)
    ones, others = np.nonzero(np.triu(allowed))
    groups = [{row} for row in range(len(found))]
    for k in np.argsort(apart[ones, others], kind="stable"):
        one, other = groups[ones[k]], groups[others[k]]
        if one is not other and not {tiles[row] for row in one} & {tiles[row] for row in other}:
            one |= other
            for row in other:
                groups[row] = one
    return sorted({min(group) for group in groups})


def _whole_frame(spec: InputSpec) -> InputSpec:
    """The input of a whole frame at its own size, padded to at least one tile."""
    height, width = (Range(min=side, opt=side, max=_LARGEST_SIDE, multiple=1) for side in spec.size)
    fields = {name: getattr(spec, name) for name in InputSpec.model_fields}
    return InputSpec(**fields | {"height": height, "width": width, "fit": PadToMultiple(multiple=1)})
