"""What TensorRT and TensorRT-RTX sessions share: buffers, copies, timings, and the run itself.

Memory is taken once, for the largest shape of the engine's profile. A run then copies into pinned buffers, queues
copy, compute and copy on the session's own stream, and waits for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from irforge.errors import ArtifactError, EnvironmentFault, InputError
from irforge.files import sha256_of_file
from irforge.runtime.backends.cuda import Cuda, Memory, load_cuda
from irforge.runtime.backends.device import gpus
from irforge.runtime.backends.tensors import check_feeds, check_out
from irforge.runtime.compilers import EXTRAS, import_compiler
from irforge.runtime.custom_ops import native_library, require_same_major
from irforge.runtime.sidecar import LIBRARIES, EngineRecord, Plugin, RuntimeKind, Sidecar, check_fit, vouch
from irforge.session import Array, TensorInfo, Timings

_log = logging.getLogger("irforge.tensorrt")
_FRAME_SIDES = ("N", "C", "H", "W")


class EngineSession:
    """An engine behind `irforge.session.Session`; made by `tensorrt_session` and `tensorrt_rtx_session`.

    Args:
        path: the engine, with its sidecar beside it.
        runtime: which runtime loads it.
        create_context: makes the execution context of a deserialised engine.
        capture: record the run as a CUDA graph and replay it, where the CUDA layer can.
        trust_engine: load it although its content is not what the sidecar vouches for.
        built: what this process built, in place of a sidecar: the engine of a part, which has no contract. Free sizes
            then go by the names of their tensors.

    Raises:
        ArtifactError: see `irforge.runtime.sidecar`; or the runtime does not deserialise it.
        EnvironmentFault: the runtime, the CUDA layer, the GPU or memory on it is missing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        runtime: RuntimeKind,
        create_context: Callable[[Any, Any], Any],
        *,
        capture: bool,
        trust_engine: bool = False,
        built: EngineRecord | None = None,
    ) -> None:
        record = vouch(path, runtime, trust=trust_engine, built=built)
        trt = load_library(runtime)
        gpu = gpus()[0]
        check_fit(path, record, version=trt.__version__, compute_capability=gpu.compute_capability)
        self.backend: str = LIBRARIES[runtime]
        self.device = "cuda:0"
        self.version: str = trt.__version__
        self.contract = record.contract if isinstance(record, Sidecar) else None
        self.precision: str = self.contract.provenance.precision if self.contract else ""
        self.last_timings: Timings | None = None
        self._path = Path(path)
        self._capture = capture
        self._cuda: Cuda = load_cuda()
        self.thread_rule = self._cuda.thread_rule
        self._logger = _forwarding_logger(trt)
        self.custom_ops: str = record.custom_ops
        for plugin in record.plugins:
            _load_plugins(trt, plugin, trust=trust_engine)
        # `engine_host_code_allowed` stays off: a plan with code for the host is refused by the runtime.
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(self._path.read_bytes())
        if self._engine is None:
            raise ArtifactError(
                f"{runtime} does not deserialise '{path}'", f"Build it again here: irforge build {record.onnx.name}"
            )
        self._context = create_context(trt, self._engine)
        if self._context is None:
            raise EnvironmentFault(f"{runtime} cannot run '{path}': too little free memory on {gpu.name}?")
        self._stream = self._cuda.stream()
        self._events = [self._cuda.event() for _ in range(4)]
        self._host: dict[str, Memory] = {}
        self._on_device: dict[str, Memory] = {}
        self._bounds: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._replay: Callable[[], None] | None = None
        self._runs_at_shape = 0
        self.inputs: Mapping[str, TensorInfo]
        self.outputs: Mapping[str, TensorInfo]
        self.inputs, self.outputs = self._describe(trt)
        self._allocate()

    @property
    def replays_graph(self) -> bool:
        """Whether the last run was the replay of a CUDA graph that this session captured."""
        return self._replay is not None

    def run(self, feeds: Mapping[str, Array], out: dict[str, Array] | None = None) -> dict[str, Array]:
        """Run once; GPU-clock seconds are then in `last_timings`. A subset of the outputs in `out` will do.

        Raises:
            InputError: feeds or `out` do not fit the engine, or lie outside its profile.
            EnvironmentFault: CUDA reports an error.
        """
        if self._context is None:
            raise InputError(f"the session of '{self._path}' is closed")
        sizes = check_feeds(self.inputs, feeds)
        if out is not None:
            check_out(self.outputs, out, sizes)
        self._set_shapes({name: array.shape for name, array in feeds.items()})
        for name, array in feeds.items():
            np.copyto(self._view(name), array)
        before, copied, computed, after = self._events
        before.record(self._stream)
        for name in self.inputs:
            self._cuda.copy(self._on_device[name], self._host[name], self._nbytes(name), self._stream)
        copied.record(self._stream)
        self._compute()
        computed.record(self._stream)
        for name in self.outputs:
            self._cuda.copy(self._host[name], self._on_device[name], self._nbytes(name), self._stream)
        after.record(self._stream)
        self._stream.synchronize()
        self.last_timings = Timings(
            compute=computed.seconds_since(copied),
            copy_in=copied.seconds_since(before),
            copy_out=after.seconds_since(computed),
        )
        if out is None:
            return {name: self._view(name).copy() for name in self.outputs}
        for name, array in out.items():
            if array.shape != self._shapes[name]:
                raise InputError(
                    f"the array for output '{name}' is {array.shape}, the engine gave {self._shapes[name]}"
                )
            np.copyto(array, self._view(name))
        return out

    def close(self) -> None:
        if self._context is None:
            return
        self._stream.synchronize()
        self._replay = None
        self._context = self._engine = self._runtime = None
        for memory in (*self._host.values(), *self._on_device.values()):
            memory.free()
        self._stream.close()

    def __enter__(self) -> EngineSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _describe(self, trt: Any) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
        engine = self._engine
        tensors = self.contract.output.tensors if self.contract else ()
        meant = {tensor.name: tuple(tensor.shape) for tensor in tensors}
        inputs: dict[str, TensorInfo] = {}
        outputs: dict[str, TensorInfo] = {}
        for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
            shape = tuple(engine.get_tensor_shape(name))
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            letters = (
                _FRAME_SIDES if self.contract and is_input and len(shape) == len(_FRAME_SIDES) else meant.get(name, ())
            )
            free = [
                letters[axis] if axis < len(letters) and isinstance(letters[axis], str) else f"{name}.{axis}"
                for axis in range(len(shape))
            ]
            sides = tuple(side if side >= 0 else free[axis] for axis, side in enumerate(shape))
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name
            (inputs if is_input else outputs)[name] = TensorInfo(dtype, sides)
            if is_input:
                least, _, most = engine.get_tensor_profile_shape(name, 0)
                self._bounds[name] = (tuple(least), tuple(most))
        return inputs, outputs

    def _allocate(self) -> None:
        for name, (_, most) in self._bounds.items():
            self._context.set_input_shape(name, most)
        for name, info in (*self.inputs.items(), *self.outputs.items()):
            shape = tuple(self._context.get_tensor_shape(name))
            if any(side < 0 for side in shape):
                raise ArtifactError(f"output '{name}' of '{self._path}' has a size that only a run can tell: {shape}")
            nbytes = max(int(np.prod(shape)), 1) * np.dtype(info.dtype).itemsize
            self._host[name] = self._cuda.allocate(nbytes, pinned=True)
            self._on_device[name] = self._cuda.allocate(nbytes)
            self._context.set_tensor_address(name, self._on_device[name].pointer)

    def _set_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if all(self._shapes.get(name) == shape for name, shape in shapes.items()):
            return
        for name, shape in shapes.items():
            least, most = self._bounds[name]
            if any(not low <= side <= high for low, side, high in zip(least, shape, most, strict=True)):
                raise InputError(f"feed '{name}' is {shape}, '{self._path.name}' was built for {least} to {most}")
            self._context.set_input_shape(name, shape)
        self._shapes = {**shapes, **{name: tuple(self._context.get_tensor_shape(name)) for name in self.outputs}}
        self._replay, self._runs_at_shape = None, 0

    def _compute(self) -> None:
        if self._replay is not None:
            self._replay()
            return
        # The first run at a shape sets up what a capture may not; the second is captured and replayed from then on.
        if self._capture and self._runs_at_shape == 1:
            self._replay = self._stream.capture(self._enqueue)
            if self._replay is not None:
                self._replay()
                return
            _log.warning("%s: the CUDA layer %s has no graphs; running without", self._path.name, self._cuda.name)
            self._capture = False
        self._enqueue()
        self._runs_at_shape += 1

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EnvironmentFault(f"'{self._path}' failed to run; the log says why (irforge.tensorrt)")

    def _view(self, name: str) -> Array:
        info = self.inputs.get(name) or self.outputs[name]
        block = self._host[name].array
        assert block is not None
        return block[: self._nbytes(name)].view(info.dtype).reshape(self._shapes[name])

    def _nbytes(self, name: str) -> int:
        info = self.inputs.get(name) or self.outputs[name]
        return int(np.prod(self._shapes[name])) * np.dtype(info.dtype).itemsize


def _load_plugins(trt: Any, plugin: Plugin, *, trust: bool) -> None:
    """Bring the plugin library that an engine was built with into TensorRT's registry.

    Raises:
        EnvironmentFault: it is not on this machine, or TensorRT does not load it.
        ArtifactError: it is another one than the engine was built with.
    """
    library = native_library("tensorrt")
    if library.name != plugin.name:
        raise EnvironmentFault(f"the engine needs the plugin library '{plugin.name}', which irforge does not know")
    if not trust and sha256_of_file(library) != plugin.sha256:
        raise ArtifactError(
            f"'{library}' is not the plugin library that the engine was built with",
            "Build the engine again with this one, or load it with --trust-engine if you know that both fit",
        )
    require_same_major(library, trt.__version__)
    if not _registered(trt, library):
        raise EnvironmentFault(f"TensorRT does not load the plugin library '{library}'; the log says why")


@cache
def _registered(trt: Any, library: Path) -> bool:
    # Once a process: the registry is global, and a second load would register every creator twice.
    return trt.get_plugin_registry().load_library(str(library)) is not None


def load_library(runtime: RuntimeKind) -> Any:
    """NVIDIA's Python module for a runtime, on a machine that can use it.

    Raises:
        EnvironmentFault: there is no GPU with a driver, or the library does not load.
    """
    if not gpus():
        raise EnvironmentFault(
            f"{runtime} engines run on an NVIDIA GPU with its driver, and this machine shows none",
            "Run the .onnx file instead, or install the driver; 'irforge doctor' says what is here",
        )
    library = LIBRARIES[runtime]
    try:
        return import_compiler(library)
    except (ImportError, OSError) as error:
        raise EnvironmentFault(f"{runtime} does not load: {error}", EXTRAS[library]) from None


def _forwarding_logger(trt: Any) -> Any:
    severities = trt.ILogger.Severity
    levels = {
        severities.INTERNAL_ERROR: logging.CRITICAL,
        severities.ERROR: logging.ERROR,
        severities.WARNING: logging.WARNING,
        severities.INFO: logging.DEBUG,
    }

    class Forward(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in levels:
                _log.log(levels[severity], message)

    return Forward()
