"""From a stranger's ONNX file to a deployable: look, run once, read, rewrite, check."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

import irforge
from irforge.artifact import check_model, embed_contract, save_model, subgraphs
from irforge.contract import METADATA_KEY, Contract
from irforge.datasets import open_dataset
from irforge.errors import ArtifactError, ExportError
from irforge.export.adopt.check import compare
from irforge.export.adopt.contracts import contract_of
from irforge.export.adopt.decode import Limits, add_decode, expectations_as_sums
from irforge.export.adopt.door import FRAMES, Door, add_door, door_of
from irforge.export.adopt.door import Frames as FrameChoices
from irforge.export.adopt.observation import Choices, Observation
from irforge.export.adopt.reading import Part, Reading
from irforge.export.adopt.recognise import read_outputs
from irforge.export.adopt.source import Source, load_source, origin
from irforge.export.passes import run_passes
from irforge.files import sha256_of_file
from irforge.frames import Frame, prepare
from irforge.graph import Graph
from irforge.lint import lint
from irforge.runtime.backends.ort import OrtSession
from irforge.samples import FRAMES as SAMPLES

FRAMES_TRIED = 4
DETECTION_TASKS = ("", "detect")
_RESERVED = (FRAMES, "boxes", "scores", "classes", "mask")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Adopted:
    """A deployable made of a stranger's file, not yet written.

    parity: largest differences to the original's own outputs, decoded plainly. rewrites: how many each pass made.
    origins: the operator that makes each of the original's outputs. notes: what a reader has to know.
    """

    model: ModelProto
    contract: Contract
    source: Source
    door: Door
    reading: Reading
    origins: dict[str, str]
    parity: dict[str, float]
    rewrites: dict[str, int]
    notes: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write it, with its contract inside."""
        save_model(path, self.model)


def adopt_model(
    path: Path,
    frame_choices: FrameChoices,
    choices: Choices,
    limits: Limits | None = None,
    *,
    size: tuple[int, int] | None = None,
    threshold: float | None = None,
    frames: str = "",
    plain: bool = False,
) -> Adopted:
    """Find out what a stranger's model takes and gives, and make a deployable of it.

    Args:
        frame_choices, choices: what the user knows; the rest is found out.
        limits: of the decode.
        size: (height, width), for a model that leaves them free.
        threshold: score threshold, 0..1; by default 0.25 for boxes and 0.5 for a mask.
        frames: a dataset to try the model on; by default the frames of the package.
        plain: leave out the exact rewrites of the network.

    Raises:
        UsageError: something cannot be found out; the message names the option.
        ArtifactError, ExportError: the file cannot be used; see `irforge.export.adopt.source.load_source`.
        CheckFailed: the result does not find what the original's outputs mean.
    """
    limits = limits or Limits()
    source = load_source(path, size)
    _refuse_settled(source)
    door = door_of(source, frame_choices)
    classes = choices.classes or source.classes
    tensor = _frames(frames, door)
    with tempfile.TemporaryDirectory(prefix="irforge-adopt-") as folder:
        raw = _run(source.model, {source.input: door.normalised(tensor, source)}, Path(folder) / "original.onnx")
    _refuse_infinite(raw, source)
    seen = Observation(raw, source.height, source.width, replace(choices, classes=tuple(classes)))
    reading = read_outputs(seen, str(path))
    graph = Graph(source.model)
    origins = {name: origin(graph, name) for name in graph.outputs}
    model, rewrites = _assembled(source, door, reading, limits, plain)
    contract = contract_of(model, source, door, reading, limits, classes, threshold, raw)
    embed_contract(model, contract)
    with tempfile.TemporaryDirectory(prefix="irforge-adopt-") as folder:
        found = _run(model, {FRAMES: tensor}, Path(folder) / "adopted.onnx")
    parity = compare(raw, found, reading, contract, limits)
    contract = contract.with_step(
        "adopt",
        source=path.name,
        source_sha256=sha256_of_file(path),
        opset=source.opset,
        layout=reading.layout,
        reasons=[reason for reason in (*door.reasons, *reading.reasons) if reason],
        mean=list(door.mean),
        std=list(door.std),
        licence=source.metadata.get("license"),
        parity=parity,
    )
    embed_contract(model, contract)
    notes = _notes(model, contract, source, choices, found)
    return Adopted(model, contract, source, door, reading, origins, parity, rewrites, notes)


def _refuse_settled(source: Source) -> None:
    if METADATA_KEY in source.metadata:
        raise ArtifactError(f"'{source.path}' has a contract already: it is a deployable", "Use it as it is")
    task = source.metadata.get("task", "") if source.framework else ""
    if task not in DETECTION_TASKS:
        raise ExportError(
            f"'{source.path}' is an Ultralytics model for task '{task}', and adopt reads task 'detect'",
            "Export a detection model",
        )


def _frames(source: str, door: Door) -> Array:
    """A few frames at the door, [n, 1, H, W]."""
    dataset = open_dataset(source) if source else open_dataset(SAMPLES, split="test")
    samples = [dataset[len(dataset) * i // FRAMES_TRIED] for i in range(min(FRAMES_TRIED, len(dataset)))]
    tensors = []
    for sample in samples:
        frame: Frame = sample.frame()
        if not source and door.spec.bit_depth > 8:
            # The package's frames have 8 bits; a deeper camera's levels are stood in for by theirs, moved up.
            frame = np.left_shift(frame.astype(np.uint16), door.spec.bit_depth - 8).astype(np.uint16)
        tensors.append(prepare(_at_most(frame, door), door.spec, f"'{sample.frame_path}'")[0])
    return np.concatenate(tensors)


def _at_most(frame: Frame, door: Door) -> Frame:
    """A frame cut to what an input that does not resize can take."""
    height, width = door.spec.size
    return frame[:height, :width] if door.spec.fit.kind == "pad-to-multiple" else frame


def _run(model: ModelProto, feeds: Mapping[str, Array], path: Path) -> dict[str, Array]:
    """Outputs of a model for a number of frames, in as many runs as its batch asks for; NumPy arrays [n, ...].

    Raises:
        ExportError: ONNX Runtime does not run it.
    """
    (name, frames), *_ = feeds.items()
    save_model(path, model)
    with OrtSession(path, threads=1) as session:
        batch = session.inputs[name].shape[0]
        step = batch if isinstance(batch, int) else 1
        results: list[dict[str, Array]] = []
        for first in range(0, len(frames), step):
            part = frames[first : first + step]
            missing = step - len(part)
            fed = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            outputs = session.run({name: fed})
            results.append({key: value[: len(part)] for key, value in outputs.items()})
    shapes = [{key: value.shape[1:] for key, value in result.items()} for result in results]
    if any(shape != shapes[0] for shape in shapes):
        changing = next(key for key in shapes[0] if len({shape[key] for shape in shapes}) > 1)
        raise ExportError(
            f"output '{changing}' has another size for each frame, which TensorRT cannot hold",
            "Export the network without its postprocessing",
        )
    return {key: np.concatenate([result[key] for result in results]) for key in results[0]}


def _refuse_infinite(outputs: Mapping[str, Array], source: Source) -> None:
    for name, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ExportError(
                f"output '{name}' of '{source.path}' is not finite on real frames",
                "Check --normalize, or take an earlier checkpoint",
            )


def _assembled(
    source: Source, door: Door, reading: Reading, limits: Limits, plain: bool
) -> tuple[ModelProto, dict[str, int]]:
    model = ModelProto()
    model.CopyFrom(source.model)
    del model.metadata_props[:]
    taken = _free_names(model)
    reading = _renamed(reading, taken)
    graph = Graph(model)
    add_door(graph, _renamed_source(source, taken), door)
    add_decode(graph, reading, limits, source.height, source.width)
    graph.tidy()
    rewrites = {}
    if not plain:
        rewrites["expectations_as_sums"] = expectations_as_sums(graph)
        graph.tidy()
        rewrites |= run_passes(model)
    model.producer_name, model.producer_version = "irforge", irforge.__version__
    model.graph.name = "adopted"
    check_model(model, "the adopted graph", shapes=True)
    worst = next((finding for finding in lint(model) if finding.level == "error"), None)
    if worst:
        raise ExportError(f"TensorRT would refuse '{source.path}' at {worst.where}: {worst.what}", worst.mend)
    return model, {name: count for name, count in rewrites.items() if count}


def _free_names(model: ModelProto) -> dict[str, str]:
    """Rename the stranger's tensors that have a deployable's names; returns old -> new."""
    graphs = [model.graph, *subgraphs(model.graph.node)]
    nodes = [node for graph in graphs for node in graph.node]
    used = {name for node in nodes for name in (*node.input, *node.output)}
    used |= {value.name for value in model.graph.input}
    new = {name: Graph(model).fresh(f"original_{name}") for name in _RESERVED if name in used}
    if new:
        for node in nodes:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    names[place] = new.get(name, name)
        for graph in graphs:
            for part in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
                part.name = new.get(part.name, part.name)
    return new


def _renamed(reading: Reading, names: Mapping[str, str]) -> Reading:
    changes: dict[str, Any] = {}
    for field in fields(reading):
        value = getattr(reading, field.name)
        if isinstance(value, Part):
            changes[field.name] = replace(value, tensor=names.get(value.tensor, value.tensor))
        elif field.name in ("heat", "size", "offset", "tensor"):
            changes[field.name] = names.get(value, value)
    return replace(reading, **changes)


def _renamed_source(source: Source, names: Mapping[str, str]) -> Source:
    return replace(source, input=names.get(source.input, source.input))


def _notes(
    model: ModelProto, contract: Contract, source: Source, choices: Choices, found: Mapping[str, Array]
) -> tuple[str, ...]:
    notes = []
    threshold = contract.output.score_threshold
    if source.channels == 3:
        notes.append("the network takes 3 channels and frames are gray: the gray frame fills all three")
    batch = Graph(model).shape(FRAMES)
    if batch and isinstance(batch[0], int):
        notes.append(f"the batch is fixed at {batch[0]}, as in the file")
    if contract.output.kind == "boxes" and not (found["scores"] > threshold).any():
        notes.append(f"nothing scored above {threshold:g} on the frames tried; --frames names others")
    if not choices.classes and not source.classes and len(contract.output.classes) > 1:
        notes.append("class names are numbers; --classes names them")
    if licence := source.metadata.get("license"):
        notes.append(f"the file states its licence: {licence}")
    return tuple(notes)
