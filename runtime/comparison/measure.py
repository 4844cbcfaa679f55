"""From entries and a dataset to a comparison: each model answers each frame once, then all take turns on the clock."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import numpy as np

from irforge import __version__
from irforge.datasets import Dataset
from irforge.errors import ArtifactError, UsageError
from irforge.files import sha256_of_file
from irforge.metrics.coco import coco_ap
from irforge.runtime.benchmark import Schedule, measure_latency
from irforge.runtime.clocks import distribution
from irforge.runtime.comparison.answers import Answers, FrameAnswer, answer_all, content_digest
from irforge.runtime.comparison.entry import Entry, class_notes, class_numbers, fit_words, sizes_inside
from irforge.runtime.comparison.gallery import gallery
from irforge.runtime.comparison.schema import Comparison, Contestant, Timing
from irforge.runtime.comparison.score import Score, as_target
from irforge.runtime.comparison.training import Progress, check_training
from irforge.runtime.detector import SessionDetector
from irforge.runtime.engine_facts import engine_facts
from irforge.runtime.findings import BUSY_LOAD, FEW_TARGETS
from irforge.runtime.machine import environment
from irforge.runtime.report.schema import Data, EngineFacts, Environment, Finding
from irforge.runtime.report.wording import plural
from irforge.runtime.rescoring import open_rescorer

SLOW = 5.0
"""Seconds a frame from which a model takes no turns on the clock: its time is that of the frames it answered."""
_TIMED_FRAMES = 64
_ORDER = ("bad", "caution", "good", "note")
_LINK = "A detection is right whose centre is less than 3 pixels from the true one's, or whose box has IoU 0.5 with it"
PROTOCOL = (
    "Each model takes frames as its own contract says, with its own threshold; what it answers is brought back to the "
    f"frame's own pixels and judged there. {_LINK}, one to one, best score first. A mask's detections are its "
    "connected components; mNoCoAP takes the middle of the brightest pixels of each as its point."
)


def compare_entries(
    entries: Sequence[Entry],
    dataset: Dataset,
    *,
    folder: Path,
    schedule: Schedule | None,
    threads: int,
    frame_rate: float,
    command: str,
    any_class: bool = False,
    pictures: int = 0,
    unseen: bool = False,
    data_root: str | os.PathLike[str] | None = None,
    held: int | None = None,
    progress: Progress = lambda description, steps: lambda: None,
) -> Comparison:
    """Measure all models on the same frames.

    Args:
        entries: of different names.
        dataset: frames with true boxes or masks.
        folder: where each model's answers are kept; see `irforge.runtime.comparison.answers`.
        schedule: of the clock; None for no clock.
        threads: what sessions are opened with, for the record.
        frame_rate: frames a second, of false alarms per hour.
        command: what the user typed, for the record.
        any_class: classes play no part.
        pictures: how many frames the gallery shows at most.
        unseen: leave out the frames that any of the models saw in training.
        data_root: where named datasets lie, to open training lists.
        held: how many frames the split holds, where `dataset` is a part of it.

    Raises:
        UsageError: no truth, no frame, or no class in common.
        InputError: a frame cannot be used, or does not fit a model.
        ArtifactError, EnvironmentFault: a model fails, or something that it needs is not here.
    """
    start = perf_counter()
    here = environment(threads)
    _check(dataset)
    classes = ["target"] if any_class else list(dataset.classes)
    numbers = [class_numbers(entry, classes, any_class) for entry in entries]
    for entry in entries:
        sizes_inside(entry, dataset)  # refuses what does not fit before a long search begins
    training = check_training(entries, dataset, data_root, left_out=unseen, progress=progress)
    held = held or len(dataset)
    if unseen:
        dataset = _without(dataset, training.seen)
    sizes = [sizes_inside(entry, dataset) for entry in entries]
    digests = [content_digest(sample) for sample in dataset]
    answers = [
        answer_all(entry, dataset, digests, folder, threads, progress(entry.name, len(dataset))) for entry in entries
    ]
    scores = [Score(e, classes, known, frame_rate) for e, known in zip(entries, numbers, strict=True)]
    tick = progress("figures", len(dataset))
    for sample, digest in zip(dataset, digests, strict=True):
        truth, frame = sample.boxes(), sample.frame()
        assert truth is not None
        truth = as_target(truth) if any_class else truth
        for score, answered in zip(scores, answers, strict=True):
            score.add(answered.frames[digest], truth, frame)
        tick()
    given = [[one.frames[digest] for digest in digests] for one in answers]
    timings = _timings(entries, dataset, given, schedule, threads, progress)
    contestants = [
        _contestant(entry, answered, score, timing, inside.most_common(1)[0][0], dataset)
        for entry, answered, score, timing, inside in zip(entries, answers, scores, timings, sizes, strict=True)
    ]
    data = Data(
        name=dataset.name,
        split=dataset.split,
        frames=len(dataset),
        frames_in_split=held,
        targets=contestants[0].objects.targets,
        licence=dataset.licence,
    )
    found = [*training.findings]
    found += [Finding(level="note", text=note) for entry in entries for note in class_notes(entry, classes, any_class)]
    found += _conditions(contestants, data, here)
    return Comparison(
        irforge_version=__version__,
        command=command,
        protocol=PROTOCOL,
        data=data,
        frame_rate=frame_rate,
        environment=here,
        contestants=contestants,
        findings=sorted(found, key=lambda finding: _ORDER.index(finding.level)),
        gallery=gallery(
            dataset.samples, [score.matches for score in scores], [entry.name for entry in entries], pictures
        )
        if pictures
        else [],
        seconds=perf_counter() - start,
    )


def _without(dataset: Dataset, rows: frozenset[int]) -> Dataset:
    kept = [row for row in range(len(dataset)) if row not in rows]
    if not kept:
        raise UsageError(f"each frame of '{dataset.name}' was seen in training", "Name other data, or drop --unseen")
    return dataset.subset(kept)


def _check(dataset: Dataset) -> None:
    """Refuse what would fail after the models have run for hours."""
    where = f"'{dataset.name}', split '{dataset.split}',"
    if not len(dataset):
        raise UsageError(f"{where} holds no frame", "Name a split that holds frames")
    if not dataset.has_boxes:
        raise UsageError(f"{where} has no truth for all of its frames", "Name data with masks or boxes")
    coco_ap([], [], dataset.classes)


def _timings(
    entries: Sequence[Entry],
    dataset: Dataset,
    given: Sequence[Sequence[FrameAnswer]],
    schedule: Schedule | None,
    threads: int,
    progress: Progress,
) -> list[Timing | None]:
    if schedule is None:
        return [None] * len(entries)
    slow = [float(np.median([frame.seconds for frame in frames])) > SLOW for frames in given]
    quick = [entry for entry, is_slow in zip(entries, slow, strict=True) if not is_slow]
    calls = schedule.rounds * schedule.frames_per_round
    rows = np.linspace(0, len(dataset) - 1, min(calls, _TIMED_FRAMES, len(dataset))).round().astype(int)
    frames = [dataset[row].frame() for row in rows.tolist()]
    found = {}
    with ExitStack() as stack:
        detectors = {}
        for entry in quick:
            rescorer = open_rescorer(entry.contract, entry.path, threads)
            detector = SessionDetector(entry.open(), entry.contract, entry.name, rescorer=rescorer)
            detectors[entry.name] = stack.enter_context(detector)
        if detectors:
            tick = progress("latency", calls * len(quick))
            found = measure_latency(detectors, frames, schedule, threads=threads, tick=tick)
    return [
        _alone(answers, threads)
        if is_slow
        else Timing(frame=found[entry.name].frame, interleaved=True, threads=threads)
        for entry, answers, is_slow in zip(entries, given, slow, strict=True)
    ]


def _alone(answers: Sequence[FrameAnswer], threads: int) -> Timing:
    """The time of the frames that so many threads answered, or, without any, of those that most threads
    answered in an earlier run."""
    used = Counter(one.threads for one in answers)
    chosen = threads if threads in used else used.most_common(1)[0][0]
    seconds = [one.seconds for one in answers if one.threads == chosen]
    return Timing(frame=distribution(seconds), interleaved=False, threads=chosen)


def _contestant(
    entry: Entry, answered: Answers, score: Score, timing: Timing | None, inside: tuple[int, int], dataset: Dataset
) -> Contestant:
    contract = entry.contract
    objects, mask = score.objects(), score.mask()
    macs, missing = None, {}
    if entry.macs is not None:
        try:
            macs = entry.macs(inside)
        except ArtifactError as error:
            missing["macs"] = error.what
    engine, no_engine = _engine(entry.path)
    gives_boxes = contract.output.kind == "boxes"
    reasons = {
        "mask": "it gives boxes" if gives_boxes else f"{dataset.name} has no masks",
        "nocoap": "frames have more than 8 bits" if objects.targets else "there is no target",
        "alarms": "no frame is free of targets",
        "parameters": entry.uncounted,
        "macs": entry.uncounted,
        "engine": no_engine,
        "timing": "not asked for",
    }
    reasons |= {"nocoap_legacy": reasons["nocoap"]} | missing
    found = {**vars(objects), "mask": mask, "parameters": entry.parameters, "macs": macs, "engine": engine}
    found["timing"] = timing
    return Contestant(
        name=entry.name,
        detector=contract.provenance.detector,
        output=contract.output.kind,
        precision=contract.provenance.precision,
        backend=answered.backend,
        device=answered.device,
        sha256=sha256_of_file(entry.path),
        file_bytes=entry.path.stat().st_size,
        fit=fit_words(contract.input),
        threshold=contract.output.score_threshold,
        parameters=entry.parameters,
        macs=macs,
        macs_size=None if macs is None else inside,
        engine=engine,
        mask=mask,
        mask_at_model=score.mask_at_model(),
        objects=objects,
        curve=score.curve(),
        mask_curve=score.mask_curve(),
        timing=timing,
        trained_on=[f"{note.name}:{note.split}, {note.frames}" for note in contract.provenance.trained_on],
        missing={name: reason for name, reason in reasons.items() if found[name] is None},
    )


def _engine(path: Path) -> tuple[EngineFacts | None, str]:
    """What is known of the engine of a model, the one for SM 8.9 if there are several; or why nothing is."""
    if not path.name.endswith((".onnx", ".engine")):
        return None, "a checkpoint has no compiled plan: export and build it"
    engines = engine_facts(path)
    chosen = next((one for one in engines if "8.9" in one.targets), engines[-1] if engines else None)
    return chosen, "no engine built from this file lies beside it"


def _conditions(contestants: Sequence[Contestant], data: Data, here: Environment) -> list[Finding]:
    found = []
    if data.targets and data.targets < FEW_TARGETS:
        n = f"{plural(data.targets, 'target')} in {plural(data.frames, 'frame')}"
        text = f"Only {n}: one more or less is {100 / data.targets:.1f} points of Pd."
        found.append(Finding(level="caution", text=text))
    timed = [one for one in contestants if one.timing]
    if timed and here.load_average and here.load_average[0] >= BUSY_LOAD:
        load = f"{here.load_average[0]:.1f} on {plural(here.cores, 'core')}"
        text = f"The machine was busy when the comparison began (load {load}): times are too long, ratios hold better."
        found.append(Finding(level="caution", text=text))
    alone = [
        one.name if one.timing.threads == here.threads else f"{one.name} ({plural(one.timing.threads, 'thread')})"
        for one in timed
        if one.timing and not one.timing.interleaved
    ]
    if alone:
        text = (
            f"Slower than {SLOW:g} s a frame, so timed without taking turns, on the frames of the accuracy: "
            f"{', '.join(alone)}."
        )
        found.append(Finding(level="note", text=text))
    return found
