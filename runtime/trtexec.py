"""NVIDIA's `trtexec` beside a report: the command that measures the same file, and what that tool wrote, read in.

The files are those of `--exportTimes`, `--exportProfile` and `--exportLayerInfo`, with the fields that the TensorRT
Developer Guide and the tool's own source give them.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irforge.contract import Contract
from irforge.errors import ArtifactError
from irforge.runtime.clocks import distribution
from irforge.runtime.compilers.trtexec import trtexec_commands
from irforge.runtime.report.times import Distribution
from irforge.runtime.sidecar import read_sidecar
from irforge.session import TensorInfo

CLOCKS = {
    "compute": ("computeMs", "computeMs"),
    "latency": ("latencyMs", "latencyMs"),
    "copy in": ("h2dMs", "inMs"),
    "copy out": ("d2hMs", "outMs"),
}
"""What a run took, by the field's name in TensorRT 8.5 and later, and before."""


def measuring_commands(model: Path, contract: Contract, inputs: Mapping[str, TensorInfo]) -> dict[str, str]:
    """The command that measures a file with trtexec, by its major version ('10', '11'); it writes what `read_times` and
    the others read.

    Args:
        model: an `.onnx` file or an engine; trtexec loads no TensorRT-RTX plan, whose ONNX file is built instead.
        contract: of a fixed size; one frame is measured.
        inputs: the graph's.
    """
    stem = model.name.removesuffix(".onnx").removesuffix(".engine").removesuffix(".rtx")
    shape = (1, contract.input.channels, *contract.input.size)
    free = any(isinstance(side, str) for info in inputs.values() for side in info.shape)
    if model.name.endswith(".onnx"):
        profile = dict.fromkeys(inputs, (shape, shape, shape)) if free else {}
        commands = trtexec_commands(str(model), f"{stem}.engine", profile)
    elif model.name.endswith(".rtx.engine"):
        commands = dict(read_sidecar(model).trtexec)
    else:
        load = ["trtexec", f"--loadEngine={model}"]
        if free:
            load.append("--shapes=" + ",".join(f"{name}:{'x'.join(map(str, shape))}" for name in inputs))
        commands = {"10": shlex.join([*load, "--useCudaGraph", "--noDataTransfers"]), "11": shlex.join(load)}
    exports = [f"--exportTimes={stem}.times.json", f"--exportProfile={stem}.profile.json",
               f"--exportLayerInfo={stem}.layers.json"]  # fmt: skip
    # Without it version 10 measures with its profiler on, which is slower; 11 does not.
    separate = {"10": ["--separateProfileRun"]}
    return {major: f"{line} {shlex.join([*separate.get(major, []), *exports])}" for major, line in commands.items()}


@dataclass(frozen=True)
class LayerTime:
    """A layer of `--exportProfile`: milliseconds of a run, and its share (0..1) of the time of all."""

    name: str
    mean: float
    median: float | None
    share: float


@dataclass(frozen=True)
class TrtexecRun:
    """What trtexec wrote. `clocks` by name, from `CLOCKS`; without transfers only the first two say something.

    `calls`: the compute times in milliseconds, in their order. `gap`: mean milliseconds between the end of a run's
    compute and the begin of the next one's, negative where they overlap; None for a single run. `runs` were profiled
    for `layers`. `types` counts the layers that `--exportLayerInfo` names by the type they write.
    """

    name: str
    clocks: Mapping[str, Distribution]
    calls: tuple[float, ...]
    gap: float | None = None
    layers: tuple[LayerTime, ...] = ()
    runs: int = 0
    types: Mapping[str, int] | None = None


def kind_of(value: Any) -> str | None:
    """'times', 'profile' or 'layers' for JSON that trtexec wrote, None for any other."""
    if isinstance(value, dict) and isinstance(value.get("Layers"), list):
        return "layers"
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        if "computeMs" in value[0]:
            return "times"
        if "count" in value[0] or {"name", "averageMs"} <= set(value[0]):
            return "profile"
    return None


def read_trtexec(files: Mapping[str, tuple[Path, Any]]) -> TrtexecRun:
    """A run from its files' JSON, by kind; `times` is the one that has to be there.

    Raises:
        ArtifactError: no times; or a file lacks a field, or holds values that are no times.
    """
    if "times" not in files:
        (path, _), *_ = files.values()
        raise ArtifactError(f"'{path}' holds no times", "Give what trtexec --exportTimes wrote, too")
    path, rows = files["times"]
    clocks: dict[str, Distribution] = {}
    calls: tuple[float, ...] = ()
    for name, (field, older) in CLOCKS.items():
        key = field if field in rows[0] else older
        if name in ("compute", "latency") or key in rows[0]:
            values = [_time(row, key, f"'{path}', run {i}") for i, row in enumerate(rows)]
            clocks[name] = distribution([value / 1e3 for value in values])
            calls = tuple(values) if name == "compute" else calls
    layers, runs = _profile(*files["profile"]) if "profile" in files else ((), 0)
    types = _types(*files["layers"]) if "layers" in files else None
    return TrtexecRun(path.name, clocks, calls, _gap(rows), layers, runs, types)


def _gap(rows: list[dict[str, Any]]) -> float | None:
    spans = [
        (float(row["startComputeMs"]), float(row["endComputeMs"]))
        for row in rows
        if isinstance(row.get("startComputeMs"), int | float) and isinstance(row.get("endComputeMs"), int | float)
    ]
    if len(spans) < max(len(rows), 2):
        return None
    gaps = [begin - end for (_, end), (begin, _) in itertools.pairwise(spans)]
    return sum(gaps) / len(gaps)


def _profile(path: Path, rows: list[dict[str, Any]]) -> tuple[tuple[LayerTime, ...], int]:
    runs = int(_number(rows[0], "count", f"'{path}'")) if "count" in rows[0] else 0
    layers = [
        LayerTime(
            name=str(row.get("name", "")),
            mean=_time(row, "averageMs", f"'{path}', layer {i}"),
            median=_time(row, "medianMs", f"'{path}', layer {i}") if "medianMs" in row else None,
            share=_time(row, "percentage", f"'{path}', layer {i}") / 100,
        )
        for i, row in enumerate(rows)
        if "count" not in row
    ]
    return tuple(sorted(layers, key=lambda layer: -layer.mean)), runs


def _types(path: Path, value: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for layer in value["Layers"]:
        if not isinstance(layer, dict):
            raise ArtifactError(
                f"'{path}' names layers and says nothing of them", "Build with --profilingVerbosity=detailed"
            )
        for tensor in layer.get("Outputs", [])[:1]:
            kind = str(tensor.get("DataType") or tensor.get("Format/Datatype") or "unknown")
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def _time(row: Mapping[str, Any], key: str, where: str) -> float:
    value = _number(row, key, where)
    if value < 0:
        raise ArtifactError(f"{where}: {key} is {value:g}, and no time is negative")
    return value


def _number(row: Mapping[str, Any], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise ArtifactError(f"{where}: {key} is {json.dumps(value)}, not a number", "It is not as trtexec writes it")
    return float(value)
