"""Frames larger than the model: cut into tiles that overlap, detected in one by one, and put together again.

A model's own resize would make a target of three pixels in a frame of 1920x1080 one that nobody finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np

from irforge.detections import Detections
from irforge.errors import UsageError
from irforge.frames import Frame, Geometry, prepare
from irforge.frames.prepare import Tensor
from irforge.runtime.detector import SessionDetector
from irforge.session import Array, StageTimes, Timings
from irforge.tiles import Tiling, in_tiles, merge, stitch, whole_frame

TILES_A_RUN = 8
"""Where a graph takes any number: more fill a GPU no better, and an 1080p frame at once would take gigabytes."""


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
        self.contract = in_tiles(detector.contract, overlap)
        self._whole = whole_frame(self.contract.input, overlap)
        if detector.batch and batch not in (None, detector.batch):
            raise UsageError(f"'{detector.name}' takes batches of {detector.batch}, not of {batch}", "Leave it out")
        self.session = detector.session
        self.name = detector.name
        self.last_times = StageTimes()
        self.last_timings: Timings | None = None
        self._detector = detector
        self._overlap = overlap
        self.tiles_a_run = detector.batch or batch or TILES_A_RUN
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
        tiling = Tiling(frame.shape[0], frame.shape[1], self.contract.input.size, self._overlap)
        stacked: Any = np.concatenate(tiling.cut(tensor))
        return stacked, tiling

    def infer(self, tensor: Array, out: dict[str, Array] | None = None) -> dict[str, Array]:
        """The outputs of all tiles, in as few runs as the batch allows; the last one is filled up.

        Args:
            out: what an earlier call at this shape returned, to be written into.
        """
        total = -(-len(tensor) // self.tiles_a_run) * self.tiles_a_run
        if total > len(tensor):
            tensor = np.concatenate([tensor, np.repeat(tensor[-1:], total - len(tensor), axis=0)])
        seconds: list[float] = []
        for first in range(0, total, self.tiles_a_run):
            rows = slice(first, first + self.tiles_a_run)
            into = None if out is None else {name: array[rows] for name, array in out.items()}
            made = self._detector.infer(tensor[rows], into)
            if self.session.last_timings is not None:
                seconds.append(self.session.last_timings.compute)
            if out is None:
                out = {name: np.empty((total, *array.shape[1:]), array.dtype) for name, array in made.items()}
                for name, array in made.items():
                    out[name][rows] = array
        assert out is not None
        self.last_timings = Timings(sum(seconds)) if seconds else None
        return out

    def decode(self, outputs: Mapping[str, Array], tiling: Tiling, index: int) -> Detections:
        """What the tiles of one frame, from row `index` on, say of it."""
        if self.contract.output.kind == "mask":
            plane = stitch(outputs["mask"][index:, 0], tiling)
            size = plane.shape
            return self._detector.decode({"mask": plane[None, None]}, Geometry(*size, *size, *size), 0)
        tiles = enumerate(tiling.geometries, index)
        return merge([self._detector.decode(outputs, geometry, row) for row, geometry in tiles], tiling)

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
