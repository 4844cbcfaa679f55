"""Which frames to calibrate on: a folder, a text list of files, or a dataset by name."""

from __future__ import annotations

from pathlib import Path

from irforge.datasets import Dataset, Sample, open_dataset
from irforge.errors import CalibrationError, InputError
from irforge.frames import FRAME_SUFFIXES

LIST_SUFFIXES = (".txt", ".lst")


def open_frames(source: str, data_root: Path | None = None) -> Dataset:
    """Open FRAMES: `NAME:SPLIT`, a folder, or a list of image paths relative to the list, one a line.

    Raises:
        InputError: missing or empty, or a listed file is missing.
        UsageError: no such dataset or split.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return _from_list(path)
    dataset = open_dataset(source, data_root)
    if not len(dataset):
        raise InputError(f"'{source}' holds no frames", f"Frames are {', '.join(sorted(FRAME_SUFFIXES))}")
    return dataset


def choose(dataset: Dataset, limit: int | None) -> Dataset:
    """At most `limit` frames, spread evenly over the set; always the same ones."""
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.subset([(2 * place + 1) * len(dataset) // (2 * limit) for place in range(limit)])


def refuse_flat(spans: list[tuple[int, int]], source: str) -> None:
    """Refuse a set in which every frame is of one level: all ranges would say nothing.

    Args:
        spans: lowest and highest raw level of each frame.

    Raises:
        CalibrationError: names the level.
    """
    if all(low == high for low, high in spans):
        levels = sorted({low for low, _ in spans})
        of = f"level {levels[0]}" if len(levels) == 1 else f"one level each ({levels[0]} to {levels[-1]})"
        raise CalibrationError(
            f"all {len(spans)} calibration frames of '{source}' are flat, of {of}",
            "Calibrate on real frames, with targets in them",
        )


def _from_list(path: Path) -> Dataset:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"list '{path}' is not UTF-8 text", "One image path a line is expected") from None
    lines = [line for line in lines if line]
    files = [path.parent / line for line in lines]
    if not files:
        raise InputError(f"list '{path}' is empty", "One image path a line is expected")
    for file in files:
        if not file.is_file():
            raise InputError(f"'{file}', which '{path}' lists, does not exist", "Mend the list; paths count from it")
    ids = [file.stem for file in files]
    if len(set(ids)) < len(ids):
        # Frames are looked up by id, and a stem that repeats would name another one.
        ids = lines
    samples = tuple(Sample(name, file) for name, file in zip(ids, files, strict=True))
    return Dataset(path.stem, "", path.parent, "not stated", samples)
