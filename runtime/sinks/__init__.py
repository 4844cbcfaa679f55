"""Where detections go: JSON lines, MOT files, overlay videos, pictures.

After its `with` a sink's file is whole under its name, or not there. A sink is one class; one more is a file here.
"""

from irforge.runtime.sinks.base import NullSink, Sink
from irforge.runtime.sinks.lines import JsonLines, MotLines
from irforge.runtime.sinks.overlay import OverlayImages, OverlayVideo, overlay_sink

__all__ = ["JsonLines", "MotLines", "NullSink", "OverlayImages", "OverlayVideo", "Sink", "overlay_sink"]
