"""One class between detections and tracks; the tracker itself is a library's."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from irforge.detections import Detections
from irforge.errors import EnvironmentFault, UsageError
from irforge.metrics.matching import box_centres
from irforge.runtime.sources import SourceFrame
from irforge.runtime.tracking.motion import CameraMotion
from irforge.runtime.tracking.tracked import NO_TRACK, Tracked

if TYPE_CHECKING:
    from irforge.runtime.tracking.association import Association

_FPS = 25.0
_TRAIL = 50


@dataclass(frozen=True)
class TrackSettings:
    """What makes a track; the defaults are for targets of a few pixels.

    by: associate by the distance of centres, or by the overlap of boxes, which suits targets of 20 pixels and more.
    reach: pixels between a detection and where its track is expected in the next frame, at most.
    confirm: frames in a row in which a target must be seen before its track has a number.
    lost: seconds for which a track is kept without being seen; a closed shutter does not count.
    start: a detection with a lower score continues tracks, and starts none.
    camera: take out how far the whole picture moved.

    Raises:
        UsageError: a value that makes no sense.
    """

    by: Literal["centre", "overlap"] = "centre"
    reach: float = 12.0
    confirm: int = 3
    lost: float = 1.0
    start: float = 0.0
    camera: bool = True

    def __post_init__(self) -> None:
        if self.reach <= 0 or self.confirm < 1 or self.lost < 0:
            raise UsageError(
                f"no track can be made with reach {self.reach:g}, confirm {self.confirm} and lost {self.lost:g}",
                "Reach must be above 0, confirm at least 1, lost not below 0",
            )


def tracking_packages() -> None:
    """Nothing, where the packages that tracking needs are here.

    Raises:
        EnvironmentFault: they are not.
    """
    if find_spec("trackers") is None or find_spec("supervision") is None:
        raise EnvironmentFault(
            "tracking needs the packages 'trackers' and 'supervision', which are not here",
            "pip install 'irforge[track]', then pip install --no-deps 'trackers>=2.6,<3'",
        )


class Tracker:
    """Follows the targets of one stream; a stream needs one of its own.

    Boxes are brought to where they were without the motion of the camera, so that a track's speed is that of its
    target. While the shutter is closed tracks are held: nothing is associated, and none gets older. Frames that were
    dropped count: a track's place is predicted over the time that passed, and the reach grows with its root.

    Args:
        settings: see `TrackSettings`.
        fps: the stream's rate, for what has no times of its own.

    Raises:
        EnvironmentFault: the library is not installed.
    """

    def __init__(self, settings: TrackSettings | None = None, fps: float | None = None) -> None:
        tracking_packages()
        from irforge.runtime.tracking.association import Association

        settings = settings or TrackSettings()
        self._fps = fps or _FPS
        self._camera = CameraMotion() if settings.camera else None
        self._association: Association = Association(
            settings.reach if settings.by == "centre" else None,
            settings.confirm,
            settings.lost,
            settings.start,
            self._fps,
        )
        self._lost = settings.lost
        # Of the picture since the first frame.
        self._moved = np.zeros(2)
        self._trails: dict[int, deque[npt.NDArray[np.float64]]] = {}
        self._seen: dict[int, float] = {}
        self._last: SourceFrame | None = None
        # Seconds since the first frame; frames since tracks were last associated.
        self._now, self._steps = 0.0, 0.0
        self._held_since: float | None = None
        self._grace, self._grace_until = 0.0, 0.0

    def update(self, record: SourceFrame, found: Detections) -> Tracked:
        """The tracks of what was found in the next frame of the stream."""
        self._advance(record)
        if record.shutter:
            self._held_since = self._now if self._held_since is None else self._held_since
            return Tracked.of(found, np.full(len(found), NO_TRACK, np.int64), {})
        if self._camera is not None:
            self._moved += self._camera.update(record.frame)
        tracks = self._association.update(
            found.boxes - np.tile(self._moved, 2), found.scores, self._now, self._steps, self._held()
        )
        self._steps = 0.0
        return Tracked.of(found, tracks, self._follow(found, tracks))

    def _advance(self, record: SourceFrame) -> None:
        """Bring the clock to this frame."""
        last, self._last = self._last, record
        if last is None:
            return
        steps = float(max(record.index - last.index, 1))
        if record.seconds is not None and last.seconds is not None and record.seconds > last.seconds:
            steps = (record.seconds - last.seconds) * self._fps
        self._now += steps / self._fps
        self._steps += steps

    def _held(self) -> float:
        """Seconds of closed shutter that tracks are not to be blamed for."""
        if self._held_since is not None:
            self._grace += self._now - self._held_since
            self._held_since = None
            self._grace_until = self._now + self._lost
        elif self._now > self._grace_until:
            self._grace = 0.0
        return self._grace

    def _follow(self, found: Detections, tracks: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.float32]]:
        centres = box_centres(found.boxes) if found.centres is None else found.centres
        for track, centre in zip(tracks.tolist(), centres - self._moved, strict=True):
            if track != NO_TRACK:
                self._trails.setdefault(track, deque(maxlen=_TRAIL)).append(centre)
                self._seen[track] = self._now
        forgotten = [track for track, when in self._seen.items() if self._now - when > self._lost + self._grace + 1]
        for track in forgotten:
            del self._seen[track], self._trails[track]
        return {
            track: (np.stack(self._trails[track]) + self._moved).astype(np.float32)
            for track in tracks.tolist()
            if track != NO_TRACK
        }
