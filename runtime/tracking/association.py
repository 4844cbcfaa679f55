"""The tracker of the `trackers` library, with an association for targets too small to overlap.

Imported late: it needs that library, and with it SciPy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision
from trackers import BaseIoU, ByteTrackTracker, IoU

from irforge.metrics.matching import centre_distances

# The library's own unit of time for how long a track may be lost.
_LIBRARY_FPS = 30.0
_ANY = 1e-6


class CentreDistance(BaseIoU):  # type: ignore[misc]
    """Similarity of boxes by their centres: 1 where they coincide, falling to 0 at `reach` pixels.

    The library associates by intersection over union, which is 0 for two boxes of 3 pixels that lie 3 apart. It takes
    other measures as subclasses of its own; this is one.
    """

    def __init__(self, reach: float) -> None:
        self.reach = reach

    def _compute(self, boxes_1: npt.NDArray[Any], boxes_2: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.maximum(1 - centre_distances(boxes_1, boxes_2) / self.reach, 0)


class Association:
    """ByteTrack (Zhang et al., ECCV 2022) over plain arrays.

    Args:
        reach: pixels between a detection and where its track is expected; None associates by overlap instead.
        confirm: frames in a row in which a target must be seen before its track has a number.
        lost: seconds for which a track is kept without being seen.
        start: a detection with a lower score continues tracks, and starts none.
        fps: frames a second.
    """

    def __init__(self, reach: float | None, confirm: int, lost: float, start: float, fps: float) -> None:
        self._reach = reach
        self._lost = lost
        self._measure = IoU() if reach is None else CentreDistance(reach)
        self._tracker = ByteTrackTracker(
            lost_track_buffer=max(1, round(lost * _LIBRARY_FPS)),
            frame_rate=fps,
            track_activation_threshold=start,
            high_conf_det_threshold=start,
            minimum_consecutive_frames=confirm,
            minimum_iou_threshold=0.1 if reach is None else _ANY,
            iou=self._measure,
        )

    def update(
        self, boxes: npt.NDArray[Any], scores: npt.NDArray[Any], seconds: float, steps: float, grace: float
    ) -> npt.NDArray[np.int64]:
        """The track of each detection, int64 [n] from 1; -1 without one.

        Args:
            boxes: [n, 4], xyxy.
            scores: [n].
            seconds: the time of the frame, later than that of the one before.
            steps: frames since then; the reach grows with their root.
            grace: seconds that do not count as lost.
        """
        if self._reach is not None:
            self._measure.reach = self._reach * math.sqrt(max(steps, 1.0))
        self._tracker.maximum_time_without_update = self._lost + grace
        rows = supervision.Detections(
            xyxy=np.asarray(boxes, np.float64).reshape(-1, 4),
            confidence=np.asarray(scores, np.float64),
            data={"row": np.arange(len(scores))},
        )
        found = self._tracker.update(rows, timestamp=seconds)
        tracks = np.full(len(scores), -1, np.int64)
        if len(found):
            # The library counts from 0.
            tracks[found.data["row"]] = np.where(found.tracker_id >= 0, found.tracker_id + 1, -1)
        return tracks
