"""Running a model with its inner tensors in view, one frame at a time, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from irforge.calib.cast import HALF_NORMAL
from irforge.calib.histogram import Histogram, blocks, thresholds
from irforge.calib.ranges import TensorRange
from irforge.errors import ArtifactError, CalibrationError
from irforge.graph import Graph, infer_types, is_op

# What one run may return; larger graphs are run several times a frame, each time for a part of their tensors.
GROUP_BYTES = 384 * 2**20

Array = npt.NDArray[Any]


@dataclass
class Statistics:
    """Running statistics of one float tensor."""

    low: float = float("inf")
    high: float = float("-inf")
    mean_abs: float = 0.0
    subnormal: int = 0
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, values: Array) -> bool:
        """Count one frame's values; False, and nothing is counted, if one of them is NaN or infinite."""
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        zeros, total = self.histogram.zeros, 0.0
        for block in blocks(values):
            magnitudes = np.abs(block)
            total += float(magnitudes.sum(dtype=np.float64))
            self.histogram.add(magnitudes, max(-low, high))
            self.subnormal += int(np.count_nonzero(magnitudes < HALF_NORMAL))
        self.mean_abs = max(self.mean_abs, total / values.size)
        self.subnormal -= self.histogram.zeros - zeros
        return True

    def result(self, percentile: float) -> TensorRange:
        absmax = max(abs(self.low), abs(self.high))
        total, zeros = self.histogram.total, self.histogram.zeros
        return TensorRange(
            min=self.low,
            max=self.high,
            absmax=absmax,
            mean_abs=self.mean_abs,
            count=total,
            zeros=zeros / total,
            subnormal=self.subnormal / max(total - zeros, 1),
            thresholds=thresholds(self.histogram, absmax, percentile),
        )


class Observer:
    """A model on ONNX Runtime's CPU whose float tensors can all be read.

    Args:
        model: FP32, with everything it needs inside; not changed.
        shape: of the input tensor, which sizes the groups that are read in one run.
        threads: of ONNX Runtime inside one operator.

    Raises:
        ArtifactError: ONNX Runtime does not load the model.
    """

    def __init__(self, model: onnx.ModelProto, shape: tuple[int, ...], threads: int | None = None) -> None:
        import onnxruntime

        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        graph = Graph(watched)
        (self._input,) = graph.inputs
        types = infer_types(model, {self._input: shape})
        sizes = {
            name: 4 * int(np.prod([side if isinstance(side, int) else 1 for side in types[name][1]]))
            for node in graph.nodes
            if not is_op(node, "Constant")
            for name in node.output
            if name and types.get(name, (0, ()))[0] == TensorProto.FLOAT
        }
        outputs = {value.name for value in watched.graph.output}
        for name in sizes:
            if name not in outputs:
                watched.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        self._groups = _grouped(sizes)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.inter_op_num_threads = 1
        # The same kernels whatever the machine: ranges then depend on the key alone.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(
                watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no base but this
            raise ArtifactError(f"ONNX Runtime does not load the model: {_first_line(error)}") from None

    def tensors(self, frame: Array) -> Iterator[tuple[str, Array]]:
        """Every float tensor of one input, group by group."""
        for names in self._groups:
            try:
                values = self._session.run(names, {self._input: frame})
            except Exception as error:  # noqa: BLE001  as above
                raise ArtifactError(f"the model failed while it ran: {_first_line(error)}") from None
            yield from zip(names, values, strict=True)


def observe(observer: Observer, frame: Array, where: str, statistics: dict[str, Statistics]) -> dict[str, Statistics]:
    """Add one prepared frame to the statistics.

    Raises:
        CalibrationError: a tensor holds NaN or infinity; the message names tensor and frame.
    """
    for name, values in observer.tensors(frame):
        if values.size and not statistics.setdefault(name, Statistics()).add(values):
            raise CalibrationError(
                f"tensor '{name}' is not finite on '{where}'",
                "The model fails on this frame in FP32 already: check its weights and its training",
            )
    return statistics


def _grouped(sizes: dict[str, int]) -> list[list[str]]:
    groups: list[list[str]] = []
    used = GROUP_BYTES
    for name, size in sizes.items():
        if used + size > GROUP_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
