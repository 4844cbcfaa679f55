"""From a raw frame to the tensor that a contract asks for, and the geometry back.

The same functions serve training, calibration and the runtime, so that a preprocessing mismatch cannot be expressed.
"""

from irforge.frames.geometry import Geometry

__all__ = ["Geometry"]
