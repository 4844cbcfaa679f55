"""Tracks of small targets: `python benchmarks/tracking.py -o tracking.json`, with MODEL for a detector's own figures.

Without a model, detections are simulated from the truth: what is judged is the tracker, not what feeds it. Scenes are
targets of 2 to 5 pixels over real backgrounds (those of SIRST-V2) that a camera pans and shakes over. With a model it
detects in the same scenes; `--clips` adds annotated clips (20 of drone_ir's test videos, two of Anti-UAV410) with HOTA
(Luiten et al., IJCV 2021) and IDF1 (Ristani et al., 2016), computed by the `trackers` library.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irforge.errors import UsageError, run_command
from irforge.metrics.alarms import AlarmCount

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from irforge.detections import Detections
    from irforge.runtime.detector import SessionDetector
    from irforge.runtime.sources import SourceFrame
    from irforge.runtime.tracking import Tracked, Tracker

    Points = npt.NDArray[np.floating[Any]]
    Truth = tuple[list[int], Points]

FPS = 25.0
SIZE = (256, 320)
WITHIN = 3.0
ALARMS, PD, JITTER = 0.5, 0.85, 0.5
"""Of simulated detections: false ones a frame, the share of targets found, pixels of error of a centre (sigma)."""


_NOTHING = AlarmCount(0, 0, 0.0, (0.0, 0.0))


def variants() -> dict[str, Any]:
    """By name: the settings that are compared."""
    from irforge.runtime.tracking import TrackSettings

    return {
        "centre, camera": TrackSettings(),
        "centre": TrackSettings(camera=False),
        "overlap, camera": TrackSettings(by="overlap"),
        "overlap (library default)": TrackSettings(by="overlap", camera=False),
    }


def scene(background: Any, frames: int, seed: int, targets: int = 3) -> Iterator[tuple[SourceFrame, Truth]]:
    """A clip over one background picture: frames, and which targets are where, (x, y) as edge coordinates.

    The camera pans by up to 3 pixels a frame and shakes by 2 (sigma); targets of 2 to 5 pixels and 25 to 70 levels move
    by up to 2 pixels a frame over the ground.
    """
    import cv2
    import numpy as np

    from irforge.runtime.sources import SourceFrame

    random = np.random.default_rng(seed)
    height, width = SIZE
    # Mirrored, so that a camera may pan as far as it likes.
    ground = np.pad(background, ((0, height), (0, width)), mode="symmetric").astype(np.float32)
    room = np.array(ground.shape[::-1]) - (width, height)
    camera, pan = random.uniform(0.3, 0.7, 2) * room, random.uniform(-3, 3, 2)
    places = camera + random.uniform(0.2, 0.8, (targets, 2)) * (width, height)
    steps = random.uniform(-2, 2, (targets, 2)) + pan * 0.8
    sides, levels = random.uniform(2, 5, targets), random.uniform(25, 70, targets)
    for index in range(frames):
        shown = np.clip(camera + random.normal(0, 2, 2), 0, room)
        shift = np.array([[1, 0, -shown[0]], [0, 1, -shown[1]]])
        picture = cv2.warpAffine(ground, shift, (width, height), flags=cv2.INTER_LINEAR)
        seen = places - shown
        for (x, y), side, level in zip(seen, sides, levels, strict=True):
            _shine(picture, x, y, level, side / 2.355)
        picture += 2 * random.standard_normal(SIZE, np.float32)
        inside = ((seen > 4) & (seen < (width - 4, height - 4))).all(axis=1)
        frame = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        yield SourceFrame(index, "scene", index / FPS, frame), (np.flatnonzero(inside).tolist(), seen[inside])
        pan = np.where((camera + pan < 0) | (camera + pan > room), -pan, pan)
        camera, places = camera + pan, places + steps


def _shine(picture: Any, x: float, y: float, level: float, sigma: float) -> None:
    """Add a spot to the part of a picture around it, in place."""
    import numpy as np

    left, top = max(int(x) - 8, 0), max(int(y) - 8, 0)
    part = picture[top : max(int(y) + 9, 0), left : max(int(x) + 9, 0)]
    ys, xs = (np.arange(side) + 0.5 for side in part.shape)
    part += level * np.exp(-((xs + left - x) ** 2 + (ys[:, None] + top - y) ** 2) / (2 * sigma**2))


def simulated(truth: Truth, random: np.random.Generator) -> Detections:
    """What a detector might find: targets with errors, and false alarms anywhere."""
    import numpy as np

    from irforge.detections import Detections

    points = truth[1][random.random(len(truth[1])) < PD]
    points = points + random.normal(0, JITTER, points.shape)
    points = np.concatenate([points, random.uniform(0, 1, (random.poisson(ALARMS), 2)) * SIZE[::-1]])
    sides = random.uniform(2, 5, (len(points), 2)) / 2
    boxes = np.concatenate([points - sides, points + sides], axis=1)
    return Detections(boxes, random.uniform(0.5, 1, len(points)), np.zeros(len(points)), points)


class Score:
    """What an operator lives with, summed over clips: see `result`."""

    def __init__(self) -> None:
        self.waits: list[int] = []
        self.visible = self.followed = self.breaks = self.targets = self.never = self.false_tracks = 0
        self.frames = 0

    def add(self, truths: Sequence[Truth], tracked: Sequence[Tracked]) -> None:
        """One clip."""
        import numpy as np

        from irforge.metrics.matching import claims, pairs_of

        first: dict[int, int] = {}
        confirmed: dict[int, int] = {}
        owner: dict[int, int] = {}
        right: dict[int, int] = {}
        seen: dict[int, int] = {}
        for index, ((names, places), found) in enumerate(zip(truths, tracked, strict=True)):
            rows = np.flatnonzero(found.tracks >= 0)
            centres = (found.boxes[rows, :2] + found.boxes[rows, 2:]) / 2
            apart = np.hypot(*(centres[:, None] - np.asarray(places).reshape(1, -1, 2)).transpose(2, 0, 1))
            matched = dict(pairs_of(claims(-apart, apart < WITHIN)))
            for track in found.tracks[rows].tolist():
                seen[track] = seen.get(track, 0) + 1
            for place, name in enumerate(names):
                first.setdefault(name, index)
                self.visible += 1
                if place in matched:
                    track = int(found.tracks[rows[matched[place]]])
                    right[track] = right.get(track, 0) + 1
                    self.followed += 1
                    confirmed.setdefault(name, index)
                    self.breaks += owner.get(name, track) != track
                    owner[name] = track
        self.frames += len(truths)
        self.targets += len(first)
        self.never += len(first) - len(confirmed)
        self.waits += [confirmed[name] - first[name] + 1 for name in confirmed]
        # A track is false where it is on no target in half of its frames.
        self.false_tracks += sum(2 * right.get(track, 0) < count for track, count in seen.items())

    def result(self) -> dict[str, Any]:
        """first_track: frames until a target has its first confirmed track, median and p90 of those that get one.
        track_pd: the share of a target's frames in which a confirmed track is within 3 pixels of it. breaks: changes of
        a target's track number a minute of target. false_tracks: an hour at 25 frames a second, with the exact 95 %
        interval of a Poisson count.
        """
        import numpy as np

        from irforge.metrics.alarms import alarm_count

        waits = np.percentile(self.waits, (50, 90), method="inverted_cdf").tolist() if self.waits else [None, None]
        return {
            "frames": self.frames,
            "targets": self.targets,
            "never_tracked": self.never,
            "first_track_frames": {"p50": waits[0], "p90": waits[1]},
            "track_pd": self.followed / max(self.visible, 1),
            "breaks_a_minute": self.breaks / max(self.visible / FPS / 60, 1e-9),
            "false_tracks": asdict(alarm_count(self.false_tracks, self.frames, FPS) or _NOTHING),
        }


def from_noise(hours: float, alarms: float) -> dict[str, Any]:
    """False tracks where there is nothing but false alarms, `alarms` a frame anywhere in it, by the settings that
    `irforge run --track` has; a scene is too short to count them in."""
    import numpy as np

    from irforge.detections import Detections
    from irforge.metrics.alarms import alarm_count
    from irforge.runtime.sources import SourceFrame
    from irforge.runtime.tracking import Tracker, TrackSettings

    random = np.random.default_rng(0)
    # There is no picture in which a camera could be seen to move.
    made, blank = Tracker(TrackSettings(camera=False), FPS), np.zeros((1, 1), np.uint8)
    frames = round(hours * 3600 * FPS)
    tracks: set[int] = set()
    for index in range(frames):
        points = random.uniform(0, 1, (random.poisson(alarms), 2)) * SIZE[::-1]
        boxes = np.concatenate([points - 1.5, points + 1.5], axis=1)
        found = Detections(boxes, random.uniform(0.5, 1, len(points)), np.zeros(len(points)), points)
        tracks.update(made.update(SourceFrame(index, "noise", index / FPS, blank), found).tracks.tolist())
    return asdict(alarm_count(len(tracks - {-1}), frames, FPS) or _NOTHING)


def in_scenes(detector: SessionDetector | None, scenes: int, frames: int) -> dict[str, Any]:
    """The figures of every variant on the same detections of the same scenes."""
    import numpy as np

    from benchmarks.backgrounds import backgrounds
    from irforge.datasets import open_dataset
    from irforge.runtime.tracking import Tracker

    scores = {name: Score() for name in variants()}
    for seed, background in enumerate(backgrounds(open_dataset("SIRST-V2"), scenes, max(SIZE))):
        random = np.random.default_rng((seed, 1))
        trackers = {name: Tracker(settings, FPS) for name, settings in variants().items()}
        truths: list[Truth] = []
        tracked: dict[str, list[Tracked]] = {name: [] for name in trackers}
        for record, truth in scene(background, frames, seed):
            found = simulated(truth, random) if detector is None else detector(record.frame)
            truths.append(truth)
            for name, made in trackers.items():
                tracked[name].append(made.update(record, found))
        for name, score in scores.items():
            score.add(truths, tracked[name])
    return {name: score.result() for name, score in scores.items()}


def linked(boxes: Sequence[Points]) -> list[list[int]]:
    """Identities for true boxes that come without: each goes on with the nearest of the last second that is left within
    40 pixels of it."""
    import numpy as np

    from irforge.metrics.matching import centre_distances, claims

    known: dict[int, tuple[int, Points]] = {}
    numbers = []
    for index, now in enumerate(boxes):
        alive = [number for number, (last, _) in known.items() if index - last <= 30]
        before = np.array([known[number][1] for number in alive]).reshape(-1, 4)
        apart = centre_distances(now, before)
        owners = claims(-apart, apart < 40)
        mine = [alive[owner] if owner >= 0 else -1 for owner in owners.tolist()]
        for row, number in enumerate(mine):
            mine[row] = number if number >= 0 else len(known) + 1
            known[mine[row]] = (index, now[row])
        numbers.append(mine)
    return numbers


def annotated_clips(root: Path, drones: int) -> Iterator[tuple[str, Path, list[Points]]]:
    """(name, video, true boxes xyxy from 0 of each frame) of Anti-UAV410's two clips and `drones` of drone_ir's."""
    import json

    import numpy as np

    for path in sorted((root / "video_demo").glob("*.gt.txt")):
        rows = np.loadtxt(path, delimiter=",").reshape(-1, 4)
        boxes = [np.array([(x, y, x + w, y + h)]) if w > 0 else np.empty((0, 4)) for x, y, w, h in rows]
        yield path.name.removesuffix(".gt.txt"), path.with_name(path.name.replace(".gt.txt", ".mp4")), boxes
    labels = json.loads((root / "drone_ir" / "labels" / "test.json").read_text())["videos"]
    # Evenly over the sorted names, so that all four classes are there.
    for k in np.unique(np.linspace(0, len(labels) - 1, drones).round().astype(int)):
        name = sorted(labels)[k]
        frames = [np.array([row[1:] for row in rows]).reshape(-1, 4) for rows in labels[name]["boxes"]]
        # Counted from 1 there.
        boxes = [np.concatenate([f[:, :2] - 1, f[:, :2] - 1 + f[:, 2:]], axis=1) for f in frames]
        yield name, root / "drone_ir" / labels[name]["video"], boxes


def in_clips(
    detector: SessionDetector, clips: Iterator[tuple[str, Path, list[Points]]], limit: int | None
) -> dict[str, Any]:
    """HOTA, IDF1 at IoU 0.5 and IDF1 within 10 pixels of centres, of every variant, clip by clip and together."""
    from irforge.metrics.matching import box_iou, centre_distances
    from irforge.runtime.pipeline import Pipeline
    from irforge.runtime.sources import open_source
    from irforge.runtime.tracking import Tracker

    rows: dict[str, dict[str, Any]] = {name: {} for name in variants()}
    sums: dict[str, dict[str, list[Any]]] = {name: {"hota": [], "idf1": [], "near": []} for name in variants()}
    for clip, video, boxes in clips:
        truth_ids = linked(boxes)
        with open_source(video) as source, Pipeline(detector, [source], limit=limit) as pipeline:
            trackers: Mapping[str, Tracker] = {n: Tracker(settings, source.fps) for n, settings in variants().items()}
            tracked: dict[str, list[Tracked]] = {name: [] for name in trackers}
            for result in pipeline:
                for name, made in trackers.items():
                    tracked[name].append(made.update(result.record, result.detections))
        for name, results in tracked.items():
            kept = [(one.tracks[one.tracks >= 0], one.boxes[one.tracks >= 0]) for one in results]
            overlaps = [box_iou(boxes[k], found) for k, (_, found) in enumerate(kept)]
            # 0.5 at ten pixels.
            near = [1 - centre_distances(boxes[k], found) / 20 for k, (_, found) in enumerate(kept)]
            figures = _figures(truth_ids[: len(kept)], [ids for ids, _ in kept], overlaps, near)
            rows[name][clip] = {key: figures[key][word] for key, word in _WORDS.items()} | {"frames": len(kept)}
            for key, value in figures.items():
                sums[name][key].append(value)
    return {name: {"clips": rows[name], "together": _together(sums[name])} for name in rows}


_WORDS = {"hota": "HOTA", "idf1": "IDF1", "near": "IDF1"}


def _figures(truths: Sequence[list[int]], found: Sequence[Any], overlaps: Any, near: Any) -> dict[str, Any]:
    import numpy as np
    from trackers.eval import compute_hota_metrics, compute_identity_metrics

    ids = [np.array(one, int) for one in truths]
    return {
        "hota": compute_hota_metrics(ids, list(found), overlaps),
        "idf1": compute_identity_metrics(ids, list(found), overlaps, threshold=0.5),
        "near": compute_identity_metrics(ids, list(found), [np.maximum(one, 0) for one in near], threshold=0.5),
    }


def _together(sums: Mapping[str, list[Any]]) -> dict[str, float]:
    from trackers.eval import aggregate_hota_metrics, aggregate_identity_metrics

    return {
        "hota": aggregate_hota_metrics(sums["hota"])["HOTA"],
        "idf1": aggregate_identity_metrics(sums["idf1"])["IDF1"],
        "near": aggregate_identity_metrics(sums["near"])["IDF1"],
    }


def main(
    model: Annotated[Path | None, typer.Argument(help="A deployable; without one detections are simulated.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the figures as JSON.")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="Backgrounds.")] = 20,
    frames: Annotated[int, typer.Option(min=10, help="Of each scene.")] = 150,
    clips: Annotated[
        int, typer.Option(min=0, help="Annotated clips of drone_ir, beside Anti-UAV's two; needs MODEL.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames of each clip.")] = None,
    hours: Annotated[float, typer.Option(min=0, help="Of false alarms alone, to count false tracks in.")] = 0.2,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the model.")] = 1,
    data_root: Annotated[Path | None, typer.Option(envvar="IRFORGE_DATA", help="Where the data lie.")] = None,
) -> None:
    """Time to the first track, track Pd, breaks, false tracks; HOTA and IDF1 on clips."""
    from contextlib import nullcontext

    from irforge.files import write_json
    from irforge.runtime.detector import load

    if clips and (model is None or data_root is None):
        raise UsageError("clips need a model and the place where the data lie", "Give MODEL, and --data-root")
    figures: dict[str, Any] = {"detections": "simulated" if model is None else model.name}
    with nullcontext() if model is None else load(model, threads=threads) as detector:
        figures["scenes"] = in_scenes(detector, scenes, frames)
        for name, row in figures["scenes"].items():
            waits = row["first_track_frames"]
            typer.echo(
                f"{name:26} first track after {waits['p50']}/{waits['p90']} frames (p50/p90), track Pd"
                f" {row['track_pd']:.3f}, {row['breaks_a_minute']:.2f} breaks a minute,"
                f" {row['false_tracks']['alarms']} false tracks; {row['targets']} targets"
            )
        figures["noise"] = {rate: from_noise(hours, rate) for rate in (0.5, 2.0)} if hours else {}
        for rate, row in figures["noise"].items():
            low, high = row["interval"]
            typer.echo(
                f"{rate} false alarms a frame: {row['alarms']} false tracks in {hours:g} hours,"
                f" {row['per_hour']:.1f} an hour ({low:.1f} to {high:.1f})"
            )
        if clips and detector is not None and data_root is not None:
            figures["clips"] = in_clips(detector, annotated_clips(data_root, clips), limit)
            for name, found in figures["clips"].items():
                together = found["together"]
                typer.echo(
                    f"{name:26} HOTA {together['hota']:.3f}, IDF1 {together['idf1']:.3f}, within 10 px"
                    f" {together['near']:.3f}; {len(found['clips'])} clips"
                )
    if out is not None:
        write_json(out, figures)


if __name__ == "__main__":
    run_command(main)
