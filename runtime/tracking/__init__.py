"""Tracks: which detections of successive frames are one target. Needs `pip install 'irforge[track]'`."""

from irforge.runtime.tracking.tracked import Tracked
from irforge.runtime.tracking.tracker import Tracker, TrackSettings, tracking_packages

__all__ = ["TrackSettings", "Tracked", "Tracker", "tracking_packages"]
