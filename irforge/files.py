"""Atomic writes and content hashes: an artifact is either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irforge.errors import UsageError

PARTIAL = ".partial"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed onto `path`, otherwise removed.

    The temporary name keeps the suffix of `path`, because writers such as OpenCV choose the format by it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{PARTIAL}{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_overwriting(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse outputs that would destroy an input or one another. To be asked before anything is opened.

    Args:
        outputs: files or folders to write; None for those that are not wanted.
        inputs: files or folders to read. Of a folder those files count that data are made of: frames, masks,
            annotations, lists; other results may be written there again and again. With an engine counts its sidecar.

    Raises:
        UsageError: an output is an input, or another output, whatever name it goes by.
    """
    read: dict[Path, Path] = {}
    for path in inputs:
        if path is not None:
            read[path.resolve()] = path
            if path.suffix == ".engine":
                sidecar = Path(f"{path}.json")
                read[sidecar.resolve()] = sidecar
    remedy = "Name another place to write to"
    written: set[Path] = set()
    for output in outputs:
        if output is None:
            continue
        place = output.resolve()
        if place in read:
            raise UsageError(f"'{output}' is read, and writing to it would destroy it", remedy)
        if place in written:
            raise UsageError(f"'{output}' is to be written twice, with different content", remedy)
        written.add(place)
        # A link to a frame is a frame of the folder that the link lies in.
        folder = next((read[parent] for parent in (output.parent / "_").resolve().parents if parent in read), None)
        if folder is not None and _may_be_data(output):
            raise UsageError(f"'{output}' lies in '{folder}', which is read: writing to it would destroy data", remedy)


def _may_be_data(path: Path) -> bool:
    from irforge.frames import FRAME_SUFFIXES

    if not path.is_file():
        return False
    suffix = path.suffix.lower()
    if suffix == ".json":
        # COCO's files have this key; none of ours has.
        return b'"annotations"' in path.read_bytes()
    return suffix in FRAME_SUFFIXES or suffix in (".txt", ".lst", ".xml", ".yaml", ".yml")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
