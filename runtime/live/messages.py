"""What page and server say to each other. A page sends small JSON texts; a frame comes as one binary message."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from irforge.detections import Detections
from irforge.runtime.drawing import PALETTES, Palette, palette_table
from irforge.runtime.live.hub import Hub, Shown
from irforge.runtime.live.picture import DisplayGain, encoded
from irforge.runtime.live.session import LiveSession
from irforge.runtime.tracking.tracked import Tracked


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Seen(_Message):
    """The page has drawn a frame and has time for another."""

    kind: Literal["seen"]


class Gain(_Message):
    """How this page wants frames shown."""

    kind: Literal["gain"]
    mode: Literal["full", "auto", "manual"]
    low: int = Field(default=0, ge=0, le=65535)
    high: int = Field(default=255, ge=0, le=65535)

    @property
    def gain(self) -> DisplayGain:
        return DisplayGain(self.mode, self.low, self.high) if self.mode == "manual" else DisplayGain(self.mode)


class Threshold(_Message):
    """Detect from this score on, for everybody."""

    kind: Literal["threshold"]
    value: float = Field(ge=0, le=1)


class Pause(_Message):
    """Hold, or go on, for everybody; going on after the end is from the beginning."""

    kind: Literal["pause"]
    paused: bool


class Step(_Message):
    """While paused, one frame more."""

    kind: Literal["step"]


class Picture(_Message):
    """How a snapshot is to look: the query of its address."""

    seq: int | None = None
    palette: Palette = "white-hot"
    mode: Literal["full", "auto", "manual"] = "auto"
    low: int = Field(default=0, ge=0, le=65535)
    high: int = Field(default=255, ge=0, le=65535)

    @property
    def gain(self) -> DisplayGain:
        return DisplayGain(self.mode, self.low, self.high)


Message = Seen | Gain | Threshold | Pause | Step
MESSAGES: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def hello(session: LiveSession) -> str:
    """What does not change: the model, the source, palettes as base64 of 256 RGB triples."""
    detector = session.detector
    contract = detector.contract
    height, width = contract.input.size
    return json.dumps(
        {
            "kind": "hello",
            "model": {
                "file": detector.name,
                "detector": contract.provenance.detector,
                "precision": contract.provenance.precision,
                "backend": detector.session.backend,
                "device": detector.session.device,
                "size": None if contract.input.is_dynamic else [width, height],
                "threshold": contract.output.score_threshold,
            },
            "source": {"name": session.name, "camera": session.is_camera, "frames": session.frames, "fps": session.fps},
            "depth": contract.input.bit_depth,
            "palettes": {name: base64.b64encode(palette_table(name).tobytes()).decode() for name in PALETTES},
        }
    )


def state(hub: Hub, viewers: int, histogram: dict[str, Any] | None) -> str:
    """What changes: settings that all viewers share, the source's state, statistics."""
    return json.dumps(
        {
            "kind": "state",
            "status": hub.status,
            "note": hub.note,
            "paused": hub.paused,
            "threshold": hub.threshold,
            "viewers": viewers,
            "histogram": histogram,
            **hub.statistics(),
        },
        allow_nan=False,
    )


def frame(shown: Shown, gain: DisplayGain, depth: int, lossless: bool, classes: list[str]) -> bytes:
    """The length of a JSON header (uint32, little endian), the header, and the picture as JPEG or PNG."""
    record, detections = shown.result.record, shown.result.detections
    picture, (low, high) = encoded(record.frame, gain, depth, lossless)
    header = json.dumps(
        {
            "seq": shown.seq,
            "index": record.index,
            "id": record.id,
            "seconds": record.seconds,
            "latency": None if shown.latency is None else round(1e3 * shown.latency, 2),
            "shutter": record.shutter,
            "width": record.frame.shape[1],
            "height": record.frame.shape[0],
            "low": low,
            "high": high,
            "type": "image/png" if lossless else "image/jpeg",
            "detections": detections.rows(classes),
            "trails": _trails(detections),
        },
        allow_nan=False,
    ).encode()
    return len(header).to_bytes(4, "little") + header + picture


def _trails(detections: Detections) -> list[dict[str, Any]]:
    if not isinstance(detections, Tracked):
        return []
    return [{"track": track, "points": np.round(t, 1).tolist()} for track, t in detections.trails.items() if len(t) > 1]
