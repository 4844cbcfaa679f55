"""From what a user types to the source that it means."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

from irforge.datasets import dataset_paths, open_dataset
from irforge.datasets.layout import natural_key
from irforge.errors import InputError
from irforge.frames import FRAME_SUFFIXES
from irforge.runtime.sources.base import Layout, Source
from irforge.runtime.sources.camera import UsbCamera, Y16Camera
from irforge.runtime.sources.images import ImageFiles, TiffPages
from irforge.runtime.sources.network import GstreamerPipeline, RtspStream
from irforge.runtime.sources.raw import RAW_SUFFIXES, RawFile
from irforge.runtime.sources.synthetic import Synthetic
from irforge.runtime.sources.video import VIDEO_SUFFIXES, open_video

_TIFF_SUFFIXES = (".tif", ".tiff")

# What stands before the first colon -> the source, from the text behind that colon and the layout.
SCHEMES: dict[str, Callable[[str, Layout], Source]] = {
    "camera": UsbCamera,
    "v4l2": Y16Camera,
    "rtsp": lambda rest, _: RtspStream(f"rtsp:{rest}"),
    "rtsps": lambda rest, _: RtspStream(f"rtsps:{rest}"),
    "gst": lambda rest, _: GstreamerPipeline(rest),
    "synthetic": lambda rest, _: Synthetic.parse(rest),
}


def open_source(path: str | os.PathLike[str], layout: Layout | None = None) -> Source:
    """Open frames by path or name.

    Args:
        path: a video file, an image, a TIFF with pages, a raw file (`.y16`, `.raw`), a pattern such as `frames/*.png`,
            or a folder of images or dataset (`PATH[:SPLIT]` or `NAME[:SPLIT]`, see `irforge.datasets.open_dataset`);
            or live: `camera:0`, `v4l2:/dev/video0` for raw counts, `rtsp://...`, `gst:PIPELINE`; or
            `synthetic:640x512,frames=100`.
        layout: how raw levels lie; a camera is asked for its size.

    Raises:
        InputError: nothing there, no frames in it, or nothing that can be decoded without loss.
        UsageError: no dataset or split of that name; a raw file without a size.
        EnvironmentFault: it needs PyAV, or an OpenCV with GStreamer.
    """
    text = os.fspath(path)
    layout = layout or Layout()
    scheme, colon, rest = text.partition(":")
    if colon and scheme in SCHEMES:
        return SCHEMES[scheme](rest, layout)
    suffix = Path(text).suffix.lower()
    if _is_pattern(text):
        return ImageFiles(_matching(text), text)
    if suffix in VIDEO_SUFFIXES and not Path(text).is_dir():
        return open_video(text)
    if suffix in RAW_SUFFIXES and not Path(text).is_dir():
        return RawFile(text, layout)
    if suffix in _TIFF_SUFFIXES:
        return TiffPages(text)
    if suffix in FRAME_SUFFIXES:
        return ImageFiles([Path(text)], Path(text).name)
    if Path(text).is_file():
        known = ", ".join(sorted(FRAME_SUFFIXES | VIDEO_SUFFIXES | RAW_SUFFIXES))
        raise InputError(f"'{text}' is neither an image nor a video by its name", f"Known are {known}")
    dataset = open_dataset(text)
    return ImageFiles([sample.frame_path for sample in dataset], dataset.root.name)


def paths_read(*texts: str | None) -> list[Path]:
    """The files and folders that sources of these names read, found without opening them; none for live ones."""
    found: list[Path] = []
    for text in texts:
        if text is None or (":" in text and text.partition(":")[0] in SCHEMES):
            continue
        if _is_pattern(text):
            found += map(Path, glob.glob(text, recursive=True))  # noqa: PTH207
        else:
            found += dataset_paths(text)
    return found


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[") and not Path(text).exists()


def _matching(pattern: str) -> list[Path]:
    # Path.glob takes no absolute patterns.
    found = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
    paths = sorted((path for path in found if path.suffix.lower() in FRAME_SUFFIXES), key=natural_key)
    if not paths:
        raise InputError(f"no frames match '{pattern}'", f"Frames end in {', '.join(sorted(FRAME_SUFFIXES))}")
    return paths
