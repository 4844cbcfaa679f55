"""From a raw frame to the tensor that a contract asks for, and the geometry back.

The same functions serve training, calibration and the runtime, so that a preprocessing mismatch cannot be expressed.
"""

from irforge.frames.geometry import Geometry
from irforge.frames.levels import apply_gain, to_gray
from irforge.frames.prepare import fit_geometry, prepare, prepare_batch
from irforge.frames.read import FRAME_SUFFIXES, Frame, frame_size, read_frame, read_mask, read_pages, resize_mask
from irforge.frames.resize import resize

__all__ = [
    "FRAME_SUFFIXES",
    "Frame",
    "Geometry",
    "apply_gain",
    "fit_geometry",
    "frame_size",
    "prepare",
    "prepare_batch",
    "read_frame",
    "read_mask",
    "read_pages",
    "resize",
    "resize_mask",
    "to_gray",
]
