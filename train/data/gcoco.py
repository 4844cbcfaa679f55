"""`python train/data/gcoco.py COCO -o GCOCO`: COCO in gray, less the classes to be learnt in thermal.

Base training of GLMD-CA: 72 classes stay, and those of IFSOD that COCO has too lose their boxes. What they held stays
in sight; `GCOCO:train` keeps all frames, as published.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import InputError, UsageError, run_command


def gcoco(
    source: Annotated[Path, typer.Argument(help="COCO: annotations/instances_SPLIT.json, and frames in SPLIT/.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; what is there already is kept.")],
    split: Annotated[list[str], typer.Option(help="As the annotations call it; repeat for several.")] = [  # noqa: B006
        "train2017",
        "val2017",
    ],
    drop: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="In place of the 8 of IFSOD; repeat for several.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that convert frames.")] = 1,
) -> None:
    """Write COCO's frames as gray JPEGs, and its annotations without the classes to be learnt later.

    A run that was stopped goes on where it was: frames are whole or not there, and annotations come last.
    """
    from irforge.datasets.classes import COCO_THERMAL

    for name in split:
        convert_split(source, out, name, COCO_THERMAL if drop is None else tuple(drop), workers)


def convert_split(source: Path, out: Path, split: str, dropped: tuple[str, ...], workers: int = 1) -> None:
    """Convert one split: `train2017` becomes OUT/train/*.jpg with OUT/annotations/train.json.

    Categories keep their ids; those dropped leave the list too, so that the rest is numbered from 0 without gaps.

    Raises:
        InputError: no such split, no COCO file, or a frame that is missing or unreadable.
        UsageError: a dropped class that the annotations do not have.
    """
    import json
    from concurrent.futures import ThreadPoolExecutor

    from irforge.files import write_bytes

    path = source / "annotations" / f"instances_{split}.json"
    if not path.is_file():
        raise InputError(f"there is no '{path}'", "Give the folder that holds annotations/, and --split as they say it")
    try:
        content = json.loads(path.read_bytes())
        categories = {category["id"]: category["name"] for category in content["categories"]}
        names = [image["file_name"] for image in content["images"]]
        gone = {number for number, name in categories.items() if name in dropped}
        kept = [annotation for annotation in content["annotations"] if annotation["category_id"] not in gone]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{path}' is no COCO annotation file ({error!r})", "Copy the file again") from None
    missing = [name for name in dropped if name not in categories.values()]
    if missing:
        raise UsageError(f"'{path}' has no class '{missing[0]}'", f"It has: {', '.join(categories.values())}")
    short = split.removesuffix("2017")
    jobs = [(source / split / name, out / short / Path(name).with_suffix(".jpg")) for name in names]
    fresh = [job for job in jobs if not job[1].is_file()]
    with ThreadPoolExecutor(workers) as pool:
        for _ in _tracked(pool.map(write_gray, *zip(*fresh, strict=True)) if fresh else [], len(fresh), split):
            pass
    content["annotations"] = kept
    content["categories"] = [category for category in content["categories"] if category["id"] not in gone]
    for image, (_, target) in zip(content["images"], jobs, strict=True):
        image["file_name"] = target.relative_to(out / short).as_posix()
    write_bytes(out / "annotations" / f"{short}.json", json.dumps(content).encode())
    typer.echo(
        f"{out / short}: {len(fresh)} of {len(names)} frames written now; {len(kept)} boxes of"
        f" {len(categories) - len(gone)} classes"
    )


def write_gray(source: Path, target: Path) -> None:
    """A frame as an 8-bit gray JPEG: 0.299 R + 0.587 G + 0.114 B, quality 95, levels as stored (EXIF is not applied).

    Raises:
        InputError: the frame is missing or cannot be read.
    """
    import cv2

    from irforge.files import write_bytes
    from irforge.frames import read_frame

    frame = read_frame(source)
    gray = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    write_bytes(target, cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


def _tracked(done: Iterable[None], total: int, title: str) -> Iterable[None]:
    from rich.console import Console
    from rich.progress import track

    err = Console(stderr=True)
    return track(done, title, total, console=err, transient=True, disable=not err.is_terminal)


if __name__ == "__main__":
    run_command(gcoco)
