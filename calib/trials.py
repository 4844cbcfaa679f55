"""A model with some of its places in INT8 and all else in FP32, judged by what becomes of its answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from irforge.calib.costs import Cost, PlaceCost
from irforge.calib.distance import Answer, distance, read_answer
from irforge.calib.islands import fp32_islands, last_products
from irforge.calib.losses import events, in_100_frames
from irforge.calib.placement import TENSORRT, place
from irforge.calib.qdq import insert_qdq
from irforge.calib.ranges import TensorRange
from irforge.contract import Contract
from irforge.datasets import Dataset
from irforge.datasets.base import BoxTruth
from irforge.detections import Detections, decode
from irforge.frames import Geometry, prepare
from irforge.graph import Graph, macs

SHOWN = 40
"""Events of one trial that its cost holds; all are counted."""

Outputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Place:
    """Convolutions that read one tensor, and so share its Q/DQ pair: their outputs, their weights, and their share of
    all MACs."""

    nodes: tuple[str, ...]
    weights: tuple[str, ...]
    share: float


@dataclass(frozen=True, eq=False)
class _Frame:
    id: str
    tensor: npt.NDArray[Any]
    geometry: Geometry
    truth: BoxTruth | None


class Trials:
    """Sets of places of one model in INT8, each compared with the FP32 model on the same frames.

    `places` are what `irforge quantize` would quantise. The rest of a trial stays in FP32, so that only INT8 is judged.

    Args:
        model: FP32, of an opset that TensorRT reads.
        tensors, method: the ranges, and which of their thresholds to take.
        dataset: the frames, with truth or without.
        threads: of ONNX Runtime inside one operator.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        contract: Contract,
        tensors: dict[str, TensorRange],
        method: str,
        dataset: Dataset,
        threads: int | None = None,
    ) -> None:
        self._model, self._contract, self._tensors, self._method = model, contract, tensors, method
        self._threads = threads
        self._sizes = {contract.input.name: (1, contract.input.channels, *contract.input.size)}
        graph = Graph(model)
        decodes = contract.output.kind == "boxes"
        islands = fp32_islands(model, tensors, raw_counts=contract.input.door == "float32", decodes=decodes)
        self._apart = dict.fromkeys([*(last_products(graph) if decodes else ()), *islands], "never quantised")
        everything = place(graph, tensors, method, TENSORRT, apart=self._apart, sizes=self._sizes)
        counts = macs(model, self._sizes)
        total = sum(counts.values())
        makers = {node.output[0]: node for node in model.graph.node}
        groups: dict[str, list[str]] = {}
        for name in everything.convolutions:
            groups.setdefault(makers[name].input[0], []).append(name)
        self.places = [
            Place(
                tuple(names),
                tuple(makers[name].input[1] for name in names),
                sum(counts[name] for name in names) / total,
            )
            for names in groups.values()
        ]
        self._frames = []
        for sample in dataset:
            tensor, geometry = prepare(sample.frame(), contract.input, f"'{sample.frame_path}'")
            self._frames.append(_Frame(sample.id, tensor, geometry, sample.boxes()))
        self.truth = dataset.truth if any(frame.truth is not None for frame in self._frames) else "none"

    def __len__(self) -> int:
        """How many frames a trial takes."""
        return len(self._frames)

    def cost(self, places: Collection[Place]) -> Cost:
        """What INT8 in all of `places` does to the answers."""
        if not places:
            return Cost(difference=0, crossed=0)
        found = self._answers(places)
        threshold = self._contract.output.score_threshold
        moved = distance([a for a, _ in self._reference], [a for a, _ in found], threshold)
        happened = [
            event
            for frame, (_, before), (_, after) in zip(self._frames, self._reference, found, strict=True)
            for event in events(before, after, frame.truth, frame.id)
        ]
        return moved.model_copy(
            update={
                "lost": in_100_frames(happened, "lost", len(self)),
                "alarms": in_100_frames(happened, "alarm", len(self)),
                "events": happened[:SHOWN],
            }
        )

    def alone(self, place: Place) -> PlaceCost:
        """What INT8 in one place alone does."""
        cost = self.cost([place])
        return PlaceCost(nodes=list(place.nodes), weights=list(place.weights), share=place.share, **cost.model_dump())

    def together(self, places: Sequence[PlaceCost]) -> Cost:
        """What INT8 in all of these does, named by what each costs alone: for `irforge.calib.search`."""
        wanted = {tuple(place.nodes) for place in places}
        return self.cost([place for place in self.places if place.nodes in wanted])

    @cached_property
    def _reference(self) -> list[tuple[Answer, Detections]]:
        return self._answers(())

    def _answers(self, places: Collection[Place]) -> list[tuple[Answer, Detections]]:
        graph = Graph(onnx.ModelProto.FromString(self._model.SerializeToString()))
        graph.tidy()
        chosen = {name for one in places for name in one.nodes}
        others = {name for one in self.places for name in one.nodes} - chosen
        apart = self._apart | dict.fromkeys(others, "not its turn")
        placement = place(graph, self._tensors, self._method, TENSORRT, apart=apart, sizes=self._sizes)
        insert_qdq(graph, placement.convolutions, placement.points, "axis")
        run = runner(graph.model, self._threads)
        answers = []
        for frame in self._frames:
            outputs = run(frame.tensor)
            answer = read_answer(outputs, self._contract, frame.geometry)
            answers.append((answer, decode(outputs, self._contract, frame.geometry)))
        return answers


def runner(model: onnx.ModelProto, threads: int | None) -> Callable[[npt.NDArray[Any]], Outputs]:
    """A function from a model's only input to its outputs by name, on ONNX Runtime's CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Q/DQ pairs are to round as written: neither fused into kernels nor moved to where they would round other values.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (name,) = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]

    def run(tensor: npt.NDArray[Any]) -> Outputs:
        return dict(zip(outputs, (np.asarray(v) for v in session.run(outputs, {name: tensor})), strict=True))

    return run
