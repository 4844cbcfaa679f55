"""What GPU sessions need of CUDA, no more: memory, copies, a stream, events. cuda-python gives it, or else PyCUDA.

Both work in the device's primary context, so that a session lives beside PyTorch or ONNX Runtime in one process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from irforge.errors import EnvironmentFault

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Memory:
    """A block of memory: `pointer` for the device; `array` is the host's view of a pinned block, else None."""

    pointer: int
    nbytes: int
    array: Bytes | None
    free: Callable[[], None]


class Event(Protocol):
    """A point on a stream."""

    def record(self, stream: Stream) -> None: ...

    def seconds_since(self, earlier: Event) -> float:
        """Device time between two points that have passed."""
        ...


class Stream(Protocol):
    """A queue of device work."""

    handle: int

    def synchronize(self) -> None: ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Record what `work` queues as a CUDA graph and return what replays it; None if this layer has no graphs."""
        ...

    def close(self) -> None: ...


class Cuda(Protocol):
    """The layer itself. `thread_rule` as in `irforge.session.Session`."""

    name: str
    thread_rule: str

    def allocate(self, nbytes: int, *, pinned: bool = False) -> Memory:
        """Device memory, or page-locked host memory that copies run from at full speed."""
        ...

    def copy(self, target: Memory, source: Memory, nbytes: int, stream: Stream) -> None:
        """Queue a copy between a pinned and a device block."""
        ...

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...


def load_cuda() -> Cuda:
    """The CUDA layer of this machine.

    Raises:
        EnvironmentFault: neither package is installed, or there is no device.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        pass
    else:
        return CudaPython(runtime)
    try:
        import pycuda.driver as driver
    except ImportError:
        raise EnvironmentFault(
            "GPU sessions need a CUDA layer, and neither cuda-python nor pycuda loads", "pip install 'irforge[gpu]'"
        ) from None
    return PyCuda(driver)


class CudaPython:
    """The layer on `cuda.bindings.runtime`."""

    name = "cuda-python"
    thread_rule = "one thread at a time"

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._call(runtime.cudaSetDevice, 0)

    def allocate(self, nbytes: int, *, pinned: bool = False) -> Memory:
        runtime = self._runtime
        if not pinned:
            pointer = int(self._call(runtime.cudaMalloc, nbytes))
            return Memory(pointer, nbytes, None, lambda: self._call(runtime.cudaFree, pointer))
        pointer = int(self._call(runtime.cudaMallocHost, nbytes))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(pointer))
        return Memory(pointer, nbytes, array, lambda: self._call(runtime.cudaFreeHost, pointer))

    def copy(self, target: Memory, source: Memory, nbytes: int, stream: Stream) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._call(self._runtime.cudaMemcpyAsync, target.pointer, source.pointer, nbytes, kind, stream.handle)

    def stream(self) -> Stream:
        return _CudaPythonStream(self._runtime, self._call)

    def event(self) -> Event:
        return _CudaPythonEvent(self._runtime, self._call)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        error, *values = function(*arguments)
        if error != self._runtime.cudaError_t.cudaSuccess:
            _, text = self._runtime.cudaGetErrorString(error)
            message = text.decode() if isinstance(text, bytes) else text
            raise EnvironmentFault(f"CUDA: {function.__name__} failed: {message}", "'irforge doctor' says what is here")
        return values[0] if values else None


class _CudaPythonStream:
    def __init__(self, runtime: Any, call: Callable[..., Any]) -> None:
        self._runtime, self._call = runtime, call
        self.handle = int(call(runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking))
        self._graphs: list[Any] = []

    def synchronize(self) -> None:
        self._call(self._runtime.cudaStreamSynchronize, self.handle)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        runtime, call = self._runtime, self._call
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(runtime.cudaStreamBeginCapture, self.handle, mode)
        try:
            work()
        finally:
            graph = call(runtime.cudaStreamEndCapture, self.handle)
        executable = call(runtime.cudaGraphInstantiate, graph, 0)
        call(runtime.cudaGraphDestroy, graph)
        self._graphs.append(executable)
        return lambda: call(runtime.cudaGraphLaunch, executable, self.handle)

    def close(self) -> None:
        for executable in self._graphs:
            self._call(self._runtime.cudaGraphExecDestroy, executable)
        self._graphs.clear()
        self._call(self._runtime.cudaStreamDestroy, self.handle)


class _CudaPythonEvent:
    def __init__(self, runtime: Any, call: Callable[..., Any]) -> None:
        self._runtime, self._call = runtime, call
        self.handle = call(runtime.cudaEventCreate)

    def record(self, stream: Stream) -> None:
        self._call(self._runtime.cudaEventRecord, self.handle, stream.handle)

    def seconds_since(self, earlier: Event) -> float:
        assert isinstance(earlier, _CudaPythonEvent)
        return float(self._call(self._runtime.cudaEventElapsedTime, earlier.handle, self.handle)) / 1e3


class PyCuda:
    """The layer on `pycuda.driver`; it has no CUDA graphs, and its context belongs to the thread that made it."""

    name = "pycuda"
    thread_rule = "the creating thread"

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        try:
            driver.init()
            self._context = driver.Device(0).retain_primary_context()
        except driver.Error as error:
            raise EnvironmentFault(f"CUDA: {error}", "'irforge doctor' says what is here") from None
        self._context.push()

    def allocate(self, nbytes: int, *, pinned: bool = False) -> Memory:
        try:
            if not pinned:
                block = self._driver.mem_alloc(nbytes)
                return Memory(int(block), nbytes, None, block.free)
            array = self._driver.pagelocked_empty(nbytes, np.uint8)
        except self._driver.MemoryError as error:
            raise EnvironmentFault(f"CUDA: {error}", "Close other programs on this GPU, or lower the batch") from None
        return Memory(array.ctypes.data, nbytes, array, array.base.free)

    def copy(self, target: Memory, source: Memory, nbytes: int, stream: Stream) -> None:
        assert isinstance(stream, _PyCudaStream)
        if source.array is not None:
            self._driver.memcpy_htod_async(target.pointer, source.array[:nbytes], stream.native)
        elif target.array is not None:
            self._driver.memcpy_dtoh_async(target.array[:nbytes], source.pointer, stream.native)

    def stream(self) -> Stream:
        return _PyCudaStream(self._driver.Stream())

    def event(self) -> Event:
        return _PyCudaEvent(self._driver.Event())


class _PyCudaStream:
    def __init__(self, native: Any) -> None:
        self.native = native
        self.handle = int(native.handle)

    def synchronize(self) -> None:
        self.native.synchronize()

    def capture(self, work: Callable[[], None]) -> None:
        return None

    def close(self) -> None:
        self.native = None


class _PyCudaEvent:
    def __init__(self, native: Any) -> None:
        self.native = native

    def record(self, stream: Stream) -> None:
        assert isinstance(stream, _PyCudaStream)
        self.native.record(stream.native)

    def seconds_since(self, earlier: Event) -> float:
        assert isinstance(earlier, _PyCudaEvent)
        return float(self.native.time_since(earlier.native)) / 1e3
