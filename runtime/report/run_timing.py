"""What `irforge run --timing` writes: a run's frames, drops and times, and the fourth clock, the age of a detection."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from irforge import __version__
from irforge.errors import ArtifactError
from irforge.files import write_text
from irforge.runtime.clocks import distribution
from irforge.runtime.counts import Counts
from irforge.runtime.report.figures import Part
from irforge.runtime.report.times import Distribution

KIND: Literal["irforge run"] = "irforge run"
_RECORDED = "its frames are recordings: nobody captured them as they were read, so that no detection has an age"
_NONE = "no frame was published"


class RunTiming(Part):
    """One run of a pipeline.

    `age` is the time from a frame's capture to when its detections were handed out; null for recordings, and
    `age_note` says so. `stages` by name, of each frame; `infer` is of its batch. Both hold the last frames only, where
    there were more than their `n`. `busy`: the share (0..1) of the run that a stage worked; stages overlap. Frames
    that were `read` and not `published` were `dropped` for newer ones, or were under way when the run ended.
    """

    kind: Literal["irforge run"] = KIND
    irforge_version: str
    command: str
    date: str
    detector: str
    sources: list[str]
    policy: str
    seconds: float = Field(ge=0)
    read: int = Field(ge=0)
    dropped: int = Field(ge=0)
    published: int = Field(ge=0)
    detections: int = Field(ge=0)
    frames_per_second: float = Field(ge=0)
    stages: dict[str, Distribution]
    busy: dict[str, float]
    age: Distribution | None
    age_note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> RunTiming:
        if self.age is None and not self.age_note:
            raise ValueError("a missing age needs its reason")
        return self


def run_timing(counts: Counts, *, command: str, detector: str, sources: list[str], policy: str) -> RunTiming:
    """The times of a run that has ended; the words are for the record."""
    times = list(counts.times)
    seconds = {name: [getattr(time, name) for time in times] for name in ("prepare", "infer", "decode")}
    seconds |= {name: [time.extra[name] for time in times] for name in (times[0].extra if times else ())}
    ages = list(counts.ages)
    return RunTiming(
        irforge_version=__version__,
        command=command,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        detector=detector,
        sources=sources,
        policy=policy,
        seconds=counts.seconds,
        read=counts.read,
        dropped=counts.dropped,
        published=counts.published,
        detections=counts.detections,
        frames_per_second=counts.published / counts.seconds if counts.seconds else 0.0,
        stages={name: distribution(spent) for name, spent in seconds.items() if spent},
        busy={name: spent / counts.seconds for name, spent in counts.busy.items()} if counts.seconds else {},
        age=distribution(ages) if ages else None,
        age_note="" if ages else _RECORDED if counts.published else _NONE,
    )


def write_run_timing(timing: RunTiming, path: str | os.PathLike[str]) -> None:
    write_text(path, timing.model_dump_json(indent=1) + "\n")


def read_run_timing(path: str | os.PathLike[str]) -> RunTiming:
    """Read what `write_run_timing` wrote.

    Raises:
        ArtifactError: it is something else, or its figures contradict each other.
    """
    try:
        return RunTiming.model_validate(json.loads(Path(path).read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "top level"
        raise ArtifactError(f"the run's times '{path}' are invalid at '{field}': {first['msg']}") from None
    except (ValueError, OSError):
        raise ArtifactError(
            f"'{path}' holds no times of a run", "Write them with 'irforge run ... --timing run.json'"
        ) from None
