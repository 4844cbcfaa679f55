"""Frames larger than a model: where tiles of the model's size lie in them, and how what was found in each becomes one.

A model's own resize would make a target of three pixels in a frame of 1920x1080 one that nobody finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract, InputSpec, PadToMultiple, Range, Tile
from irforge.detections import Detections
from irforge.errors import UsageError
from irforge.frames import Geometry
from irforge.metrics.matching import box_centres, centre_distances

Array = npt.NDArray[np.generic]

_SAME_TARGET = 3.0
_LARGEST_SIDE = 1 << 15
_ROWS_AT_ONCE = 512


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

    def cut(self, tensor: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """The tiles of a frame's tensor [1, C, H, W], views of the tile's size each."""
        height, width = self.tile
        return [tensor[:, :, top : top + height, left : left + width] for top, left in self.corners]

    @property
    def geometries(self) -> list[Geometry]:
        """What lies in each tile; a frame smaller than a tile is padded to it."""
        height, width = self.tile
        seen = [(min(height, self.height - top), min(width, self.width - left)) for top, left in self.corners]
        return [Geometry(*size, height, width, *size) for size in seen]

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


def whole_frame(spec: InputSpec, overlap: int) -> InputSpec:
    """The input of a whole frame at its own size, padded to at least one tile of the size that `spec` has.

    Raises:
        UsageError: more overlap than half a tile.
    """
    if overlap < 0 or 2 * overlap > min(spec.size):
        raise UsageError(
            f"tiles of {spec.size[1]}x{spec.size[0]} cannot overlap by {overlap} pixels",
            f"Give at most {min(spec.size) // 2}",
        )
    height, width = (Range(min=side, opt=side, max=_LARGEST_SIDE, multiple=1) for side in spec.size)
    fields = {name: getattr(spec, name) for name in InputSpec.model_fields}
    return InputSpec(**fields | {"height": height, "width": width, "fit": PadToMultiple(multiple=1)})


def in_tiles(contract: Contract, overlap: int) -> Contract:
    """The contract with frames at their own size, cut into tiles of the model's size; the tuned one if it is dynamic.

    Raises:
        UsageError: more overlap than half a tile.
    """
    whole_frame(contract.input, overlap)
    height, width = contract.input.size
    return contract.with_input(height=height, width=width, fit=Tile(overlap=overlap))


def tile_overlap(spec: InputSpec) -> int:
    """The overlap of an input of fit `tile`."""
    assert isinstance(spec.fit, Tile)
    return spec.fit.overlap


def stitch(planes: Array | Sequence[Array], tiling: Tiling) -> Array:
    """Probabilities of tiles, [n, H, W] or each with its padding cut off -> those of the frame, [height, width]; the
    highest where several count."""
    whole: Array = np.zeros((tiling.height, tiling.width), planes[0].dtype)
    for plane, (top, left), (rows, columns) in zip(planes, tiling.corners, tiling.parts, strict=False):
        part = plane[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        np.maximum(whole[rows, columns], part, out=whole[rows, columns])
    return whole


def merge(found: Sequence[Detections], tiling: Tiling, level: float = 0.0) -> Detections:
    """Boxes of each tile, in its pixels -> those of the frame, each target once.

    Args:
        level: those that score more come out as if there were no others.
    """
    shifts = [np.array((left, top, left, top), np.float32) for top, left in tiling.corners]
    boxes = np.concatenate([one.boxes + shift for one, shift in zip(found, shifts, strict=True)])
    tiles = np.repeat(np.arange(len(found)), [len(one) for one in found])
    scores, classes = (np.concatenate([getattr(one, name) for one in found]) for name in ("scores", "classes"))
    centres = box_centres(boxes)
    parts = np.array([(c.start, r.start, c.stop, r.stop) for r, c in tiling.parts])[tiles]
    counting = np.flatnonzero(((centres >= parts[:, :2]) & (centres <= parts[:, 2:])).all(axis=1))
    order = counting[np.argsort(-scores[counting], kind="stable")]
    everything = Detections(boxes[order], scores[order], classes[order])
    return everything.take(_first_of_each(everything, tiles[order], level))


def _first_of_each(found: Detections, tiles: Array, level: float) -> list[int]:
    """Rows of `found`, best score first, without those that another tile sees better.

    Pairs of different tiles are joined by ascending distance, those above the level first, and no group takes two of
    one tile.
    """
    sides = np.sqrt(np.maximum((found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1), 0))
    pairs = [_near(found, sides, tiles, slice(k, k + _ROWS_AT_ONCE)) for k in range(0, len(found), _ROWS_AT_ONCE)]
    ones, others, apart = (np.concatenate(column) for column in zip(*pairs, strict=True)) if pairs else ((),) * 3
    groups = [{row} for row in range(len(found))]
    # Rows are sorted by score: of a pair the later one, and of a group the first one says which side it is on.
    high = int((found.scores > np.float32(level)).sum())
    for k in np.lexsort((apart, np.asarray(others) >= high)):
        one, other = groups[ones[k]], groups[others[k]]
        if others[k] >= high and max(min(one), min(other)) < high:
            continue
        if one is not other and not {tiles[row] for row in one} & {tiles[row] for row in other}:
            one |= other
            for row in other:
                groups[row] = one
    return sorted({min(group) for group in groups})


def _near(found: Detections, sides: Array, tiles: Array, rows: slice) -> tuple[Array, Array, Array]:
    """Pairs that may be one target, (row, later row, distance); block by block, since their number may be thousands."""
    apart = centre_distances(found.boxes[rows], found.boxes)
    allowed = apart < np.maximum(_SAME_TARGET, np.minimum(sides[rows, None], sides) / 2)
    allowed &= (found.classes[rows, None] == found.classes) & (tiles[rows, None] != tiles)
    ones, others = np.nonzero(np.triu(allowed, rows.start))
    return ones + rows.start, others, apart[ones, others]
