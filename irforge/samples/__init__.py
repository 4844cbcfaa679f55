"""What the first command needs, so that it needs no download: a few frames with truth, and small trained weights."""

from pathlib import Path

FRAMES = Path(__file__).parent / "frames"
"""24 frames with masks, split `test`, and 16 more, split `calib`; see frames/README.md."""
CLIP = Path(__file__).parent / "drone.mp4"
"""A small drone in 321 thermal frames, 320 x 256, 30 a second: IR_DRONE_090 of the set that frames/README.md names."""
