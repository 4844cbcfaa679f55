"""Streams by RTSP, and whatever a GStreamer pipeline ends in."""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import urlsplit

import cv2

from irforge.errors import EnvironmentFault, InputError
from irforge.runtime.sources.live import Capture, CaptureSource
from irforge.runtime.sources.video import stored_bits

_TIMEOUT_MS = 5000


class RtspStream(CaptureSource):
    """`rtsp://...`: a network camera, as RGB frames of 8 bits. Lost, it is waited for until somebody ends the run."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        # Names go into results and messages, and passwords must not.
        name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        super().__init__(name, partial(_open_rtsp, url, name), patience=None)


class GstreamerPipeline(CaptureSource):
    """`gst:...`: a GStreamer pipeline, which may decode on the GPU (`nvv4l2decoder`, `nvh264dec`) and end in GRAY16_LE.

    An `appsink` is added where the pipeline lacks one. When the pipeline ends, so does the source.

    Raises:
        EnvironmentFault: the installed OpenCV was built without GStreamer, as PyPI's is; JetPack's was built with it.
    """

    def __init__(self, pipeline: str) -> None:
        if not has_gstreamer():
            raise EnvironmentFault(
                f"this OpenCV ({cv2.__version__}) was built without GStreamer",
                "On a Jetson remove the opencv-python packages, so that JetPack's OpenCV is found; or build one",
            )
        complete = pipeline if "appsink" in pipeline else f"{pipeline} ! appsink max-buffers=2 sync=false"
        super().__init__("gst", partial(cv2.VideoCapture, complete, cv2.CAP_GSTREAMER), patience=0)


def has_gstreamer() -> bool:
    """Whether the installed OpenCV can run GStreamer pipelines."""
    return re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()) is not None


def _open_rtsp(url: str, name: str) -> Capture:
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    depth = stored_bits(int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT))) if capture.isOpened() else 8
    if depth > 8:
        capture.release()
        raise InputError(
            f"{name} sends {depth} bits a level, of which OpenCV would keep 8",
            "Set the camera to 8 bits, or read it by a gst: pipeline that ends in GRAY16_LE",
        )
    return capture
