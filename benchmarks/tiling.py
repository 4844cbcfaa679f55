"""Do tiles find what the model finds? `python benchmarks/tiling.py mshnet.onnx itd.onnx -o tiling.json`.

Frames of 1920x1080 are real backgrounds of SIRST-V2, mirrored until they are large enough, with real targets of its
other frames pasted in; half of them lie across a seam between tiles. Three ways to look at the same targets: at native
size, each in the middle of a crop of the model's size; in tiles; and in the whole frame resized to the model.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irforge.errors import run_command

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from benchmarks.backgrounds import Target
    from irforge.detections import Detections
    from irforge.runtime.detector import SessionDetector

    Points = npt.NDArray[np.float64]

SIZE = (1080, 1920)
WITHIN = 3.0
LARGEST = 12
APART = 40


def composed(
    background: Any, pool: list[Target], seams: tuple[list[int], list[int]], count: int, random: np.random.Generator
) -> tuple[Any, Points]:
    """A frame of 1920x1080, uint8, and where its targets are, (x, y) as edge coordinates.

    Args:
        seams: (rows, columns) in the middle of where tiles overlap; every other target lies within 6 pixels of one.
    """
    import numpy as np

    from benchmarks.backgrounds import paste

    height, width = SIZE
    pads = [(0, max(side - there, 0)) for side, there in zip(SIZE, background.shape, strict=True)]
    frame = np.pad(background, pads, mode="symmetric")[:height, :width].astype(np.float32)
    places: list[tuple[int, int]] = []
    while len(places) < count:
        x, y = (int(v) for v in random.uniform(APART, np.array((width, height)) - APART))
        if len(places) % 2:
            offset = int(random.integers(-6, 7))
            if random.random() < 0.5:
                x = int(random.choice(seams[1])) + offset
            else:
                y = int(random.choice(seams[0])) + offset
        if all(max(abs(x - a), abs(y - b)) >= APART for a, b in places):
            places.append((x, y))
    centres = [paste(frame, pool[int(random.integers(len(pool)))], place) for place in places]
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8), np.array(centres)


def hits(found: Detections, truth: Points, within: float = WITHIN) -> tuple[list[bool], int, int]:
    """Which targets are found; how many are found more than once; and how many detections are near none."""
    import numpy as np

    from irforge.metrics.matching import box_centres, claims

    centres = box_centres(found.boxes) if found.centres is None else np.asarray(found.centres, np.float64)
    apart = np.hypot(*(centres[:, None] - truth[None]).transpose(2, 0, 1))
    owners = claims(-apart, apart < within)
    near = (apart < 2 * within).any(axis=1)
    taken = set(owners[owners >= 0].tolist())
    return [k in taken for k in range(len(truth))], int((near & (owners < 0)).sum()), int((~near).sum())


def measure(path: Path, overlap: int, frames: int, count: int, threads: int) -> dict[str, Any]:
    """Recall of one model at native size, in tiles and resized; doubles and alarms beside it."""
    import numpy as np

    from benchmarks.backgrounds import backgrounds, targets
    from irforge.contract import Squash
    from irforge.datasets import open_dataset
    from irforge.runtime.detector import SessionDetector, load
    from irforge.runtime.tiling import TiledDetector
    from irforge.tiles import Tiling

    dataset = open_dataset("SIRST-V2")
    pool = targets(dataset, LARGEST)
    with load(path, threads=threads) as detector:
        size = detector.contract.input.size
        tiling = Tiling(*SIZE, size, overlap)
        seams = _seams(tiling.rows, size[0]), _seams(tiling.columns, size[1])
        tiled = TiledDetector(detector, overlap)
        squashed = SessionDetector(detector.session, detector.contract.with_input(fit=Squash()))
        # A model pixel is so many frame pixels, and nobody can ask for more than to find the right one.
        coarse = WITHIN * max(SIZE[0] / size[0], SIZE[1] / size[1])
        found: dict[str, list[bool]] = {"native": [], "tiled": [], "resized": []}
        doubles = doubles_alone = alarms = 0
        for seed, background in enumerate(backgrounds(dataset, frames, 512)):
            frame, truth = composed(background, pool, seams, count, np.random.default_rng(seed))
            alone = [_alone(detector, frame, point, size) for point in truth]
            found["native"] += [right for right, _ in alone]
            right, twice, false = hits(tiled(frame), truth)
            found["tiled"] += right
            doubles, alarms = doubles + twice, alarms + false
            doubles_alone += sum(more for _, more in alone)
            found["resized"] += hits(squashed(frame), truth, coarse)[0]
    seamed = {name: rows[1::2] for name, rows in found.items()}
    return {
        "model": path.name,
        "tile": list(size),
        "overlap": overlap,
        "tiles": len(tiling.corners),
        "frames": frames,
        "targets": len(found["native"]),
        "recall": {name: float(np.mean(rows)) for name, rows in found.items()},
        "recall_on_seams": {name: float(np.mean(rows)) for name, rows in seamed.items()},
        "lost_in_tiles": int(np.sum(np.array(found["native"]) & ~np.array(found["tiled"]))),
        "gained_in_tiles": int(np.sum(~np.array(found["native"]) & np.array(found["tiled"]))),
        "doubled": doubles,
        "doubled_alone": doubles_alone,
        "alarms_a_frame": alarms / frames,
    }


def _seams(firsts: list[int], tile: int) -> list[int]:
    return [(one + tile + following) // 2 for one, following in pairwise(firsts)]


def _alone(detector: SessionDetector, frame: Any, point: Points, size: tuple[int, int]) -> tuple[bool, int]:
    """Whether the model finds a target in the middle of a crop of its own size, and how many more lie there."""
    import numpy as np

    height, width = size
    left, top = (int(v) for v in np.clip(point - (width / 2, height / 2), 0, np.array(SIZE[::-1]) - (width, height)))
    crop = frame[top : top + height, left : left + width]
    (right,), more, _ = hits(detector(crop), (point - (left, top))[None])
    return right, more


def main(
    models: Annotated[list[Path], typer.Argument(metavar="MODELS...", help="Deployables, at the size of a tile.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the figures as JSON.")] = None,
    overlap: Annotated[int, typer.Option(min=0, help="Pixels that tiles share.")] = 32,
    frames: Annotated[int, typer.Option(min=1, help="Of 1920x1080, each over a background of its own.")] = 20,
    count: Annotated[int, typer.Option("--targets", min=2, help="In each frame.")] = 16,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.")] = 1,
) -> None:
    """Recall at native size, in tiles and resized."""
    from irforge.files import write_json

    rows = []
    for path in models:
        rows.append(row := measure(path, overlap, frames, count, threads))
        recall, seams = row["recall"], row["recall_on_seams"]
        typer.echo(
            f"{path.name}, {row['targets']} targets, {row['tiles']} tiles: recall {recall['native']:.3f} native,"
            f" {recall['tiled']:.3f} in tiles, {recall['resized']:.3f} resized; on seams {seams['native']:.3f},"
            f" {seams['tiled']:.3f}; lost {row['lost_in_tiles']}, gained {row['gained_in_tiles']},"
            f" doubled {row['doubled']} (alone {row['doubled_alone']}); {row['alarms_a_frame']:.1f} alarms a frame"
        )
    if out is not None:
        write_json(out, rows)


if __name__ == "__main__":
    run_command(main)
