"""What a camera's faults cost, without and with corrections: `python benchmarks/robustness.py mshnet.onnx itd.onnx`.

Frames of a dataset with masks (8 bits) are changed as a camera changes them, and each detector's Pd and false alarms
stand beside those on the frames as they are. A correction is what `irforge run` offers; where it offers none, the
column says so.

- gain +-30 %: levels times 1.3 or 0.7, clipped at 255.
- offset drift: 25 levels more on the whole, and 15 more or less from corner to corner.
- dead pixels: 0.1 % of the pixels, at fixed places, half of them black and half white. Corrected by a map that is
  learnt from 30 frames of a flat scene (`--dead-pixels flat:SOURCE`).
- inverted: black-hot. Corrected by `--invert`.
- shutter: before each frame the camera shows 3 frames of its closed shutter, flat but for noise and a bright rim
  (its own warmth), with what it sees of each frame before and after. Corrected by `--shutter`: what is found in flagged
  frames does not count, and neither do targets in them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irforge.errors import UsageError, run_command

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from irforge.datasets import Dataset
    from irforge.detections import Detections
    from irforge.runtime.detector import SessionDetector
    from irforge.runtime.thermal import Filter

    Frame = npt.NDArray[np.uint8]
    Points = npt.NDArray[np.floating[Any]]

WITHIN = 3.0
DEAD = 0.001
FLAT_FRAMES, CLOSED = 30, 3


@dataclass
class Tally:
    """Targets, those found, and detections that are none, over frames that count."""

    frames: int = 0
    targets: int = 0
    found: int = 0
    alarms: int = 0

    def add(self, found: Detections, truth: Points) -> None:
        import numpy as np

        from irforge.metrics.matching import box_centres, claims

        centres = box_centres(found.boxes) if found.centres is None else np.asarray(found.centres, np.float64)
        apart = np.hypot(*(centres[:, None] - truth.reshape(1, -1, 2)).transpose(2, 0, 1))
        owners = claims(-apart, apart < WITHIN)
        self.frames += 1
        self.targets += len(truth)
        self.found += int((owners >= 0).sum())
        self.alarms += int((owners < 0).sum())

    def result(self) -> dict[str, Any]:
        from irforge.metrics import wilson_interval

        return {
            "frames": self.frames,
            "targets": self.targets,
            "pd": self.found / max(self.targets, 1),
            "pd_interval": wilson_interval(self.found, self.targets),
            "alarms_a_frame": self.alarms / max(self.frames, 1),
        }


@dataclass(frozen=True)
class Fault:
    """What a camera does to a frame of size (height, width), and the filter of the runtime that undoes it, if any."""

    name: str
    harm: Callable[[Frame], Frame]
    mend: Callable[[tuple[int, int]], Filter] | None = None
    option: str = field(default="")


def faults() -> list[Fault]:
    """Those that change single frames."""
    import numpy as np

    from irforge.runtime.thermal import DeadPixels, InvertPolarity, learn_dead_pixels

    def scaled(factor: float) -> Callable[[Frame], Frame]:
        return lambda frame: np.clip(np.rint(frame * factor), 0, 255).astype(np.uint8)

    def drifted(frame: Frame) -> Frame:
        slopes = [np.linspace(-7.5, 7.5, side) for side in frame.shape]
        return np.clip(np.rint(frame + 25.0 + slopes[0][:, None] + slopes[1]), 0, 255).astype(np.uint8)

    def dead(frame: Frame) -> Frame:
        places, levels = dead_pixels(frame.shape)
        harmed = frame.copy()
        harmed.reshape(-1)[places] = levels
        return harmed

    def learnt(size: tuple[int, int]) -> Filter:
        random = np.random.default_rng(7)
        flat = (dead(random.normal(110, 2, size).astype(np.uint8)) for _ in range(FLAT_FRAMES))
        return DeadPixels(learn_dead_pixels(flat))

    return [
        Fault("gain +30 %", scaled(1.3)),
        Fault("gain -30 %", scaled(0.7)),
        Fault("offset drift", drifted),
        Fault("0.1 % dead pixels", dead, learnt, "--dead-pixels"),
        Fault("inverted polarity", lambda frame: 255 - frame, lambda _: InvertPolarity(8), "--invert"),
    ]


def dead_pixels(size: tuple[int, ...]) -> tuple[Any, Any]:
    """(places in the flattened frame, their levels), the same for every frame of a size."""
    import numpy as np

    random = np.random.default_rng(3)
    count = max(round(DEAD * size[0] * size[1]), 1)
    places = random.choice(size[0] * size[1], count, replace=False)
    return places, np.where(np.arange(count) % 2, 255, 0).astype(np.uint8)


def shutter_clip(frame: Frame, seed: int) -> Iterator[tuple[Frame, bool]]:
    """What a camera shows around one shutter event, and whether each frame holds the scene."""
    import numpy as np

    random = np.random.default_rng(seed)

    def shown(levels: Any, sigma: float) -> Frame:
        return np.clip(np.rint(levels + random.normal(0, sigma, frame.shape)), 0, 255).astype(np.uint8)

    ys, xs = (np.linspace(-1, 1, side) for side in frame.shape)
    closed = float(np.median(frame)) + 4 * np.maximum(np.abs(ys)[:, None], np.abs(xs)) ** 8
    for _ in range(2):
        yield shown(frame, 1), True
    for _ in range(CLOSED):
        yield shown(closed, 1), False
    yield shown(frame, 1), True


def measure(detector: SessionDetector, dataset: Dataset) -> dict[str, Any]:
    """Rows by fault; `off` without corrections, `on` with the one that is for it."""
    import numpy as np

    from irforge.frames import to_gray
    from irforge.metrics.matching import box_centres
    from irforge.runtime.sources import SourceFrame
    from irforge.runtime.thermal import Shutter

    rows: dict[str, dict[str, Tally]] = {"as it is": {"off": Tally()}}
    filters: dict[tuple[str, tuple[int, int]], Filter] = {}
    for seed, sample in enumerate(dataset):
        truth = sample.boxes()
        if truth is None:
            raise UsageError(f"'{dataset.name}' has no truth for '{sample.id}'", "Name data with masks or boxes")
        centres = box_centres(truth.boxes)
        frame = np.asarray(to_gray(sample.frame()), np.uint8)
        rows["as it is"]["off"].add(detector(frame), centres)
        for fault in faults():
            row = rows.setdefault(fault.name, {"off": Tally()} | ({"on": Tally()} if fault.mend else {}))
            harmed = fault.harm(frame)
            row["off"].add(detector(harmed), centres)
            if fault.mend is not None:
                key = fault.name, (frame.shape[0], frame.shape[1])
                if key not in filters:
                    filters[key] = fault.mend(key[1])
                row["on"].add(detector(filters[key](SourceFrame(0, sample.id, None, harmed)).frame), centres)
        row = rows.setdefault("one shutter event", {"off": Tally(), "on": Tally()})
        shutter = Shutter()
        for index, (shown, scene) in enumerate(shutter_clip(frame, seed)):
            record = shutter(SourceFrame(index, sample.id, None, shown))
            # The targets are there whether or not the camera shows them.
            row["off"].add(found := detector(shown), centres)
            if not record.shutter:
                row["on"].add(found, centres)
            elif scene:
                # A frame of the scene that was taken for a shutter is one that was missed.
                row["on"].targets += len(centres)
    return {name: {kind: tally.result() for kind, tally in row.items()} for name, row in rows.items()}


def shutters(dataset: Dataset) -> dict[str, int]:
    """How many shutter events there are, in how many every closed frame is flagged, and how many frames of the scene
    are flagged by mistake."""
    import numpy as np

    from irforge.frames import to_gray
    from irforge.runtime.sources import SourceFrame
    from irforge.runtime.thermal import Shutter

    whole = mistaken = 0
    for seed, sample in enumerate(dataset):
        shutter = Shutter()
        frame = np.asarray(to_gray(sample.frame()), np.uint8)
        clip = enumerate(shutter_clip(frame, seed))
        flags = [(shutter(SourceFrame(k, sample.id, None, shown)).shutter, scene) for k, (shown, scene) in clip]
        whole += all(flag for flag, scene in flags if not scene)
        mistaken += sum(flag for flag, scene in flags if scene)
    return {"events": len(dataset), "flagged_whole": whole, "scene_frames_flagged": mistaken}


def table(results: dict[str, dict[str, Any]]) -> Sequence[str]:
    """Markdown."""
    lines = [
        "| detector | fault | Pd | with correction | false alarms a frame | with correction |",
        "|---|---|---|---|---|---|",
    ]
    for model, rows in results.items():
        base = rows["as it is"]["off"]
        for name, row in rows.items():
            cells = [_cells(row.get(kind), base, name == "as it is") for kind in ("off", "on")]
            lines.append(f"| {model} | {name} | {cells[0][0]} | {cells[1][0]} | {cells[0][1]} | {cells[1][1]} |")
    return lines


def _cells(row: dict[str, Any] | None, base: dict[str, Any], plain: bool) -> tuple[str, str]:
    if row is None:
        return ("", "") if plain else ("none offered", "none offered")
    pd, alarms = row["pd"], row["alarms_a_frame"]
    if plain:
        return f"{pd:.3f}", f"{alarms:.2f}"
    return f"{pd:.3f} ({pd - base['pd']:+.3f})", f"{alarms:.2f} ({alarms - base['alarms_a_frame']:+.2f})"


def main(
    models: Annotated[list[Path], typer.Argument(metavar="MODELS...", help="Deployables for 8-bit frames.")],
    data: Annotated[str, typer.Option(help="NAME[:SPLIT] or a path, with masks.")] = "SIRST-V2:nuaa_50_50_test",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the figures as JSON.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Every k-th frame, N in all.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each model.")] = 1,
) -> None:
    """Pd and false alarms under a camera's faults."""
    import numpy as np

    from irforge.datasets import open_dataset
    from irforge.files import write_json
    from irforge.runtime.detector import load

    dataset = open_dataset(data)
    if limit is not None and limit < len(dataset):
        chosen = np.linspace(0, len(dataset) - 1, limit).round().astype(int).tolist()
        dataset = dataset.subset(chosen, f"{dataset.split}, {limit} frames")
    results = {}
    for path in models:
        with load(path, threads=threads) as detector:
            if detector.contract.input.bit_depth != 8:
                raise UsageError(
                    f"'{path}' takes frames of {detector.contract.input.bit_depth} bits", "Give 8-bit ones"
                )
            results[path.name] = measure(detector, dataset)
    for line in table(results):
        typer.echo(line)
    seen = shutters(dataset)
    typer.echo(
        f"{seen['events']} shutters, {seen['flagged_whole']} flagged in every frame;"
        f" {seen['scene_frames_flagged']} frames of the scene flagged"
    )
    if out is not None:
        write_json(out, {"data": f"{dataset.name}:{dataset.split}", "models": results, "shutters": seen})


if __name__ == "__main__":
    run_command(main)
