"""What a model answers, frame by frame, in a file that an interrupted run goes on with.

An answer belongs to the content of the frame and its mask, and its file to the model's content and contract, the
backend and the processor: frames that are already answered are not run again, whatever list they are in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from irforge import __version__
from irforge.artifact import load_model, model_fingerprint
from irforge.datasets import Sample
from irforge.detections import Detections
from irforge.errors import ArtifactError
from irforge.files import sha256_of_file, sha256_of_json, write_text
from irforge.frames import resize_mask
from irforge.frames.geometry import Geometry
from irforge.frames.resize import resize
from irforge.metrics import PixelMetrics, match_targets, points_from_map
from irforge.runtime.comparison.entry import Entry
from irforge.runtime.comparison.schema import Box
from irforge.runtime.detector import SessionDetector
from irforge.runtime.machine import cpu_name, gpu_name
from irforge.runtime.report.figures import Part
from irforge.runtime.rescoring import open_rescorer
from irforge.session import Session

Point = tuple[float, float, float]
"""x, y, score."""
LEVELS = tuple(k / 10 for k in range(1, 10))
"""Thresholds at which masks are counted for the curve of Pd over Fa."""
SAVE_EVERY = 20.0
"""Seconds between two writes of the file: what a power cut costs at most. Ctrl-C costs nothing."""
_FORMAT = 2


class MaskCounts(Part):
    """One frame's mask against the true one, in pixels and in targets; see `irforge.metrics.PixelMetrics`."""

    pixels: int
    intersection: int
    union: int
    targets: int
    found: int
    false_pixels: int


class FrameAnswer(Part):
    """All that is kept of one frame. Coordinates are the frame's; detections come best first.

    Box detectors keep all detections, whatever their score; mask detectors the components above the threshold, with the
    points that mNoCoAP takes for them, and the counts of masks where the truth has masks: in frame pixels, at the
    model's size where that is another, and (found, false pixels) at each of `LEVELS`. `seconds` are of `threads` CPU
    threads.
    """

    seconds: float = Field(ge=0)
    threads: int = Field(ge=1)
    boxes: list[Box]
    scores: list[float]
    classes: list[int]
    centres: list[tuple[float, float]] | None = None
    points: list[Point] | None = None
    pixels: list[Point] | None = None
    """Of the same components, by the published rule: see `irforge.metrics.points_from_map`."""
    mask: MaskCounts | None = None
    mask_at_model: MaskCounts | None = None
    levels: list[tuple[int, int]] = Field(default_factory=list)

    def detections(self, numbers: list[int]) -> Detections:
        """The detections with the dataset's class numbers; those of classes that it does not have are left out."""
        classes = np.array(numbers, np.int64)[np.array(self.classes, np.int64)]
        found = Detections(
            np.array(self.boxes, np.float32).reshape(-1, 4),
            np.array(self.scores, np.float32),
            classes,
            None if self.centres is None else np.array(self.centres, np.float32).reshape(-1, 2),
        )
        return found.take(found.classes >= 0)

    def point_detections(self, numbers: list[int], published: bool = False) -> Detections:
        """What mNoCoAP judges: the mask's points, by its published rule or by ours, or the boxes with their centres."""
        rows = self.pixels if published else self.points
        if rows is None:
            return self.detections(numbers)
        points = np.array(rows, np.float32).reshape(-1, 3)
        nowhere = np.concatenate([points[:, :2], points[:, :2]], axis=1)
        return Detections(nowhere, points[:, 2], np.zeros(len(points), np.int64), points[:, :2])


class Answers(Part):
    """The file. `frames` by the digest of frame and mask; `backend` and `device` are what ran them."""

    format: int = _FORMAT
    key: str
    model: str
    backend: str
    device: str
    frames: dict[str, FrameAnswer]


def answer_all(
    entry: Entry,
    samples: Iterable[Sample],
    digests: Iterable[str],
    folder: Path,
    threads: int,
    tick: Callable[[], None] = lambda: None,
) -> Answers:
    """Run a model on all frames that its file in `folder` does not answer yet, and keep the answers there.

    Args:
        samples: frames with truth.
        digests: of each, see `content_digest`.
        threads: CPU threads that the entry opens sessions with, and those of what judges boxes again.
        tick: called after each frame, run or remembered.

    Raises:
        InputError: a frame or mask cannot be used.
        ArtifactError: the model fails, or the file belongs to something else.
    """
    wanted = list(zip(samples, digests, strict=True))
    with entry.open() as session:
        key = answers_key(entry, session)
        path = folder / f"{entry.name}.{key[:12]}.json"
        kept = _read(path, key)
        frames = dict(kept.frames) if kept else {}
        if kept is not None and all(digest in frames for _, digest in wanted):
            for _ in wanted:
                tick()
            return kept
        # Boxes are kept whatever their score; a mask's components are those above the contract's threshold.
        level = 0.0 if entry.contract.output.kind == "boxes" else None
        rescorer = open_rescorer(entry.contract, entry.path, threads)
        detector = SessionDetector(session, entry.contract, entry.name, level, rescorer=rescorer)
        saved = monotonic()
        fresh = 0

        def save() -> Answers:
            now = Answers(key=key, model=entry.name, backend=_backend(session), device=session.device, frames=frames)
            write_text(path, now.model_dump_json() + "\n")
            return now

        try:
            for sample, digest in wanted:
                if digest not in frames:
                    frames[digest] = answer(detector, sample, threads)
                    fresh += 1
                tick()
                if fresh and monotonic() - saved > SAVE_EVERY:
                    save()
                    saved, fresh = monotonic(), 0
        except BaseException:
            if fresh:
                save()
            raise
        finally:
            if rescorer is not None:
                rescorer.close()
        return save()


def answer(detector: SessionDetector, sample: Sample, threads: int) -> FrameAnswer:
    """Run one frame, once, and take from its outputs what all metrics need."""
    frame, where = sample.frame(), f"'{sample.frame_path}'"
    start = perf_counter()
    tensor, geometry = detector.prepare(frame, where)
    outputs = detector.infer(tensor)
    found = detector.rescored(detector.decode(outputs, geometry, 0), frame, where)
    seconds = perf_counter() - start
    answered = FrameAnswer(
        seconds=seconds,
        threads=threads,
        boxes=[tuple(box) for box in found.boxes.tolist()],
        scores=found.scores.tolist(),
        classes=found.classes.tolist(),
        centres=None if found.centres is None else [tuple(point) for point in found.centres.tolist()],
    )
    output = detector.contract.output
    if output.kind == "boxes":
        return answered
    plane = np.asarray(geometry.crop(outputs["mask"][0, 0]), np.float32)
    level, connectivity = output.score_threshold, output.connectivity
    points = {
        "points": _in_frame(points_from_map(plane, level), geometry),
        "pixels": _in_frame(points_from_map(plane, level, "first"), geometry),
    }
    truth = sample.mask()
    if truth is None:
        return answered.model_copy(update=points)
    # A frame pixel takes the value of the model's pixel under its centre, as `Detections.mask` does.
    full = resize(plane, truth.shape[0], truth.shape[1], "nearest")
    resized = plane.shape != truth.shape
    at_model = _counts(plane, resize_mask(truth, *plane.shape), level, connectivity) if resized else None
    levels = [match_targets(full > np.float32(k), truth, connectivity=connectivity) for k in LEVELS]
    return answered.model_copy(
        update={
            **points,
            "mask": _counts(full, truth, level, connectivity),
            "mask_at_model": at_model,
            "levels": [(len(match.pairs), sum(match.extra_areas)) for match in levels],
        }
    )


def content_digest(sample: Sample) -> str:
    """Hex SHA-256 over the files of a frame and its mask."""
    mask = "" if sample.mask_path is None else sha256_of_file(sample.mask_path)
    return sha256_of_json([sha256_of_file(sample.frame_path), mask, sample.background])


def answers_key(entry: Entry, session: Session) -> str:
    """What decides a model's answers, as one hash: its content, its contract with companions, fit and threshold, and
    what runs it."""
    # A model may keep its weights in files beside it.
    graph = entry.path.name.endswith(".onnx")
    content = model_fingerprint(load_model(entry.path)) if graph else sha256_of_file(entry.path)
    where = cpu_name() if session.device == "cpu" else gpu_name()
    contract = entry.contract.model_dump(mode="json")
    return sha256_of_json([_FORMAT, __version__, content, contract, LEVELS, _backend(session), where])


def _backend(session: Session) -> str:
    return f"{session.backend}, {session.custom_ops}" if session.custom_ops else session.backend


def _in_frame(found: Detections, geometry: Geometry) -> list[Point]:
    assert found.centres is not None
    places = geometry.to_frame_points(found.centres + np.array((geometry.left, geometry.top), np.float32))
    return [(x, y, score) for (x, y), score in zip(places.tolist(), found.scores.tolist(), strict=True)]


def _counts(plane: npt.NDArray[Any], truth: npt.NDArray[np.bool_], level: float, connectivity: int) -> MaskCounts:
    metrics = PixelMetrics(level, connectivity=connectivity)
    metrics.update(plane, truth)
    found = metrics.result()
    return MaskCounts(
        pixels=found.pixels,
        intersection=found.intersection,
        union=found.union,
        targets=found.true_targets,
        found=found.found_targets,
        false_pixels=found.false_pixels,
    )


def _read(path: Path, key: str) -> Answers | None:
    if not path.is_file():
        return None
    try:
        kept = Answers.model_validate_json(path.read_bytes())
    except ValidationError:
        raise ArtifactError(f"'{path}' holds no answers of a model", "Delete it, and they are made anew") from None
    if kept.key != key or kept.format != _FORMAT:
        raise ArtifactError(f"'{path}' holds the answers of another model", "Delete it, and they are made anew")
    return kept
