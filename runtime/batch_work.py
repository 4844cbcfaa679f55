"""What a worker does, in a process of its own or as one of Ray's actors: load a detector once, run videos."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

from irforge.errors import as_irforge_error
from irforge.runtime.batch_plan import Job, Recipe
from irforge.runtime.corrections import Corrections, parse_size, parse_telemetry, read_dead_pixels
from irforge.runtime.custom_ops import parse_life
from irforge.runtime.detector import load
from irforge.runtime.pipeline import Pipeline, Steps
from irforge.runtime.sinks import JsonLines
from irforge.runtime.sources import Layout, open_source
from irforge.runtime.tiling import TiledDetector
from irforge.runtime.tracking import Tracker, TrackSettings


@dataclass(frozen=True)
class Outcome:
    """What became of a video; `error` is the line that says why there is no result, empty where there is one."""

    name: str
    frames: int = 0
    detections: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def line(self) -> str:
        if self.error:
            return f"{self.name}: failed: {self.error}"
        rate = self.frames / max(self.seconds, 1e-9)
        return f"{self.name}: {self.frames} frames, {self.detections} detections, {rate:.1f} frames/s"


class Worker:
    """A detector that is loaded once, over one video after the other.

    Raises:
        IrforgeError: see `irforge.runtime.detector.load`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        detector = load(
            recipe.model,
            recipe.backend,
            recipe.threads,
            threshold=recipe.threshold,
            trust_engine=recipe.trust_engine,
            custom_ops=parse_life(recipe.custom_ops),
        )
        self._contract = contract = detector.contract
        size = parse_size(recipe.size) if recipe.size else None
        self._layout = Layout(size, recipe.bit_depth or contract.input.bit_depth, recipe.big_endian)
        rows = parse_telemetry(recipe.telemetry)
        dead = read_dead_pixels(recipe.dead_pixels, self._layout, rows) if recipe.dead_pixels else None
        self._corrections = Corrections(
            rows, recipe.shutter, dead, recipe.column_noise, recipe.invert, recipe.smooth_gain
        )
        detector.contract = self._corrections.contract(contract)
        fit = contract.input.fit
        overlap = recipe.tile if recipe.tile is not None or fit.kind != "tile" else fit.overlap
        self._steps: Steps = detector if overlap is None else TiledDetector(detector, overlap, recipe.batch)
        # Of a tiled detector the batch is one of tiles.
        self._batch = recipe.batch if overlap is None else None
        self._tracks = TrackSettings(
            recipe.track_by, recipe.track_reach, recipe.track_confirm, start=contract.output.score_threshold
        )

    def __call__(self, job: Job) -> Outcome:
        """Run a video; its result is whole under its name, or not there. Whatever goes wrong is the outcome's error."""
        try:
            return self._run(job)
        except Exception as error:  # noqa: BLE001 - a defect that one video shows must not stop an archive
            known = as_irforge_error(error)
            return Outcome(job.name, error=known.line if known else f"{type(error).__name__}: {error}")

    def _run(self, job: Job) -> Outcome:
        start = perf_counter()
        with ExitStack() as stack:
            source = stack.enter_context(open_source(job.video, self._layout))
            stream = self._corrections.behind(source, self._contract)
            trackers = [Tracker(self._tracks, stream.fps)] if self._recipe.track else []
            sink = stack.enter_context(JsonLines(job.result, self._contract.output.classes))
            pipeline = stack.enter_context(
                Pipeline(
                    self._steps,
                    [stream],
                    policy="lossless",
                    batch=self._batch,
                    limit=self._recipe.limit,
                    trackers=trackers,
                )
            )
            for result in pipeline:
                sink.write(result.record, result.detections)
        for other in job.replaced:
            other.unlink(missing_ok=True)
        counts = pipeline.counts
        return Outcome(job.name, counts.published, counts.detections, perf_counter() - start)
