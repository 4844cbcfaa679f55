"""The files that `irforge report` is given, told apart by what they hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irforge.errors import ArtifactError, UsageError
from irforge.runtime.report.run_timing import KIND, RunTiming, read_run_timing
from irforge.runtime.report.schema import Report, read_report
from irforge.runtime.trtexec import TrtexecRun, kind_of, read_trtexec


@dataclass
class Given:
    """Files by what they hold."""

    reports: list[tuple[Path, Report]] = field(default_factory=list)
    runs: list[RunTiming] = field(default_factory=list)
    trtexec: list[TrtexecRun] = field(default_factory=list)


def sort_out(paths: Sequence[Path]) -> Given:
    """Read files of any of the kinds, told apart by content. A profile and layers belong to the times before them.

    Raises:
        ArtifactError: a file is none of them, or is damaged.
        UsageError: more than two reports, or two with anything else.
    """
    given = Given()
    groups: list[dict[str, tuple[Path, Any]]] = []
    for path in paths:
        value = _json(path)
        kind = kind_of(value)
        if kind is not None:
            # The first of its kind in a group opens another: these are another run's.
            if not groups or kind in groups[-1]:
                groups.append({})
            groups[-1][kind] = (path, value)
        elif isinstance(value, dict) and value.get("kind") == KIND:
            given.runs.append(read_run_timing(path))
        else:
            given.reports.append((path, read_report(path)))
    given.trtexec = [read_trtexec(group) for group in groups]
    if len(given.reports) > 2:
        raise UsageError(f"{len(given.reports)} reports cannot be shown at once", "Give one, or two to compare")
    if len(given.reports) == 2 and (given.runs or given.trtexec):
        raise UsageError("two reports are compared by themselves", "Show the other files with one of them")
    return given


def _json(path: Path) -> Any:
    """The file's JSON; None for what is none, which `read_report` then refuses in its own words."""
    try:
        return json.loads(path.read_text())
    except IsADirectoryError:
        raise ArtifactError(f"'{path}' is a folder", "Name the file") from None
    except (FileNotFoundError, ValueError):
        return None
