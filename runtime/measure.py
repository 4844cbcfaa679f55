"""From loaded models and a dataset to a report: models of one size are compared with each other on the same frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

from irforge import __version__
from irforge.contract import Contract, InputSpec, OutputSpec, PadToMultiple, Squash, Tile
from irforge.datasets import Dataset, Sample
from irforge.errors import UsageError
from irforge.files import sha256_of_file
from irforge.frames import Frame
from irforge.metrics.coco import coco_ap
from irforge.runtime.benchmark import Schedule, measure_latency
from irforge.runtime.endurance import endurance
from irforge.runtime.engine_facts import engine_facts
from irforge.runtime.findings import ORDER, findings
from irforge.runtime.limits import LIMITS
from irforge.runtime.machine import environment, usable_cores
from irforge.runtime.opened import Opened, Watched, open_entry, run_alone
from irforge.runtime.parity import ParityReport, compare
from irforge.runtime.power import find_probes, resident_bytes
from irforge.runtime.report.schema import Data, Model, Report, Tiles
from irforge.runtime.report.times import Latency
from irforge.runtime.report.wording import size_text
from irforge.runtime.rescoring import companion_file, companion_of
from irforge.runtime.tiling import TiledDetector
from irforge.runtime.trtexec import measuring_commands
from irforge.session import Session
from irforge.tiles import Tiling, tile_overlap

_GIVES = {"mask": "a mask", "boxes": "boxes"}
LOOK_EVERY = 0.5
"""Seconds between two looks at power and clocks."""

Progress = Callable[[str, int], Callable[[], None]]
"""Called with a description and a number of steps; what it returns is called after each step."""


@dataclass(frozen=True)
class Plan:
    """How much to measure at one size: the clocks' schedule, and the first `frames` frames (None: all) for parity and
    accuracy. After the clocks each model runs alone for `sustained` seconds, and in `batches`, where there are any."""

    schedule: Schedule
    frames: int | None = None
    sustained: float = 0.0
    batches: tuple[int, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One row of the report to be: how to open it, and what it is. `contract` has a fixed size."""

    name: str
    path: Path
    contract: Contract
    open: Callable[[], Session]
    role: Literal["reference", "candidate"] = "candidate"

    @property
    def size(self) -> tuple[int, int]:
        return self.contract.input.size


def at_size(contract: Contract, size: tuple[int, int] | None) -> Contract:
    """The contract of a dynamic model at one size, by default the one that it is tuned for."""
    if not contract.input.is_dynamic:
        return contract
    height, width = size or contract.input.size
    return contract.with_input(height=height, width=width)


def under_protocol(contract: Contract, protocol: str | None) -> Contract:
    """The contract with the frames' fit replaced by a published protocol's.

    Args:
        contract: of a fixed size.
        protocol: `squash` resizes each frame to the model's size, as MSHNet's evaluation does; `native` keeps its size
            and pads it, as BasicIRSTD's does; None leaves what the contract says.

    Raises:
        UsageError: there is no such protocol.
    """
    if protocol is None:
        return contract
    if protocol == "squash":
        return contract.with_input(fit=Squash())
    if protocol == "native":
        return contract.with_input(fit=PadToMultiple(multiple=1))
    raise UsageError(f"there is no protocol '{protocol}'", "Protocols: squash, native")


def protocol_words(spec: InputSpec) -> str:
    """How a frame becomes the model's size, in words."""
    size = size_text(*spec.size)
    kind = spec.fit.kind
    if isinstance(spec.fit, Tile):
        return f"tiles of {size} that overlap by {spec.fit.overlap} pixels: frames at their own size, scored whole"
    if kind == "squash":
        filters = {"antialias": "antialiased", "linear": "not antialiased", "nearest": "nearest pixel"}
        return f"squash: frames resized to {size}, {filters[spec.resize]}"
    if kind == "pad-to-multiple":
        return f"native: frames at their own size, padded to {size}, scored without the padding"
    return f"{kind} to {size}, scored without the padding"


def measure(
    entries: Sequence[Entry],
    dataset: Dataset,
    *,
    plan: Callable[[tuple[int, int]], Plan],
    threads: int,
    command: str,
    watch: float = LOOK_EVERY,
    progress: Progress = lambda description, steps: lambda: None,
) -> Report:
    """Measure latency, then parity and accuracy, size by size.

    The reference of a size is its entry with that role, or else its first FP32 model.

    Args:
        entries: at least one; sessions are opened for the models of one size at a time.
        dataset: frames, with or without truth.
        plan: how much to measure at a size (height, width).
        threads: what the sessions are opened with, for the record.
        command: what the user typed, for the record.
        watch: seconds between two looks at power, clocks and temperature during the clocks; 0 for none.

    Raises:
        UsageError: models disagree in what they give, or those of one size in input or threshold; the truth has other
            classes; or there is no frame.
        InputError, ArtifactError, EnvironmentFault: see `compare` and `measure_latency`.
    """
    start = perf_counter()
    here = environment(threads)
    if not len(dataset):
        raise UsageError(f"'{dataset.name}', split '{dataset.split}', holds no frame", "Name a split that holds frames")
    output = _shared_output(entries, dataset)
    models: list[Model] = []
    most = 0
    with ExitStack() as stack:
        probes, unread = find_probes() if watch else ([], "nobody asked for them")
        for probe in probes:
            stack.callback(probe.close)
        watched = Watched(probes, watch or LOOK_EVERY)
        for size in sorted({entry.size for entry in entries}, key=lambda s: (-s[0] * s[1], s)):
            wanted = plan(size)
            part = dataset.first(wanted.frames or len(dataset))
            most = max(most, len(part))
            models += _measure_size([e for e in entries if e.size == size], part, wanted, threads, watched, progress)
    targets = [m.accuracy.targets for m in models if m.accuracy and m.accuracy.frames == most]
    data = Data(
        name=dataset.name,
        split=dataset.split,
        frames=most,
        frames_in_split=len(dataset),
        targets=targets[0] if targets else None,
        licence=dataset.licence,
    )
    return Report(
        irforge_version=__version__,
        command=command,
        detector=entries[0].contract.provenance.detector,
        output=output.kind,
        data=data,
        environment=here,
        models=models,
        findings=sorted(
            [*findings(models, data, here), *endurance(models, watched.readings)], key=lambda f: ORDER.index(f.level)
        ),
        readings=watched.readings,
        readings_note=unread,
        seconds=perf_counter() - start,
    )


def _measure_size(
    entries: list[Entry], data: Dataset, plan: Plan, threads: int, watched: Watched, progress: Progress
) -> Iterator[Model]:
    contract, schedule = _shared_contract(entries), plan.schedule
    title = size_text(*contract.input.size)
    reference = next((e for e in entries if e.role == "reference"), None) or next(
        (e for e in entries if e.contract.provenance.precision == "fp32"), entries[0]
    )
    # A reference is a checkpoint under the candidates' contract, and companions lie with those.
    home = next((e for e in entries if e.role == "candidate"), entries[0]).path
    with ExitStack() as stack:
        calls = schedule.rounds * schedule.frames_per_round
        frames = [sample.frame() for sample in data.samples[: min(calls, 64)]]
        opened = {e.name: open_entry(e, contract, home, frames[0], threads, watched, stack) for e in entries}
        detectors = {name: model.detector for name, model in opened.items()}
        tick = progress(f"{title}: latency", calls * len(entries))
        with watched.during(f"{title}, models in turns") as watch:
            latency = measure_latency(detectors, frames, schedule, threads=threads, tick=tick)
        watched.readings += watch.readings
        for entry in entries:
            run_alone(entry, opened[entry.name], frames, plan, watched, progress)
        end = resident_bytes()
        others = [e for e in entries if e is not reference]
        sessions = {name: one if isinstance(one, TiledDetector) else one.session for name, one in detectors.items()}
        parity = compare(
            sessions[reference.name],
            {e.name: sessions[e.name] for e in others},
            _counted(data, progress(f"{title}: parity and accuracy", len(data))),
            contract,
            reference_name=reference.name,
            limits={e.name: LIMITS[contract.output.kind][e.contract.provenance.precision] for e in others},
            workers=usable_cores(),
            rescorers={name: model.rescorer for name, model in opened.items() if model.rescorer},
        )
        candidates = Counter(e.contract.provenance.precision for e in entries if e.role == "candidate")
        for entry in entries:
            alone = entry.role == "reference" or candidates[entry.contract.provenance.precision] == 1
            variant = "" if alone else entry.path.name.removesuffix(".onnx")
            model = opened[entry.name]
            model.memory = model.memory.model_copy(update={"end": end})
            tiles = _tiles(model.detector, frames) if isinstance(model.detector, TiledDetector) else None
            yield _model(entry, variant, contract, model, latency[entry.name], parity, tiles)


def _tiles(detector: TiledDetector, frames: Sequence[Frame]) -> Tiles:
    spec = detector.contract.input
    overlap = tile_overlap(spec)
    counts = [len(Tiling(frame.shape[0], frame.shape[1], spec.size, overlap).corners) for frame in frames]
    return Tiles(overlap=overlap, fewest=min(counts), most=max(counts), a_run=detector.tiles_a_run)


def _bytes_of_companion(entry: Entry) -> int:
    named = companion_of(entry.contract) if entry.role == "candidate" else None
    return companion_file(named, entry.path.parent).stat().st_size if named else 0


def _backend(session: Session) -> str:
    return f"{session.backend}, {session.custom_ops}" if session.custom_ops else session.backend


def _counted(samples: Iterable[Sample], tick: Callable[[], None]) -> Iterator[Sample]:
    for sample in samples:
        yield sample
        tick()


def _shared_output(entries: Sequence[Entry], dataset: Dataset) -> OutputSpec:
    """What all models of a report give, or a UsageError; or an EnvironmentFault, before the clocks have run for
    nothing."""
    first, *others = entries
    output = first.contract.output
    for entry in others:
        if entry.contract.output.kind != output.kind:
            raise UsageError(
                f"'{first.name}' gives {_GIVES[output.kind]} and '{entry.name}' {_GIVES[entry.contract.output.kind]}",
                "Make a report for each",
            )
    if output.kind == "boxes" and dataset.has_boxes:
        coco_ap([], [], output.classes)
        known, held = tuple(output.classes), dataset.classes
        # Where there is one class, it may go by any name.
        if known != held and max(len(known), len(held)) > 1:
            raise UsageError(
                f"'{first.name}' knows the classes {', '.join(known)}, '{dataset.name}' holds {', '.join(held)}",
                "Measure on data with the detector's classes, in their order",
            )
    return output


def _shared_contract(entries: list[Entry]) -> Contract:
    """What the models of one size agree on, or a UsageError that names the field they do not."""
    first = entries[0]
    for entry in entries[1:]:
        one, other = first.contract.input.model_dump(), entry.contract.input.model_dump()
        one["threshold"] = first.contract.output.score_threshold
        other["threshold"] = entry.contract.output.score_threshold
        field = next((name for name in one if one[name] != other.get(name)), None)
        if field is not None:
            raise UsageError(
                f"'{first.name}' and '{entry.name}' cannot be compared: {field} is {one[field]} and {other.get(field)}",
                "Compare files of one export, or force one --protocol",
            )
    return first.contract


def _model(
    entry: Entry,
    variant: str,
    contract: Contract,
    model: Opened,
    latency: Latency,
    parity: ParityReport,
    tiles: Tiles | None,
) -> Model:
    session = model.detector.session
    height, width = entry.size
    accuracy, result = parity.candidates.get(entry.name, (parity.reference, None))
    return Model(
        name=entry.name,
        variant=variant,
        role=entry.role,
        precision=entry.contract.provenance.precision,
        backend=_backend(session),
        device=session.device,
        height=height,
        width=width,
        sha256=sha256_of_file(entry.path),
        file_bytes=entry.path.stat().st_size + _bytes_of_companion(entry),
        protocol=protocol_words(contract.input),
        tiles=tiles,
        threshold=contract.output.score_threshold,
        accuracy=accuracy,
        parity=result,
        latency=latency,
        start=model.start,
        memory=model.memory,
        sustained=model.sustained,
        batches=model.batches,
        batch_note=model.batch_note,
        trtexec={} if entry.role == "reference" else measuring_commands(entry.path, contract, session.inputs),
        engines=[] if entry.role == "reference" else engine_facts(entry.path),
        contract=entry.contract.model_dump(mode="json"),
    )
