"""What every target of a package is, and how a package is written: whole, or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from irforge.errors import UsageError
from irforge.files import PARTIAL
from irforge.runtime.package.deployable import Deployable


@dataclass(frozen=True)
class Target(ABC):
    """A program to write packages for. Its fields are the options that apply to it, and no others can be given."""

    @abstractmethod
    def check(self, deployable: Deployable) -> None:
        """Refuse what the program cannot run, from the contract alone.

        Raises:
            UsageError: what does not fit, and what to do about it.
        """

    @abstractmethod
    def write(self, deployable: Deployable, folder: Path) -> list[str]:
        """Fill an empty folder; returns lines that say what is to be done with it.

        Raises:
            ArtifactError, CheckFailed: the graph is not what it has to be.
        """


def write_package(deployable: Deployable, target: Target, output: str | os.PathLike[str]) -> list[str]:
    """Write a package to the new folder `output`; returns the target's lines.

    Raises:
        UsageError: the target cannot run the deployable, or the folder is there and not empty.
        ArtifactError, CheckFailed: see `Target.write`.
    """
    target.check(deployable)
    with new_folder(output) as folder:
        return target.write(deployable, folder)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, renamed onto it on success and removed otherwise.

    Raises:
        UsageError: `path` is there and not empty.
    """
    wanted = Path(path)
    if wanted.exists() and not (wanted.is_dir() and not any(wanted.iterdir())):
        raise UsageError(f"'{wanted}' is there already", "Name a new folder with -o, or remove that one")
    wanted.parent.mkdir(parents=True, exist_ok=True)
    temporary = wanted.with_name(f".{wanted.name}.{secrets.token_hex(4)}{PARTIAL}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.replace(wanted)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
