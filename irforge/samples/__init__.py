"""What the first command needs, so that it needs no download: a few frames with truth, and small trained weights."""

from pathlib import Path

FRAMES = Path(__file__).parent / "frames"
"""24 frames with masks, split `test`, and 16 more, split `calib`; see frames/README.md."""
