"""A detector at work on one source for as long as somebody wants it: through losses, ends and new beginnings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np

from irforge.detections import Detections
from irforge.errors import InputError, IrforgeError, as_irforge_error
from irforge.runtime.detector import SessionDetector
from irforge.runtime.live.hub import Hub
from irforge.runtime.live.player import Player
from irforge.runtime.pipeline import Pipeline, Policy, Result, Steps, Tracks
from irforge.runtime.sinks import Sink
from irforge.runtime.sources import Source, SourceFrame
from irforge.runtime.sources.live import FIRST_WAIT, LONGEST_WAIT
from irforge.runtime.tracking.tracked import NO_TRACK, Tracked

# Ctrl-C is to end everything within a second: what then still waits for a camera is left behind.
_STOP_SECONDS = 0.6


class LiveSession:
    """Runs in a thread of its own while its `with` lasts, and does what viewers ask for.

    A camera that is lost, beyond what its source forgives, is opened again with growing pauses. A recording that ends
    can be played again. Anything else that fails ends the session: `over` is set, and `error` says why.

    Args:
        detector: closed by whoever opened it, after this; viewers set its threshold.
        open_source: opens the source; called now, and whenever it is to begin anew.
        hub: where results go.
        steps: what the pipeline runs where it is not the detector itself: `TiledDetector`.
        tracker: makes one for a stream of so many frames a second; None follows no targets.
        sinks: where else they go, but for frames that are only shown again; closed by whoever opened them, after this.
        policy: of the pipeline; None drops what comes too fast.
        fps: see `Player`.
        loop: play a recording for ever.
        say: told in one line of losses and returns.

    Raises:
        InputError, UsageError, EnvironmentFault: the source cannot be opened.
    """

    def __init__(
        self,
        detector: SessionDetector,
        open_source: Callable[[], Source],
        hub: Hub,
        sinks: Sequence[Sink] = (),
        *,
        steps: Steps | None = None,
        tracker: Callable[[float | None], Tracks] | None = None,
        policy: Policy | None = None,
        fps: float | None = None,
        loop: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.detector = detector
        self.error: Exception | None = None
        self.over = threading.Event()
        self.sinks = list(sinks)
        self._open, self._hub, self._policy = open_source, hub, policy
        self._steps, self._tracker = steps or detector, tracker
        self._fps, self._loop, self._say = fps, loop, say
        source = open_source()
        self.name, self.is_camera, self.frames = source.name, source.live, source.frames
        self._player = self._playing(source)
        self.fps = self._player.fps
        self._pipeline: Pipeline | None = None
        self._finishing = False
        self._called = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LiveSession:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finishing = True
        self._called.set()
        if self._pipeline is not None:
            self._pipeline.finish()
        self._player.stop()
        self._thread.join(_STOP_SECONDS)
        with self._writing:
            self.sinks.clear()
        if self.error is None:
            self._hub.report("stopped")

    @property
    def is_running(self) -> bool:
        """After the `with`: it was left behind."""
        return self._thread.is_alive()

    def set_threshold(self, threshold: float) -> None:
        """Detect from this score on; a paused frame is detected in again."""
        self._hub.threshold = self.detector.threshold = threshold
        self._player.again()
        self._hub.changed()

    def pause(self, paused: bool) -> None:
        """Hold or go on; a recording that has ended begins anew."""
        self._hub.paused = paused
        self._player.pause(paused)
        if not paused:
            self._called.set()
        self._hub.changed()

    def step(self) -> None:
        """While paused, one frame more."""
        self._player.step()

    def _run(self) -> None:
        try:
            self._play_on()
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the end
            self.error = error
            known = as_irforge_error(error)
            self._hub.report("stopped", known.line if known else repr(error))
        self.over.set()

    def _play_on(self) -> None:
        wait = FIRST_WAIT
        while not self._finishing:
            before = self._hub.latest
            try:
                self._play()
            except InputError as error:
                # A camera that never gave a frame is a mistake in the command, not a loss.
                if not self.is_camera or self._hub.latest is None:
                    raise
                wait = FIRST_WAIT if self._hub.latest is not before else min(2 * wait, LONGEST_WAIT)
                self._lost(error, wait)
            else:
                if not self._loop:
                    self._hub.report("ended")
                    self._wait(None)
            self._reopen(wait)

    def _play(self) -> None:
        trackers = [_Holding(self._tracker(self._player.fps))] if self._tracker else []
        with (
            self._player as player,
            Pipeline(self._steps, [player], policy=self._policy, trackers=trackers) as pipeline,
        ):
            self._pipeline = pipeline
            self._hub.count(pipeline.counts)
            for result in pipeline:
                self._write(result)
                self._hub.publish(result)
                if self._finishing:
                    pipeline.finish()

    def _write(self, result: Result) -> None:
        if result.record.captured is None:
            return
        with self._writing:
            for sink in self.sinks:
                sink.write(result.record, result.detections)

    def _reopen(self, wait: float) -> None:
        while not self._finishing:
            try:
                self._player = self._playing(self._open())
            except InputError as error:
                if not self.is_camera:
                    raise
                wait = min(2 * wait, LONGEST_WAIT)
                self._lost(error, wait)
            else:
                return

    def _playing(self, source: Source) -> Player:
        player = Player(source, self._fps)
        player.notify = self._heard
        player.pause(self._hub.paused)
        return player

    def _heard(self, line: str) -> None:
        if line:
            self._say(line)
            self._hub.report("lost", line)
        else:
            self._hub.report("running")

    def _lost(self, error: IrforgeError, wait: float) -> None:
        self._say(error.line)
        self._hub.report("lost", error.line)
        self._wait(wait)

    def _wait(self, seconds: float | None) -> None:
        """For a viewer to go on, or for the end of the session, or so long."""
        self._called.clear()
        if not self._finishing:
            self._called.wait(seconds)


class _Holding:
    """A tracker that takes a frame which is shown again for what it is: no time has passed."""

    _REACH = 2.0

    def __init__(self, tracker: Tracks) -> None:
        self._tracker = tracker
        self._last: Detections = Detections.empty()

    def update(self, record: SourceFrame, found: Detections) -> Detections:
        last = self._last
        if record.captured is not None or not isinstance(last, Tracked):
            self._last = self._tracker.update(record, found)
            return self._last
        tracks = np.full(len(found), NO_TRACK, np.int64)
        if len(last) and len(found):
            centres, before = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (found.boxes, last.boxes))
            apart = np.linalg.norm(centres[:, None] - before[None], axis=2)
            nearest = apart.argmin(axis=1)
            tracks = np.where(apart.min(axis=1) <= self._REACH, last.tracks[nearest], NO_TRACK)
        return Tracked.of(found, tracks, last.trails)
