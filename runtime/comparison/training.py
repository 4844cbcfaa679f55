"""What a contestant saw in training of the frames that it is judged on: one sentence for each list that matters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from irforge.contract import DataNote
from irforge.datasets import Dataset, open_dataset
from irforge.datasets.layout import normalised
from irforge.datasets.overlap import label
from irforge.errors import InputError, UsageError
from irforge.runtime.comparison.entry import Entry
from irforge.runtime.comparison.recurrence import Look, Recurrence, looks, recurrence, spaced
from irforge.runtime.report.schema import Finding
from irforge.runtime.report.wording import plural

Progress = Callable[[str, int], Callable[[], None]]

_PARTS = ("-train", "-val")
"""How training calls the parts of a list that it trained on and that it chose by."""
FEW_PARAMETERS = 1000
"""So few values are the constants of a method, which nobody trained."""


@dataclass(frozen=True)
class Training:
    """What the training lists hold of the test: a sentence for each list that matters, and the rows of the frames that
    some model saw."""

    findings: tuple[Finding, ...]
    seen: frozenset[int]


def check_training(
    entries: Sequence[Entry],
    dataset: Dataset,
    data_root: str | os.PathLike[str] | None = None,
    *,
    left_out: bool = False,
    progress: Progress = lambda description, steps: lambda: None,
) -> Training:
    """Open the lists that the contracts name, for training and for choices, and look for the frames of `dataset`.

    A list that is not here is compared by name alone. Both parts of a list that was split for validation count: the
    weights come from the one, their choice from the other.

    Args:
        data_root: where named datasets lie.
        left_out: what was seen is going to be left out, and the sentences are to say so.
    """
    users: dict[str, list[str]] = {}
    silent = []
    for entry in entries:
        source = entry.contract.provenance
        notes = [*source.trained_on, *source.validated_on]
        for name in dict.fromkeys(map(list_name, notes)):
            users.setdefault(name, []).append(entry.name)
        # What has no weights has seen nothing; an engine cannot tell how many it has.
        if not notes and (entry.parameters is None or entry.parameters > FEW_PARAMETERS):
            silent.append(entry.name)
    found: list[Finding] = []
    recurring: list[tuple[str, list[str], Recurrence]] = []
    test: list[Look] = []
    for name, models in users.items():
        train = _opened(name, data_root)
        if train is None:
            found.append(_by_name(name, dataset, models))
            continue
        if not test:
            tick = progress("frames of the test", len(dataset))
            test = looks(dataset, range(len(dataset)), tick)
        wanted = spaced(len(train))
        shared = recurrence(test, looks(train, wanted, progress(f"frames of {name}", len(wanted))), len(train))
        recurring.append((name, models, shared))
    rows = frozenset(row for _, _, shared in recurring for row in shared.same)
    for name, models, shared in recurring:
        found += _by_content(name, models, shared, test, rows if left_out else frozenset())
    if silent:
        who = (
            f"{silent[0]} does not say what trained it"
            if len(silent) == 1
            else f"{_and(silent)} do not say what trained them"
        )
        text = f"{who}: whether that holds frames of this test is not known."
        found.append(Finding(level="note", text=text))
    return Training(tuple(found), rows)


def list_name(note: DataNote) -> str:
    """NAME:SPLIT of the whole list that training took its data from."""
    split = note.split
    for part in _PARTS:
        split = split.removesuffix(part) or split
    return f"{note.name}:{split}"


def _opened(name: str, data_root: str | os.PathLike[str] | None) -> Dataset | None:
    for text in (name, name.removesuffix(":all")):
        try:
            return open_dataset(text, data_root)
        except (UsageError, InputError):
            continue
    return None


def _by_name(name: str, dataset: Dataset, models: Sequence[str]) -> Finding:
    same = normalised(name) == normalised(label(dataset))
    if same:
        return Finding(level="bad", text=f"{_and(models)} saw this very list, {name}, in training.")
    text = f"{name}, which trained {_and(models)}, is not here: whether it holds frames of this test is not known."
    return Finding(level="note", text=text)


def _by_content(
    name: str, models: Sequence[str], found: Recurrence, test: Sequence[Look], left_out: frozenset[int]
) -> list[Finding]:
    part = "" if found.read == found.held else f" (of its {found.held} frames {found.read} were looked at)"
    findings = []
    if found.same:
        saw = f"{_and(models)} saw {len(found.same)} of {plural(len(test), 'frame')} in training, in {name}{part}"
        if left_out:
            findings.append(Finding(level="note", text=f"{saw}: they are left out for all."))
        else:
            text = f"{saw}: on them nothing is tested. --unseen leaves them out."
            findings.append(Finding(level="bad", text=text))
    near = [(row, other) for row, other in found.near if row not in left_out]
    if near:
        row, other = near[0]
        text = (
            f"{name}{part}, which trained {_and(models)}, holds near repeats of {len(near)} of these "
            f"{plural(len(test) - len(left_out), 'frame')}: of {test[row].name} in {other}, for example."
        )
        findings.append(Finding(level="caution", text=text))
    return findings


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
