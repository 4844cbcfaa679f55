"""The kernels behind the C ABI of plugins/kernels/c_api.h, and what an op has to tell to be checked and timed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from irforge.errors import CheckFailed, EnvironmentFault

# enum irforge_type and enum irforge_layout.
TYPES = {"float32": 0, "float16": 1, "int8": 2}
LAYOUTS = {"linear": 0, "hwc8": 1, "chw32": 2}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "int8": torch.int8}

Shape = tuple[int, int, int, int]
Launch = Callable[[], None]


class KernelLibrary:
    """libirforge_kernels.so, or libirforge_cpu.so, whose functions are the same without a stream and a workspace."""

    def __init__(self, path: Path, device: str) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise EnvironmentFault(f"the kernels cannot be loaded: {error}") from None
        self.device = device
        self.on_gpu = device == "cuda"

    def has(self, op: str) -> bool:
        return hasattr(self._library, f"irforge_{op}_{self.device}")

    def refusal(self, op: str, problem: ctypes.Structure) -> str:
        """Why the library cannot compute a problem; empty if it can."""
        ask = getattr(self._library, f"irforge_{op}_refusal")
        ask.restype = ctypes.c_char_p
        answer: bytes | None = ask(ctypes.byref(problem))
        return answer.decode() if answer else ""

    def _workspace(self, op: str, problem: ctypes.Structure) -> Tensor:
        ask = getattr(self._library, f"irforge_{op}_workspace")
        ask.restype = ctypes.c_size_t
        return torch.empty(max(1, ask(ctypes.byref(problem))), dtype=torch.uint8, device=self.device)

    def launcher(
        self, op: str, problem: ctypes.Structure, tensors: Sequence[Tensor], *, scratch: bool = False
    ) -> Launch:
        """A call of the op on torch's current stream; the tensors live as long as it does.

        `scratch`: on a GPU the op takes a workspace after its tensors.
        """
        if scratch and self.on_gpu:
            tensors = [*tensors, self._workspace(op, problem)]
        function = getattr(self._library, f"irforge_{op}_{self.device}")
        function.argtypes = [ctypes.c_void_p] * (1 + len(tensors) + self.on_gpu)
        function.restype = ctypes.c_int

        def launch() -> None:
            stream = (torch.cuda.current_stream().cuda_stream,) if self.on_gpu else ()
            if code := function(ctypes.addressof(problem), *(tensor.data_ptr() for tensor in tensors), *stream):
                raise CheckFailed(f"{op} returned {code}: {self._explanation(op, code, problem)}")

        return launch

    def _explanation(self, op: str, code: int, problem: ctypes.Structure) -> str:
        if code == -1 or not self.on_gpu:
            return self.refusal(op, problem)
        self._library.irforge_cuda_error.restype = ctypes.c_char_p
        explained: bytes = self._library.irforge_cuda_error(code)
        return explained.decode()


class Op(Protocol):
    """A problem: an op's shape, types and layouts. Tensors are N x C x H x W; `pack` gives them the problem's layout.

    Attributes:
        symbol: as in irforge_<symbol>_cuda.
        tolerance: of float32, in units in the last place.
    """

    symbol: ClassVar[str]
    tolerance: ClassVar[float]

    @classmethod
    def cases(cls) -> Iterator[Op]:
        """The problems that a library is checked on."""
        ...

    @property
    def shape(self) -> Shape:
        """Of the first input."""
        ...

    @property
    def variant(self) -> str: ...

    @property
    def output(self) -> str:
        """The type of Y."""
        ...

    @property
    def output_shape(self) -> Shape: ...

    @property
    def layouts(self) -> tuple[str, str]:
        """Of the inputs and of Y."""
        ...

    @property
    def offset(self) -> int:
        """Elements by which every buffer is moved off its alignment."""
        ...

    @property
    def problem(self) -> ctypes.Structure: ...

    def inputs(self, generator: torch.Generator) -> list[Tensor]:
        """Random inputs on the generator's device; those of Y's shape or half of it first, weights after them."""
        ...

    def pack(self, inputs: Sequence[Tensor]) -> list[Tensor]: ...

    def reference(self, inputs: Sequence[Tensor]) -> Tensor:
        """Y in float64 before it is rounded to its type."""
        ...

    def eager(self, *inputs: Tensor) -> Tensor:
        """Y as anyone would write it in torch."""
        ...

    def bind(self, library: KernelLibrary, packed: Sequence[Tensor], output: Tensor) -> Launch: ...

    @property
    def set_bytes(self) -> int:
        """What one call must move at least."""
        ...


def to_layout(x: Tensor, layout: str) -> Tensor:
    """N x C x H x W as its memory lies in a layout, contiguous."""
    if layout == "hwc8":
        x = x.permute(0, 2, 3, 1)
    elif layout == "chw32":
        x = x.unflatten(1, (-1, 32)).permute(0, 1, 3, 4, 2)
    return x.contiguous()


def from_layout(memory: Tensor, shape: Shape, layout: str) -> Tensor:
    """The N x C x H x W that lies in a flat memory; the inverse of `to_layout`."""
    batch, channels, height, width = shape
    if layout == "hwc8":
        return memory.view(batch, height, width, channels).permute(0, 3, 1, 2)
    if layout == "chw32":
        return memory.view(batch, channels // 32, height, width, 32).permute(0, 1, 4, 2, 3).flatten(1, 2)
    return memory.view(shape)
