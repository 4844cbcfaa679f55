"""ONNX Runtime behind the Session protocol, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cache
from types import TracebackType
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, TensorProto

from irforge.artifact import load_model
from irforge.contract import METADATA_KEY, Contract
from irforge.errors import ArtifactError, EnvironmentFault, InputError
from irforge.runtime.backends.tensors import check_feeds, check_out
from irforge.runtime.custom_ops import Life, live, native_library, require_cuda
from irforge.session import Array, TensorInfo, Timings

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# FP32 has to mean FP32 on the backend that the others are compared against.
_OPTIONS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
_DTYPES = {"float": "float32", "double": "float64"}
_QUIET = 4


class OrtSession:
    """An `.onnx` file on ONNX Runtime; see `irforge.session.Session`.

    With `out`, outputs are bound to its arrays and nothing is allocated per frame on the host. ONNX Runtime has no
    GPU clock to read, so `last_timings` stays None.

    Args:
        path: the `.onnx` file.
        provider: where it computes. Another provider than the one asked for is an error, never a silence.
        threads: threads inside one operator; None leaves the choice to ONNX Runtime.
        custom_ops: how irforge's custom operators run; see `irforge.runtime.custom_ops`.

    Raises:
        UsageError: `plugin` for a file without custom operators.
        ArtifactError: the file is damaged or unsafe, or ONNX Runtime does not load it.
        EnvironmentFault: this machine cannot give the provider, or has no library of native operators.
    """

    backend = "onnxruntime"
    thread_rule = "any thread"

    def __init__(
        self,
        path: str | os.PathLike[str],
        provider: Literal["cpu", "cuda"] = "cpu",
        threads: int | None = None,
        custom_ops: Life = "body",
    ) -> None:
        import onnxruntime

        name = _PROVIDERS[provider]
        if name not in onnxruntime.get_available_providers():
            raise EnvironmentFault(
                f"this onnxruntime {onnxruntime.__version__} has no {name}",
                "Install onnxruntime-gpu instead of onnxruntime (pip install 'irforge[gpu]')",
            )
        # Not by path: ONNX Runtime would read external data from wherever the file points.
        model = load_model(path, check=False)
        self.custom_ops = live(model, custom_ops, path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.inter_op_num_threads = 1
        if threads is not None:
            options.intra_op_num_threads = threads
        if has_half_scales(model):
            # ONNX Runtime would make QLinearConcat of a concat between FP16 Q/DQ, which it then refuses itself.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._path = path
        library = native_library("onnxruntime") if custom_ops == "plugin" else None
        if library is not None and provider == "cuda":
            require_cuda(library)
        if library is not None:
            try:
                options.register_custom_ops_library(str(library))
            except _native_faults() as error:
                raise EnvironmentFault(
                    f"ONNX Runtime does not load the plugin library '{library}': {_first_line(error)}", "Build it again"
                ) from None
        try:
            content = model.SerializeToString()
            session = onnxruntime.InferenceSession(content, options, providers=[(name, _OPTIONS[provider])])
        except _native_faults() as error:
            raise ArtifactError(f"ONNX Runtime does not load '{path}': {_first_line(error)}") from None
        if session.get_providers()[0] != name:
            raise EnvironmentFault(
                f"ONNX Runtime fell back to {session.get_providers()[0]} where {name} was asked for",
                "'irforge doctor' says which CUDA and cuDNN libraries it needs",
            )
        self._session: Any = session
        self._local = threading.local()
        self.device = "cuda:0" if provider == "cuda" else "cpu"
        self.version: str = onnxruntime.__version__
        self.inputs: Mapping[str, TensorInfo] = {i.name: _info(i) for i in session.get_inputs()}
        self.outputs: Mapping[str, TensorInfo] = {o.name: _info(o) for o in session.get_outputs()}
        self.last_timings: Timings | None = None
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.contract = Contract.from_json(text, str(path)) if text else None
        self.precision: str = self.contract.provenance.precision if self.contract else ""

    def run(self, feeds: Mapping[str, Array], out: dict[str, Array] | None = None) -> dict[str, Array]:
        """Run once on feeds of the shapes and dtypes in `inputs`; a subset of the outputs in `out` will do.

        Raises:
            InputError: feeds or `out` do not fit the graph.
            ArtifactError: the graph fails while it runs.
        """
        if self._session is None:
            raise InputError(f"the session of '{self._path}' is closed")
        sizes = check_feeds(self.inputs, feeds)
        if out is not None:
            check_out(self.outputs, out, sizes)
        try:
            if out is None:
                return dict(zip(self.outputs, self._session.run(None, dict(feeds)), strict=True))
            self._run_into(feeds, out)
        except _native_faults() as error:
            raise ArtifactError(f"'{self._path}' failed while it ran: {_first_line(error)}") from None
        return out

    def _run_into(self, feeds: Mapping[str, Array], out: Mapping[str, Array]) -> None:
        local = self._local
        if not hasattr(local, "binding"):
            local.binding, local.bound = self._session.io_binding(), {}
        contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        if local.bound.keys() != {*contiguous, *out}:
            local.binding.clear_binding_inputs()
            local.binding.clear_binding_outputs()
            local.bound = {}
        for arrays, bind in ((contiguous, local.binding.bind_input), (out, local.binding.bind_output)):
            for name, array in arrays.items():
                key = (array.ctypes.data, array.shape)
                if local.bound.get(name) != key:
                    bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
                    local.bound[name] = key
        self._session.run_with_iobinding(local.binding)

    def close(self) -> None:
        self._session = None
        self._local = threading.local()

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def has_half_scales(model: ModelProto) -> bool:
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    return any(node.op_type == "DequantizeLinear" and node.input[1] in halves for node in model.graph.node)


@cache
def _native_faults() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    named = [fault for fault in vars(native).values() if isinstance(fault, type) and issubclass(fault, Exception)]
    return (*named, RuntimeError, ValueError)


def _info(tensor: Any) -> TensorInfo:
    element = str(tensor.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(d if isinstance(d, int | str) else f"{tensor.name}.{i}" for i, d in enumerate(tensor.shape))
    return TensorInfo(_DTYPES.get(element, element), shape)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
