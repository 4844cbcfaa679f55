"""What the readers share: files by stem, lists of stems, and annotations that belong to no frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from irforge.datasets.base import Finding, Sample
from irforge.errors import InputError, UsageError
from irforge.frames import FRAME_SUFFIXES

ALL = "all"

Part = TypeVar("Part")


@dataclass(frozen=True)
class Reading:
    """What a reader found: the samples of a split under the split's full name, the classes of their boxes, and what
    was mended or passed over."""

    split: str
    samples: tuple[Sample, ...]
    classes: tuple[str, ...] = ("target",)
    findings: tuple[Finding, ...] = ()


class Reader(Protocol):
    """One layout on disk. `split` None asks for everything."""

    def matches(self, root: Path) -> bool: ...

    def splits(self, root: Path) -> list[str]: ...

    def read(self, root: Path, split: str | None) -> Reading: ...


def normalised(name: str) -> str:
    """Case and the choice between '-' and '_' do not matter in names of datasets and splits."""
    return name.casefold().replace("-", "_")


def files_by_stem(folder: Path) -> dict[str, Path]:
    """The image files of a folder by stem, in natural order.

    Raises:
        InputError: the folder is missing, holds no image, or holds two of one name.
    """
    if not folder.is_dir():
        raise InputError(f"folder '{folder}' does not exist", "Check the path, or the layout of the dataset")
    found = sorted((p for p in folder.iterdir() if p.suffix.lower() in FRAME_SUFFIXES), key=natural_key)
    if not found:
        raise InputError(
            f"folder '{folder}' holds no frames", f"Frames end in {', '.join(sorted(FRAME_SUFFIXES))}; check the path"
        )
    by_stem: dict[str, Path] = {}
    for path in found:
        if path.stem in by_stem:
            raise InputError(
                f"folder '{folder}' holds two frames of one name, '{by_stem[path.stem].name}' and '{path.name}'",
                "Keep one of them there",
            )
        by_stem[path.stem] = path
    return by_stem


def strays(folder: Path, stems: Iterable[str], frames: Iterable[str], endings: Sequence[str] = ("",)) -> list[Finding]:
    """A finding for each annotation in `folder`, by its stem, that belongs to no frame."""
    owned = {frame + ending for frame in frames for ending in endings}
    return [
        Finding("annotation without a frame", f"{folder.name}/{stem}", "belongs to no frame there is", fault=True)
        for stem in stems
        if stem not in owned
    ]


def natural_key(path: Path) -> tuple[tuple[bool, int, str], ...]:
    """Sorts 'a2' before 'a10'."""
    parts: list[tuple[bool, int, str]] = []
    text, digits = "", ""
    for character in f"{path.name}\0":
        if character.isascii() and character.isdigit():
            if text:
                parts.append((True, 0, text))
                text = ""
            digits += character
        else:
            if digits:
                parts.append((False, int(digits), digits))
                digits = ""
            text += character
    return (*parts, (True, 0, text))


def read_list(path: Path) -> list[str]:
    """The stems in a split list: one a line, blank lines and image suffixes ignored.

    Raises:
        InputError: as `read_lines`.
    """
    return read_lines(path, _stem)


def read_lines(path: Path, name: Callable[[str], str] = str) -> list[str]:
    """The `name` of every line of a list that is not blank.

    Raises:
        InputError: no text, an empty list, or one that has a name twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"list '{path}' is not UTF-8 text", "Save it as UTF-8, one frame name a line") from None
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        listed = name(line.strip())
        if listed in first:
            raise InputError(
                f"list '{path}' names '{listed}' twice, in lines {first[listed]} and {number}",
                "A frame counts once: take one of the lines out",
            )
        first[listed] = number
    if not first:
        raise InputError(f"list '{path}' is empty", "One frame name a line is expected")
    return list(first)


def _stem(name: str) -> str:
    # Names may hold dots of their own: only what is known to be an image's suffix is cut off.
    path = Path(name)
    return path.stem if path.suffix.lower() in FRAME_SUFFIXES else path.name


def choose_split(wanted: str, lists: Mapping[str, object], root: Path) -> str:
    """The key of `lists` that `wanted` names: the whole name, or its end where only one list ends so.

    `train` finds `trainval` where a dataset ships no list called `train`.

    Raises:
        UsageError: no list, or several; the message names those there are.
    """
    by_name = {normalised(name): name for name in lists}
    for key in (normalised(wanted), "trainval" if normalised(wanted) == "train" else normalised(wanted)):
        ending = [name for full, name in by_name.items() if full.endswith("/" + key)]
        if key in by_name:
            return by_name[key]
        if len(ending) == 1:
            return ending[0]
    remedy = f"Splits there: {', '.join(lists)}" if lists else "It has no lists of names: leave the split out"
    raise UsageError(f"'{root.name}' has no split '{wanted}'", remedy)


def by_normalised_name(parts: Mapping[str, Part], wanted: str | None) -> tuple[str, Part] | None:
    """The name and value of the part that `wanted` names in full; None where there is none."""
    return next(((n, part) for n, part in parts.items() if wanted and normalised(n) == normalised(wanted)), None)


def pick(stem: str, files: dict[str, Path], folder: Path, listed_in: Path | None) -> Path:
    """The file of a stem.

    Raises:
        InputError: there is none; the message names the list that asked for it.
    """
    if stem in files:
        return files[stem]
    source = f", which '{listed_in}' lists," if listed_in else ""
    raise InputError(f"'{stem}'{source} is missing in '{folder}'", "Add the file, or take its name out of the list")
