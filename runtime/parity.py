"""Is it still the same detector? The same frames through a reference and its candidates, output by output, metric by
metric, target by target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from irforge.contract import Contract, Tile
from irforge.datasets import Sample
from irforge.errors import CheckFailed, UsageError
from irforge.frames import prepare
from irforge.rescoring import Rescorer, eight_bit
from irforge.runtime.limits import Limits
from irforge.runtime.report.figures import Accuracy, OutputKind, Parity
from irforge.runtime.report.wording import plural
from irforge.runtime.tally import FrameRead, Judge
from irforge.runtime.tally_boxes import BoxJudge
from irforge.runtime.tally_masks import MaskJudge
from irforge.runtime.tiled_parity import TiledJudge, TileRuns
from irforge.runtime.tiling import TiledDetector
from irforge.session import Array, Session
from irforge.tiles import whole_frame

CROPS_PER_MODEL = 8
_JUDGES: Mapping[OutputKind, Callable[[Contract, str], Judge]] = {"mask": MaskJudge, "boxes": BoxJudge}


@dataclass(frozen=True)
class ParityReport:
    """`reference` is None without truth, and so are the metrics inside `candidates`."""

    reference: Accuracy | None
    candidates: Mapping[str, tuple[Accuracy | None, Parity]]

    def require(self) -> None:
        """Raise CheckFailed if a limit was missed, naming the first."""
        for name, (_, parity) in self.candidates.items():
            require(name, parity)


def require(name: str, parity: Parity) -> None:
    """Raise CheckFailed if candidate `name` missed a limit."""
    missed = [check for check in parity.checks if not check.passed]
    if missed:
        worst = missed[0]
        value = "not measurable" if worst.value is None else f"{worst.value:.3g}"
        measured = f"{value} {worst.unit}".rstrip()
        others = f" ({plural(len(missed) - 1, 'more limit')} missed)" if len(missed) > 1 else ""
        raise CheckFailed(
            f"'{name}' against '{parity.reference}': {worst.name} {measured}, limit {worst.limit:g}{others}",
            "The report lists what changed; 'irforge calibrate' with more frames or another method may mend INT8",
        )


def compare(
    reference: Session | TiledDetector,
    candidates: Mapping[str, Session | TiledDetector],
    samples: Iterable[Sample],
    contract: Contract,
    *,
    reference_name: str = "reference",
    limits: Mapping[str, Limits] | None = None,
    crops: int = CROPS_PER_MODEL,
    workers: int = 1,
    rescorers: Mapping[str, Rescorer] | None = None,
) -> ParityReport:
    """Run every frame through all sessions and compare.

    Each frame is prepared once. Masks are compared and scored in the window that the frame fills, without the padding,
    against the true mask at that window's size; boxes in frame pixels. Of masks nothing is kept but sums and small
    crops, of boxes also the detections, so any number of frames will do.

    Args:
        reference: what the candidates should be equal to; all are tiled where the contract's fit is `tile`.
        candidates: by name.
        samples: a Dataset or any part of one; all with truth or all without.
        contract: the input, output and threshold that all of them share.
        limits: by candidate's name; `LIMITS` has those for an output and a precision. Without any only finite values
            are asked for.
        crops: pictures of at most this many changed targets a candidate.
        workers: sessions that may run at the same time, each in a thread of its own where its thread rule allows it.
        rescorers: what judges a session's boxes again, by its name: what its contract names as a companion.

    Raises:
        UsageError: there is no frame, or only some have truth.
        InputError: a frame, mask or annotation cannot be used.
        ArtifactError: a graph's output is not as the contract says, or the reference's is not finite.
        EnvironmentFault: boxes have truth, and faster-coco-eval is not installed.
    """
    judge = _JUDGES[contract.output.kind](contract, reference_name)
    spec = contract.input
    if isinstance(spec.fit, Tile):
        lowest = min([contract.output.score_threshold, *(one.spec.lower for one in (rescorers or {}).values())])
        judge, spec = TiledJudge(judge, contract, lowest), whole_frame(spec, spec.fit.overlap)
    held = limits or {}
    tallies = {name: judge.tally(held.get(name, ()), crops) for name in candidates}
    sessions: dict[str, Runs] = {
        name: TileRuns(one) if isinstance(one, TiledDetector) else one
        for name, one in {reference_name: reference, **candidates}.items()
    }
    frames = with_truth = 0
    with ThreadPoolExecutor(workers) as pool:
        for sample in samples:
            raw = sample.frame()
            feed, geometry = prepare(raw, spec, f"'{sample.frame_path}'")
            outputs = _run_all(sessions, {spec.name: feed}, pool)
            answers = {name: judge.read(output, geometry, name) for name, output in outputs.items()}
            for name, rescorer in (rescorers or {}).items():
                found = rescorer.apply(answers[name].detections, eight_bit(raw, contract.input), 0.0)
                answers[name] = replace(answers[name], detections=found)
            seen = judge.see(FrameRead(sample, raw, feed, geometry), answers.pop(reference_name))
            frames += 1
            with_truth += seen.truth is not None
            for name, answer in answers.items():
                tallies[name].add(seen, answer)
    if not frames:
        raise UsageError("there is no frame to compare on", "Name a split that holds frames")
    if with_truth not in (0, frames):
        raise UsageError(f"only {with_truth} of {frames} frames have truth", "Name data of which all frames have it")
    base = judge.accuracy() if with_truth else None
    return ParityReport(base, {name: tally.result(base, reference_name, frames) for name, tally in tallies.items()})


class Runs(Protocol):
    """A Session, or one that is shown frames in tiles."""

    @property
    def thread_rule(self) -> str: ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...


def _run_all(
    sessions: Mapping[str, Runs], feeds: Mapping[str, Array], pool: ThreadPoolExecutor
) -> dict[str, dict[str, Array]]:
    bound = {name for name, session in sessions.items() if session.thread_rule == "the creating thread"}
    running = {name: pool.submit(sessions[name].run, feeds) for name in sessions if name not in bound}
    here = {name: sessions[name].run(feeds) for name in bound}
    return {name: here[name] if name in bound else running[name].result() for name in sessions}
