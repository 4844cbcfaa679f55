"""Where frames come from: folders, videos, raw files, cameras and streams behind one small interface.

A source is one class; one more is a file here and a line in `opening`.
"""

from irforge.runtime.sources.base import Frame, Layout, Source, SourceFrame
from irforge.runtime.sources.opening import open_source, paths_read
from irforge.runtime.sources.video import VIDEO_SUFFIXES

__all__ = ["VIDEO_SUFFIXES", "Frame", "Layout", "Source", "SourceFrame", "open_source", "paths_read"]
