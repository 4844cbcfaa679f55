"""TensorRT's own engine inspector, read into the same report as a TensorRT-RTX plan.

Needs an engine built with detailed profiling verbosity and a device to load it on. TensorRT 10 names a tensor's type in
`Format/Datatype`, 11 in `DataType` beside `Format`.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from irforge.runtime.plan import Kernel, PlanReport, total
from irforge.runtime.proof import ConvolutionGroup, PrecisionProof

_NO_LAUNCH = {"NoOp", "Constant", "ShapeCall", "Signal", "Wait", "Assertion"}
_WORDS = (("int8", "int8"), ("bf16", "bf16"), ("bfloat", "bf16"), ("fp16", "fp16"), ("half", "fp16"))
_MORE_WORDS = (("fp32", "fp32"), ("float", "fp32"), ("int32", "int32"), ("int64", "int64"), ("bool", "bool"))
_BYTES = {"int8": 1, "uint8": 1, "bool": 1, "fp16": 2, "bf16": 2, "fp32": 4, "int32": 4, "int64": 8}


def read_inspector(
    text: str, *, tool: str, target: str, shapes: Mapping[str, tuple[int, ...]], peak_bytes: int | None
) -> PlanReport:
    """Read `EngineInspector.get_engine_information` in JSON, LAYER detail; never raises for what it holds.

    Args:
        text: the JSON.
        tool: which TensorRT wrote it, such as 'TensorRT 10.3.0'.
        target: compute capability of the device.
        shapes: shape by name of input that the execution context was set to.
        peak_bytes: the engine's device memory.
    """
    try:
        layers = list(json.loads(text)["Layers"])
    except (ValueError, KeyError, TypeError):
        return PlanReport.unavailable("the engine inspector gave no layer list")
    if any(not isinstance(layer, dict) for layer in layers):
        return PlanReport.unavailable("the engine was built without detailed profiling verbosity")
    try:
        kernels = tuple(_kernel(layer) for layer in layers if layer.get("LayerType") not in _NO_LAUNCH)
    except (KeyError, TypeError, ValueError) as error:
        return PlanReport.unavailable(f"the engine inspector's layers are not as known: {error}")
    groups: dict[tuple[str, str, str], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        if kernel.weights is not None:
            groups[kernel.reads, kernel.weights, kernel.writes].append(kernel)
    if any(kernel.macs is None for group in groups.values() for kernel in group):
        return PlanReport.unavailable("the engine inspector does not say how large every convolution is")
    constants: dict[str, int] = defaultdict(int)
    for layer in layers:
        for role in ("Weights", "Bias"):
            kind, count = _weights(layer.get(role))
            constants[kind] += count * _BYTES.get(kind, 1)
    proof = PrecisionProof(
        source="engine inspector",
        tool=tool,
        compute_capabilities=[target],
        shapes={name: list(shape) for name, shape in shapes.items()},
        kernels=len(kernels),
        convolutions=[
            ConvolutionGroup(reads=r, weights=w, writes=o, count=len(group), macs=total(k.macs for k in group) or 0)
            for (r, w, o), group in sorted(groups.items())
        ],
        constant_bytes={kind: size for kind, size in sorted(constants.items()) if size},
        bytes_read=total(kernel.bytes_read for kernel in kernels),
        bytes_written=total(kernel.bytes_written for kernel in kernels),
        peak_bytes=peak_bytes,
    )
    return PlanReport((proof,), (kernels,))


def _kernel(layer: dict[str, Any]) -> Kernel:
    inputs, outputs = layer.get("Inputs", []), layer.get("Outputs", [])
    kind = str(layer.get("LayerType", ""))
    weights = macs = None
    if "conv" in kind.lower() or str(layer.get("ParameterType", "")).endswith("onvolution"):
        weights, count = _weights(layer.get("Weights"))
        weights = weights or (_type(inputs[0]) if inputs else "")
        macs = _macs(layer, inputs, outputs, count)
    weight_bytes = sum(count * _BYTES.get(name, 1) for name, count in [_weights(layer.get("Weights"))])
    read = total(_size(tensor) for tensor in inputs)
    return Kernel(
        kind=kind,
        layers=tuple(part for part in str(layer.get("Name", "")).split(" + ") if part),
        reads=_type(inputs[0]) if inputs else "",
        writes=_type(outputs[0]) if outputs else "",
        weights=weights,
        macs=macs,
        bytes_read=None if read is None else read + weight_bytes,
        bytes_written=total(_size(tensor) for tensor in outputs),
    )


def _macs(layer: dict[str, Any], inputs: list[Any], outputs: list[Any], weight_count: int) -> int | None:
    transposed = "deconv" in f"{layer.get('LayerType', '')}{layer.get('ParameterType', '')}".lower()
    reduced, kept = (outputs, inputs) if transposed else (inputs, outputs)
    if not reduced or not kept:
        return None
    dims, channels = _dims(kept[0]), (_dims(reduced[0]) or (0, 0))[1]
    if dims is None or not channels:
        return None
    if "Kernel" in layer:
        return math.prod(dims) * math.prod(map(int, layer["Kernel"])) * channels // int(layer.get("Groups", 1))
    return math.prod(dims) * weight_count // dims[1] if weight_count else None


def _weights(entry: Any) -> tuple[str, int]:
    if not isinstance(entry, dict):
        return "", 0
    return _word(str(entry.get("Type", ""))), int(entry.get("Count", 0))


def _dims(tensor: dict[str, Any]) -> tuple[int, ...] | None:
    dims = tuple(int(side) for side in tensor.get("Dimensions", ()))
    return dims if dims and all(side >= 0 for side in dims) else None


def _size(tensor: dict[str, Any]) -> int | None:
    dims = _dims(tensor)
    return None if dims is None else math.prod(dims) * _BYTES.get(_type(tensor), 1)


def _type(tensor: dict[str, Any]) -> str:
    return _word(str(tensor.get("DataType") or tensor.get("Format/Datatype") or tensor.get("Format") or ""))


def _word(text: str) -> str:
    lowered = text.lower()
    if "uint8" in lowered:
        return "uint8"
    return next((name for word, name in (*_WORDS, *_MORE_WORDS) if word in lowered), lowered)
