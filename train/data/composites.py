"""Composites: backgrounds cut from thermal video (drone_ir, CC0 1.0) with rendered small targets and exact masks.

`python train/data/composites.py --data-root DATA --split train --frames 160 -o OUT` writes OUT/images, OUT/masks, a
list OUT/train.txt and OUT/train.csv, which says of each frame where its background comes from. The same seed gives the
same pixels. A background is a square without any annotated target, native size where one fits into the frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import InputError, run_command

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIDE = 256
_CUT_SIDES = (256, 224, 192, 160)
_BOX_MARGIN = 6
_FRAMES_TRIED = 16
_TARGET_COUNTS = {0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}
_COLUMNS = "id,video,frame,left,top,side,targets,areas\n"


def square_without(
    boxes: list[list[float]], width: int, height: int, rng: np.random.Generator
) -> tuple[int, int, int] | None:
    """(left, top, side) of a random square of the largest listed side that no box touches, or None.

    `boxes` are [category, x, y, w, h] with 1-based x and y, as the data set's MATLAB files have them.
    """
    for side in _CUT_SIDES:
        free = [
            (left, top)
            for left in range(0, width - side + 1, 8)
            for top in range(0, height - side + 1, 8)
            if all(
                x - 1 + w + _BOX_MARGIN <= left
                or x - 1 - _BOX_MARGIN >= left + side
                or y - 1 + h + _BOX_MARGIN <= top
                or y - 1 - _BOX_MARGIN >= top + side
                for _, x, y, w, h in boxes
            )
        ]
        if free:
            left, top = free[int(rng.integers(len(free)))]
            return left, top, side
    return None


def read_frame(path: Path, index: int) -> npt.NDArray[np.uint8]:
    """One video frame as gray (H x W, uint8).

    Raises:
        InputError: the video cannot be opened, or ends before `index`.
    """
    import cv2
    import numpy as np

    capture = cv2.VideoCapture(str(path))
    try:
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        found, frame = capture.read()
    finally:
        capture.release()
    if not found:
        raise InputError(f"cannot read frame {index} of '{path}'", "Check that the file is a whole video")
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)


def composite(
    root: Path, video: dict[str, Any], rng: np.random.Generator, count: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], str] | None:
    """(frame, mask, CSV fields after the id) from a random frame of one video, or None where no square fits.

    Of a few frames drawn, the one with the largest free square is taken.
    """
    import cv2
    import numpy as np

    from irforge.train.data.rendering import add_targets

    squares = []
    for index in map(int, rng.integers(len(video["boxes"]), size=_FRAMES_TRIED)):
        square = square_without(video["boxes"][index], video["width"], video["height"], rng)
        squares += [(index, *square)] if square else []
    if not squares:
        return None
    index, left, top, side = max(squares, key=lambda found: found[-1])
    background = read_frame(root / video["video"], index)[top : top + side, left : left + side]
    if side != SIDE:
        background = np.asarray(cv2.resize(background, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)
    frame, mask, targets = add_targets(background, count, rng)
    areas = " ".join(str(target.area) for target in targets)
    return frame, mask, f"{Path(video['video']).stem},{index},{left},{top},{side},{len(targets)},{areas}\n"


def write_pair(out: Path, identifier: str, frame: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> None:
    """Write images/ and masks/ of one frame as PNG; mask pixels are 0 and 255."""
    import cv2

    from irforge.files import write_bytes

    for folder, picture in (("images", frame), ("masks", mask.astype("uint8") * 255)):
        encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
        write_bytes(out / folder / f"{identifier}.png", encoded.tobytes())


def main(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write: images/, masks/, lists.")],
    data_root: Annotated[
        Path, typer.Option(envvar="IRFORGE_DATA", help="Folder that holds drone_ir/ (videos and labels).")
    ],
    split: Annotated[str, typer.Option(help="Which videos: train or test.")] = "train",
    frames: Annotated[int, typer.Option(min=1, help="How many frames; about one in ten has no target.")] = 160,
    calib: Annotated[int, typer.Option(min=0, help="How many more, all with targets, for a list calib.txt.")] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same pixels.")] = 2026,
) -> None:
    """Render small targets with exact masks onto thermal video backgrounds."""
    import json

    import numpy as np

    from irforge.files import write_text

    root = data_root / "drone_ir"
    labels = root / "labels" / f"{split}.json"
    if not labels.is_file():
        raise InputError(f"no '{labels}'", "Point --data-root at the folder of drone_ir; --split is train or test")
    videos = json.loads(labels.read_text())["videos"]
    rng = np.random.default_rng([seed, sum(map(ord, split))])
    queue: list[str] = []
    for name, number, counts in ((split, frames, [0, 1, 2, 3]), ("calib", calib, [1, 2, 3])):
        weights = np.array([_TARGET_COUNTS[count] for count in counts])
        rows: list[str] = []
        while len(rows) < number:
            # Every video once before any comes again, so that few frames still see many scenes.
            queue = queue or list(rng.permutation(sorted(videos)))
            count = int(rng.choice(counts, p=weights / weights.sum()))
            made = composite(root, videos[queue.pop()], rng, count)
            if made is None or (count > 0 and not made[1].any()):
                continue
            identifier = f"{name}_{len(rows):04d}"
            write_pair(out, identifier, made[0], made[1])
            rows.append(f"{identifier},{made[2]}")
        if rows:
            write_text(out / f"{name}.txt", "".join(row.split(",")[0] + "\n" for row in rows))
            write_text(out / f"{name}.csv", _COLUMNS + "".join(rows))
            typer.echo(f"{len(rows)} frames in '{out / name}.txt'")


if __name__ == "__main__":
    run_command(main)
