"""The targets that packages can be written for, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from irforge.errors import UsageError
from irforge.runtime.package.deepstream import DeepStream
from irforge.runtime.package.folder import Folder
from irforge.runtime.package.target import Target
from irforge.runtime.package.triton import Triton

TARGETS: dict[str, type[Target]] = {"folder": Folder, "triton": Triton, "deepstream": DeepStream}


def target_of(name: str, options: Mapping[str, Any]) -> Target:
    """A target with the options that were given for it; those that are None were not.

    Raises:
        UsageError: there is no such target, or an option says nothing to it.
    """
    kind = TARGETS.get(name)
    if kind is None:
        raise UsageError(f"there is no package for '{name}'", f"There are: {', '.join(TARGETS)}")
    given = {option: value for option, value in options.items() if value is not None}
    applying = {field.name for field in fields(kind)}
    stray = next((option for option in given if option not in applying), None)
    if stray is not None:
        raise UsageError(f"--{stray} says nothing to a package for {name}", "Leave it out")
    return kind(**given)
