"""What a batch is to do: which videos, by which recipe, into which files, and what of that is done already."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import irforge
from irforge.datasets.layout import natural_key
from irforge.errors import InputError, UsageError
from irforge.files import sha256_of_file, sha256_of_json, write_json
from irforge.runtime.backends import choose_backend
from irforge.runtime.corrections import FLAT, parse_size, parse_telemetry
from irforge.runtime.custom_ops import parse_life
from irforge.runtime.sources.raw import RAW_SUFFIXES
from irforge.runtime.sources.video import VIDEO_SUFFIXES
from irforge.runtime.tracking import tracking_packages

_DIGITS = 12
# What changes how fast a result comes, or whether it may, and not what it says.
_SAYS_NOTHING = ("model", "batch", "threads", "trust_engine", "dead_pixels")


@dataclass(frozen=True)
class Recipe:
    """A model and the options of `irforge batch`, which are those of `irforge run`; it travels to worker processes."""

    model: Path
    batch: int | None = None
    backend: str | None = None
    threads: int | None = None
    threshold: float | None = None
    tile: int | None = None
    track: bool = False
    track_by: Literal["centre", "overlap"] = "centre"
    track_reach: float = 12.0
    track_confirm: int = 3
    limit: int | None = None
    size: str | None = None
    bit_depth: int | None = None
    big_endian: bool = False
    telemetry: str = "0,0"
    shutter: bool = False
    dead_pixels: str | None = None
    column_noise: bool = False
    invert: bool = False
    smooth_gain: float | None = None
    trust_engine: bool = False
    custom_ops: str = "body"

    def checked(self) -> Recipe:
        """The recipe with absolute paths.

        Raises:
            UsageError, EnvironmentFault: an option that no video could be run with.
        """
        choose_backend(self.model, self.backend)
        parse_life(self.custom_ops)
        parse_telemetry(self.telemetry)
        if self.size:
            parse_size(self.size)
        if self.track:
            tracking_packages()
        if not self.dead_pixels:
            return self
        mark = FLAT if self.dead_pixels.startswith(FLAT) else ""
        return replace(self, dead_pixels=mark + os.path.abspath(self.dead_pixels.removeprefix(mark)))  # noqa: PTH100

    def facts(self) -> dict[str, Any]:
        """What decides what a result says, as JSON: hash of the model, which holds those of its companions, settings.

        Raises:
            OSError: the model, or the dead-pixel map, cannot be read.
        """
        settings = {name: value for name, value in asdict(self).items() if name not in _SAYS_NOTHING}
        if self.dead_pixels:
            file = Path(self.dead_pixels.removeprefix(FLAT))
            settings["dead_pixels"] = sha256_of_file(file) if file.is_file() else str(file)
        return {"model_sha256": sha256_of_file(self.model), **settings}


@dataclass(frozen=True)
class Job:
    """A video, and the file that its result goes to; `replaced` are results that go when that is there."""

    name: str
    video: Path
    result: Path
    replaced: tuple[Path, ...] = ()


def find_videos(given: Sequence[str]) -> dict[str, Path]:
    """Videos and raw files by name, in natural order: of a folder all below it, by their path in it.

    Raises:
        InputError: a path that is not there, is no video by its name, or a folder without any.
        UsageError: two of one name.
    """
    found: dict[str, Path] = {}
    for text in given:
        for name, path in _videos_of(text):
            if found.setdefault(name, path) != path:
                raise UsageError(
                    f"'{path}' and '{found[name]}' would have the same result", "Name the folder that holds both"
                )
    return found


def _videos_of(text: str) -> list[tuple[str, Path]]:
    known, path = VIDEO_SUFFIXES | RAW_SUFFIXES, Path(text)
    if path.is_dir():
        below = [file for file in path.rglob("[!.]*") if file.suffix.lower() in known and file.is_file()]
        if not below:
            raise InputError(f"there are no videos in '{text}'", f"Known are {', '.join(sorted(known))}")
        return [(file.relative_to(path).as_posix(), file.absolute()) for file in sorted(below, key=natural_key)]
    # Path.glob takes no absolute patterns.
    matching = [path] if path.is_file() else sorted(map(Path, glob.glob(text, recursive=True)), key=natural_key)  # noqa: PTH207
    if not matching:
        raise InputError(f"there is no video '{text}'", "Check the path")
    stray = next((file for file in matching if file.suffix.lower() not in known), None)
    if stray is not None:
        raise InputError(f"'{stray}' is no video by its name", f"Known are {', '.join(sorted(known))}")
    return [(file.name, file.absolute()) for file in matching]


def plan(recipe: Recipe, videos: dict[str, Path], output: Path, *, redo: bool = False) -> list[Job]:
    """The videos that have no result by this recipe yet; writes down what the hash in their names stands for.

    Args:
        output: where results go, `NAME.HASH.jsonl`.
        redo: replace results by other recipes, once there are new ones.

    Raises:
        UsageError: a video has a result by another recipe, and `redo` is off.
    """
    facts = recipe.facts()
    key = sha256_of_json(facts)[:_DIGITS]
    jobs = []
    for name, video in videos.items():
        result = output / f"{name}.{key}.jsonl"
        others = sorted(set(result.parent.glob(f"{glob.escape(video.name)}.{'[0-9a-f]' * _DIGITS}.jsonl")) - {result})
        if others and not redo:
            raise UsageError(
                f"'{others[0]}' is by another model or by other settings than {key}; {output}/batch.*.json says which",
                "Write elsewhere with -o, or replace such results with --redo",
            )
        if others or not result.is_file():
            jobs.append(Job(name, video, result, tuple(others)))
    write_json(output / f"batch.{key}.json", {"irforge": irforge.__version__, "model": recipe.model.name, **facts})
    return jobs
