"""Parity and accuracy of detectors that cut their frames into tiles: of whole frames, as the detectors answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irforge.contract import Contract
from irforge.frames import Geometry
from irforge.runtime.limits import Limits
from irforge.runtime.report.figures import Accuracy
from irforge.runtime.tally import FrameRead, Judge, Seen, Tally
from irforge.runtime.tally_boxes import Answer
from irforge.runtime.tiling import TiledDetector
from irforge.session import Array
from irforge.tiles import Tiling, merge, stitch, tile_overlap


class TileRuns:
    """Runs what a tiled detector runs: the tensor of a whole frame in, the outputs of all its tiles out."""

    def __init__(self, detector: TiledDetector) -> None:
        self._detector = detector
        self.thread_rule = detector.session.thread_rule

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        (frame,) = feeds.values()
        spec = self._detector.contract.input
        tiling = Tiling(frame.shape[2], frame.shape[3], spec.size, tile_overlap(spec))
        return self._detector.infer(np.concatenate(tiling.cut(frame)))


class TiledJudge:
    """A judge who is shown the tiles of each frame and judges the frame.

    Args:
        judge: for whole frames.
        contract: says how frames are cut.
        level: detections that score more are joined before all others, as a detector of that threshold joins them.
    """

    def __init__(self, judge: Judge, contract: Contract, level: float) -> None:
        self._judge = judge
        self._spec, self._kind = contract.input, contract.output.kind
        self._level = level

    def read(self, outputs: Mapping[str, Array], geometry: Geometry, name: str) -> Any:
        tiling = Tiling(geometry.frame_height, geometry.frame_width, self._spec.size, tile_overlap(self._spec))
        tiles = [
            self._judge.read({output: array[k : k + 1] for output, array in outputs.items()}, where, name)
            for k, where in enumerate(tiling.geometries)
        ]
        if self._kind == "mask":
            return stitch(tiles, tiling)
        found: list[Answer] = tiles
        return Answer(
            merge([one.detections for one in found], tiling, self._level),
            # What any tile cut off is missing from the frame.
            max(one.cut for one in found),
            sum(one.not_finite for one in found),
        )

    def see(self, frame: FrameRead, expected: Any) -> Seen:
        return self._judge.see(frame, expected)

    def tally(self, limits: Limits, crops: int) -> Tally:
        return self._judge.tally(limits, crops)

    def accuracy(self) -> Accuracy:
        return self._judge.accuracy()
