"""A small RTSP server for tests: H.264 of one gray level, by RTP inside the RTSP connection (RFC 2326, RFC 6184)."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import count
from types import TracebackType

import av
import numpy as np

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=framerate:25\r\na=control:track0\r\n"
)
_TICKS = 90000 // 25
# By its first byte a slice of a picture that needs others.
_NO_SLICE = b"\x41" + bytes(range(3, 120))


class RtspCamera:
    """Serves one viewer at a time, at 127.0.0.1, while its `with` lasts; its end cuts the connection off.

    Args:
        level: of all pixels.
        port: 0 takes one that is free.
        damaged: after every two pictures come five that cannot be decoded.
    """

    def __init__(self, level: int, port: int = 0, damaged: bool = False) -> None:
        self._pictures = _pictures(level) + [[_NO_SLICE]] * (5 * damaged)
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.1)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def __enter__(self) -> RtspCamera:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            with suppress(OSError):
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(5)
                    self._answer(connection)
                    self._play(connection)

    def _answer(self, connection: socket.socket) -> None:
        """All requests up to PLAY."""
        requests = connection.makefile("rb")
        method = ""
        while method != "PLAY":
            lines = list(iter(lambda: requests.readline().decode().strip(), ""))
            if not lines:
                raise ConnectionError
            method = lines[0].split()[0]
            number = next(line.split(":")[1].strip() for line in lines if line.lower().startswith("cseq"))
            extra = {
                "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
                "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n",
                "SETUP": "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
                "PLAY": "Session: 1\r\n",
            }.get(method, "")
            body = _SDP if method == "DESCRIBE" else ""
            connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{extra}\r\n{body}".encode())

    def _play(self, connection: socket.socket) -> None:
        sequence = count()
        for number in count():
            if self._stopped.wait(0.02):
                return
            units = self._pictures[number % len(self._pictures)]
            for unit in units:
                kind = 96 | (0x80 if unit is units[-1] else 0)
                header = struct.pack(">BBHII", 0x80, kind, next(sequence) & 0xFFFF, number * _TICKS, 1)
                connection.sendall(struct.pack(">cBH", b"$", 0, len(header) + len(unit)) + header + unit)


def _pictures(level: int) -> list[list[bytes]]:
    """Two pictures that need no other, each as its NAL units."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, "yuv420p", Fraction(1, 25)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "1"}
    picture = av.VideoFrame.from_ndarray(np.full((48, 64), level, np.uint8), format="gray").reformat(format="yuv420p")
    encoded: list[bytes] = []
    for number in range(2):
        picture.pts = number
        encoded += map(bytes, encoder.encode(picture))
    return [list(_units(packet)) for packet in encoded]


def _units(stream: bytes) -> Iterator[bytes]:
    return filter(None, re.split(b"\x00?\x00\x00\x01", stream))
