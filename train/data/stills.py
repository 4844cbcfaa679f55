"""`python train/data/stills.py --split train --every 30 -o OUT`: frames of drone_ir's videos and their boxes as a COCO
set, OUT/frames/*.png and OUT/annotations/SPLIT.json. The stills that come with the data are a few of each video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import InputError, UsageError, run_command

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def stills(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    data_root: Annotated[Path, typer.Option(envvar="IRFORGE_DATA", help="Folder that holds drone_ir/.")],
    split: Annotated[str, typer.Option(help="Which videos: train or test.")] = "train",
    every: Annotated[int, typer.Option(min=1, help="Take each n-th frame that has a target.")] = 30,
    start: Annotated[int, typer.Option(min=0, help="The first of them.")] = 10,
    without: Annotated[list[str] | None, typer.Option(metavar="CLASS", help="No frame that shows it.")] = None,
) -> None:
    """Cut frames with targets out of drone_ir's videos. Annotations come last: a folder without them is not whole."""
    import json

    import cv2

    from irforge.files import write_bytes

    root = data_root / "drone_ir"
    path = root / "labels" / f"{split}.json"
    if not path.is_file():
        raise InputError(f"there is no '{path}'", "Give the folder that holds drone_ir/, and --split train or test")
    labels = json.loads(path.read_bytes())
    names = {category["id"]: category["name"] for category in labels["categories"]}
    unknown = [name for name in without or () if name not in names.values()]
    if unknown:
        raise UsageError(f"drone_ir has no class '{unknown[0]}'", f"It has: {', '.join(names.values())}")
    barred = {number for number, name in names.items() if name in (without or ())}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, video in labels["videos"].items():
        wanted = [
            index
            for index in range(start, len(video["boxes"]), every)
            if video["boxes"][index] and not barred & {row[0] for row in video["boxes"][index]}
        ]
        for index, frame in frames_of(root / video["video"], wanted):
            height, width = frame.shape
            file_name = f"frames/{name}_{index:04d}.png"
            write_bytes(out / file_name, cv2.imencode(".png", frame)[1].tobytes())
            image = {"id": len(images) + 1, "file_name": file_name, "height": height, "width": width}
            images.append(image | {"video": name, "frame": index})
            for number, box in clipped(video["boxes"][index], width, height):
                own = {"id": len(annotations) + 1, "image_id": len(images), "category_id": number, "bbox": box}
                annotations.append(own | {"area": box[2] * box[3], "iscrowd": 0})
    if not images:
        raise UsageError("no frame is left", "Take more of them (--every), or leave out fewer classes")
    content = {"images": images, "annotations": annotations, "categories": labels["categories"]}
    write_bytes(out / "annotations" / f"{split}.json", json.dumps(content).encode())
    typer.echo(f"{out}: {len(images)} frames with {len(annotations)} boxes")


def frames_of(path: Path, wanted: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """The wanted frames of a video in ascending order, as gray uint8 H x W, each with its index.

    Raises:
        InputError: the video cannot be opened, or ends before the last of them.
    """
    import cv2
    import numpy as np

    capture = cv2.VideoCapture(str(path))
    chosen = set(wanted)
    try:
        for index in range(max(chosen, default=-1) + 1):
            if not capture.grab():
                raise InputError(f"cannot read frame {index} of '{path}'", "Check that the file is a whole video")
            if index in chosen:
                yield index, np.asarray(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2GRAY), np.uint8)
    finally:
        capture.release()


def clipped(rows: Sequence[Sequence[float]], width: int, height: int) -> Iterator[tuple[int, list[float]]]:
    """(category, [x, y, width, height] from 0 within the frame) of rows that count pixels from 1."""
    for number, x, y, w, h in rows:
        left, top = max(x - 1, 0.0), max(y - 1, 0.0)
        right, bottom = min(x - 1 + w, float(width)), min(y - 1 + h, float(height))
        if right > left and bottom > top:
            yield int(number), [left, top, right - left, bottom - top]


if __name__ == "__main__":
    run_command(stills)
