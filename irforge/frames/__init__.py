"""From a raw frame to the tensor that a contract asks for, and the geometry back.

The same functions serve training, calibration and the runtime, so that a preprocessing mismatch cannot be expressed.
"""

from irforge.frames.geometry import Geometry
from irforge.frames.read import FRAME_SUFFIXES, Frame, frame_size, read_frame, read_mask, read_pages, resize_mask

__all__ = [
    "FRAME_SUFFIXES",
    "Frame",
    "Geometry",
    "frame_size",
    "read_frame",
    "read_mask",
    "read_pages",
    "resize_mask",
]
