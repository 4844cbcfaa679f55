"""Detections that know which track they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from irforge.detections import Detections

NO_TRACK = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class Tracked(Detections):
    """Detections of one frame with the numbers of their tracks.

    tracks: int64 [n], counted from 1 within a stream; -1 where a detection has no confirmed track (yet).
    trails: float32 [k, 2] for each track that is seen in this frame, the (x, y) at which it was seen so far, the latest
        last, as edge coordinates of this frame: where the camera moved, they have moved with it.
    """

    tracks: npt.NDArray[np.int64]
    trails: Mapping[int, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.tracks) != len(self.scores):
            raise ValueError(f"{len(self.scores)} detections with {len(self.tracks)} tracks")
        order = np.argsort(-np.asarray(self.scores, np.float32), kind="stable")
        super().__post_init__()
        object.__setattr__(self, "tracks", np.asarray(self.tracks, np.int64)[order])

    @classmethod
    def of(
        cls, found: Detections, tracks: npt.NDArray[np.int64], trails: Mapping[int, npt.NDArray[np.float32]]
    ) -> Tracked:
        """`found` with the track of each row."""
        return cls(
            boxes=found.boxes,
            scores=found.scores,
            classes=found.classes,
            centres=found.centres,
            areas=found.areas,
            mask=found.mask,
            tracks=tracks,
            trails=trails,
        )

    def take(self, rows: npt.ArrayLike) -> Tracked:
        """As that of `Detections`."""
        index = np.arange(len(self))[np.asarray(rows)]
        index = index[np.argsort(-self.scores[index], kind="stable")]
        tracks = self.tracks[index]
        trails = {track: trail for track, trail in self.trails.items() if track in tracks}
        return Tracked.of(super().take(index), tracks, trails)

    def rows(self, classes: Sequence[str] = ()) -> list[dict[str, Any]]:
        """As those of `Detections`, with `track` where there is one."""
        rows = super().rows(classes)
        for row, track in zip(rows, self.tracks, strict=True):
            if track != NO_TRACK:
                row["track"] = int(track)
        return rows
