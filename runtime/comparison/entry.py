"""One model that takes part: how to open it, what it expects of a frame, and what can be counted of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from irforge.contract import Contract, InputSpec
from irforge.datasets import Dataset
from irforge.errors import InputError, UsageError
from irforge.frames import frame_size
from irforge.frames.prepare import fit_geometry
from irforge.session import Session

Size = tuple[int, int]
OWN_SIZE = "own size"
"""What `fit_words` says of a model that takes frames of any size."""


@dataclass(frozen=True)
class Entry:
    """`parameters` counts values of weights; `macs` multiply-accumulates of a frame of (height, width) inside the
    model. Where one is None, `uncounted` says why."""

    name: str
    path: Path
    contract: Contract
    open: Callable[[], Session]
    parameters: int | None
    macs: Callable[[Size], int] | None
    uncounted: str = ""


def fit_words(spec: InputSpec) -> str:
    """How a frame reaches the model, in words."""
    if spec.is_dynamic:
        return OWN_SIZE
    height, width = spec.size
    kinds = {"squash": "squashed", "letterbox": "letterboxed", "pad-to-multiple": "padded", "tile": "tiled"}
    filters = {"antialias": "", "linear": ", not antialiased", "nearest": ", nearest pixel"}
    resized = "" if spec.fit.kind == "pad-to-multiple" else filters[spec.resize]
    return f"{kinds[spec.fit.kind]} to {width} × {height}{resized}"


def sizes_inside(entry: Entry, dataset: Dataset) -> Counter[Size]:
    """The sizes (height, width) that the frames of a dataset take inside the model, before any of them is read.

    Raises:
        InputError: a frame does not fit the contract; the message names model and frame.
    """
    found: Counter[Size] = Counter()
    for sample in dataset:
        height, width = frame_size(sample.frame_path)
        try:
            geometry = fit_geometry(height, width, entry.contract.input, f"'{sample.frame_path}'")
        except (InputError, UsageError) as error:
            what = f"'{entry.name}' cannot take the frames of '{dataset.name}': {error.what}"
            raise InputError(what, error.remedy) from None
        found[geometry.model_height, geometry.model_width] += 1
    return found


def class_numbers(entry: Entry, classes: Sequence[str], any_class: bool) -> list[int]:
    """For each class of the model the number of the dataset's class of that name, or -1; one class on each side is the
    same whatever it is called. All are 0 with `any_class`, where classes play no part.

    Raises:
        UsageError: there is no name in common.
    """
    known = entry.contract.output.classes
    if any_class or len(known) == len(classes) == 1:
        return [0] * len(known)
    numbers = [list(classes).index(name) if name in classes else -1 for name in known]
    if max(numbers) < 0:
        raise UsageError(
            f"'{entry.name}' knows {_few(known)}, the data holds {_few(classes)}",
            "Name data with the detector's classes, or add --any-class to take every detection for a target",
        )
    return numbers


def class_notes(entry: Entry, classes: Sequence[str], any_class: bool) -> list[str]:
    """What a reader must know of a model whose classes are not those of the data."""
    known = entry.contract.output.classes
    if any_class or len(known) == len(classes) == 1:
        return []
    strange = [name for name in classes if name not in known]
    extra = [name for name in known if name not in classes]
    notes = [f"{entry.name} does not know {_few(strange)}: these targets count as missed."] if strange else []
    return notes + ([f"What {entry.name} finds of {_few(extra)} is not counted."] if extra else [])


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
