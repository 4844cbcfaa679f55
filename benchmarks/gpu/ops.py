"""The custom ops as problems for a library of kernels: a class each. `OPS` lists them; checks know no op by name."""

from __future__ import annotations

import ctypes
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.library import DTYPES, LAYOUTS, TYPES, KernelLibrary, Launch, Op, Shape, to_layout


class _MutualGateProblem(ctypes.Structure):
    _fields_ = (
        ("batch", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("input_type", ctypes.c_int32),
        ("output_type", ctypes.c_int32),
        ("input_layout", ctypes.c_int32),
        ("output_layout", ctypes.c_int32),
        ("scale_g", ctypes.c_float),
        ("scale_l", ctypes.c_float),
    )


@dataclass(frozen=True)
class MutualGate:
    """concat[G * sigmoid(L) ; L * sigmoid(G)], each half over its scale where Y is int8."""

    symbol: ClassVar[str] = "mutual_gate"
    tolerance: ClassVar[float] = 8.0

    shape: Shape
    input: str = "float16"
    output: str = "float16"
    layouts: tuple[str, str] = ("linear", "linear")
    offset: int = 0
    # Exact in float32, so that the reference divides by what the kernel divides by.
    scales: tuple[float, float] = (0.03125 * 1.25, 0.03125 * 1.75)

    @classmethod
    def cases(cls) -> Iterator[MutualGate]:
        map_shape = (1, 1024, 50, 76)
        for given in ("float32", "float16"):
            for made in ("float32", "float16", "int8"):
                for shape in ((1, 1, 1, 1), (2, 3, 5, 7), (1, 8, 16, 20), (3, 17, 9, 13), map_shape):
                    yield cls(shape, given, made)
                for shape in ((2, 3, 5, 7), (2, 8, 16, 20)):
                    yield cls(shape, given, made, offset=1)
        for shape in ((1, 8, 1, 1), (2, 24, 5, 7), map_shape):
            yield cls(shape, layouts=("hwc8", "hwc8"))
        for shape in ((1, 32, 1, 1), (2, 96, 5, 7), map_shape):
            yield cls(shape, output="int8", layouts=("hwc8", "chw32"))
        yield cls((2, *map_shape[1:]))

    @property
    def variant(self) -> str:
        return _variant((self.input, self.output), self.layouts, self.offset)

    @property
    def output_shape(self) -> Shape:
        batch, channels, height, width = self.shape
        return batch, 2 * channels, height, width

    @property
    def problem(self) -> ctypes.Structure:
        return _MutualGateProblem(
            *self.shape, TYPES[self.input], TYPES[self.output], *(LAYOUTS[name] for name in self.layouts), *self.scales
        )

    def inputs(self, generator: torch.Generator) -> list[Tensor]:
        maps = [3 * torch.randn(self.shape, generator=generator, device=generator.device) for _ in range(2)]
        # Where a sigmoid is 0 or 1, in float32 or in float16; opposite signs meet, and equal ones.
        extremes = torch.tensor([0.0, -104.0, 88.5, -12.0, 30.0, -88.5, 104.0, -1e-4], device=generator.device)
        count = min(len(extremes), maps[0].numel() // 4)
        for values, ends in zip(maps, (extremes, extremes.roll(3)), strict=True):
            values.flatten()[:count] = ends[:count]
        return [values.to(DTYPES[self.input]) for values in maps]

    def pack(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [to_layout(x, self.layouts[0]) for x in inputs]

    def reference(self, inputs: Sequence[Tensor]) -> Tensor:
        g, l = (x.double() for x in inputs)
        halves = [g * l.sigmoid(), l * g.sigmoid()]
        if self.output == "int8":
            halves = [half / scale for half, scale in zip(halves, self.scales, strict=True)]
        return torch.cat(halves, 1)

    def eager(self, *inputs: Tensor) -> Tensor:
        g, l = inputs
        if self.output == "int8":
            scale_g, scale_l = self.scales
            halves = (g * torch.sigmoid(l) / scale_g, l * torch.sigmoid(g) / scale_l)
            return torch.cat([half.round().clamp(-128, 127).to(torch.int8) for half in halves], 1)
        return torch.cat([g * torch.sigmoid(l), l * torch.sigmoid(g)], 1).to(DTYPES[self.output])

    def bind(self, library: KernelLibrary, packed: Sequence[Tensor], output: Tensor) -> Launch:
        return library.launcher(self.symbol, self.problem, [*packed, output])

    @property
    def set_bytes(self) -> int:
        return 2 * math.prod(self.shape) * (DTYPES[self.input].itemsize + DTYPES[self.output].itemsize)


@dataclass(frozen=True)
class _MapGate(ABC):
    """What the ops share that gate one map: Y is like X."""

    symbol: ClassVar[str]

    shape: Shape
    type: str = "float16"
    layout: str = "linear"
    offset: int = 0

    @property
    @abstractmethod
    def problem(self) -> ctypes.Structure: ...

    @abstractmethod
    def eager(self, *inputs: Tensor) -> Tensor: ...

    @property
    def output(self) -> str:
        return self.type

    @property
    def output_shape(self) -> Shape:
        return self.shape

    @property
    def layouts(self) -> tuple[str, str]:
        return self.layout, self.layout

    @property
    def set_bytes(self) -> int:
        return 2 * math.prod(self.shape) * DTYPES[self.type].itemsize

    def reference(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.eager(*(x.double() for x in inputs))

    def bind(self, library: KernelLibrary, packed: Sequence[Tensor], output: Tensor) -> Launch:
        return library.launcher(self.symbol, self.problem, [*packed, output], scratch=True)

    def pack(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        x, *weights = inputs
        return [to_layout(x, self.layout), *weights]

    def _random(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device)


_MAP_FIELDS = (
    *((side, ctypes.c_int64) for side in ("batch", "channels", "height", "width")),
    *((kind, ctypes.c_int32) for kind in ("type", "layout")),
)


class _SpatialGateProblem(ctypes.Structure):
    _fields_ = (*_MAP_FIELDS, ("kernel", ctypes.c_int32))


@dataclass(frozen=True)
class SpatialGate(_MapGate):
    """X * sigmoid(conv(concat[mean over channels of X ; max over channels of X], W))."""

    symbol: ClassVar[str] = "spatial_gate"
    # The sums over channels and window, in any order, come before the sigmoid.
    tolerance: ClassVar[float] = 128.0

    kernel: int = 7

    @classmethod
    def cases(cls) -> Iterator[SpatialGate]:
        for kind in ("float32", "float16"):
            for shape in ((1, 1, 1, 1), (3, 17, 33, 29), (1, 16, 256, 256), (1, 128, 32, 32), (1, 256, 16, 16)):
                yield cls(shape, kind)
            for kernel in (1, 3, 15):
                yield cls((2, 3, 20, 21), kind, kernel=kernel)
            yield cls((2, 8, 16, 20), kind, offset=1)
        for shape in ((1, 8, 1, 1), (2, 24, 17, 19), (1, 16, 256, 256), (1, 256, 32, 40)):
            yield cls(shape, layout="hwc8")

    @property
    def variant(self) -> str:
        window = "" if self.kernel == 7 else f", {self.kernel}x{self.kernel} window"
        return _variant((self.type,), (self.layout,), self.offset) + window

    @property
    def problem(self) -> ctypes.Structure:
        return _SpatialGateProblem(*self.shape, TYPES[self.type], LAYOUTS[self.layout], self.kernel)

    def inputs(self, generator: torch.Generator) -> list[Tensor]:
        x = self._random(generator, *self.shape)
        weight = self._random(generator, 1, 2, self.kernel, self.kernel) / self.kernel
        return [x.to(DTYPES[self.type]), weight.to(DTYPES[self.type])]

    def eager(self, *inputs: Tensor) -> Tensor:
        x, weight = inputs
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(F.conv2d(pooled, weight, padding=self.kernel // 2))


class _ChannelGateProblem(ctypes.Structure):
    _fields_ = (*_MAP_FIELDS, ("hidden", ctypes.c_int64))


@dataclass(frozen=True)
class ChannelGate(_MapGate):
    """X * sigmoid(m(mean over the map of X) + m(maximum over the map of X)), m(v) = W2 relu(W1 v)."""

    symbol: ClassVar[str] = "channel_gate"
    # The sums over the map and the channels, in any order, come before the sigmoid.
    tolerance: ClassVar[float] = 128.0

    hidden: int = 1

    @classmethod
    def cases(cls) -> Iterator[ChannelGate]:
        for kind in ("float32", "float16"):
            yield cls((1, 1, 1, 1), kind)
            yield cls((3, 17, 33, 29), kind, hidden=5)
            for shape in ((1, 16, 256, 256), (1, 128, 32, 32), (1, 256, 16, 16)):
                yield cls(shape, kind, hidden=shape[1] // 16)
            yield cls((2, 8, 16, 20), kind, hidden=3, offset=1)
        for shape in ((1, 8, 1, 1), (2, 24, 17, 19), (1, 16, 256, 256), (1, 256, 32, 40)):
            yield cls(shape, layout="hwc8", hidden=max(1, shape[1] // 16))

    @property
    def variant(self) -> str:
        return f"{_variant((self.type,), (self.layout,), self.offset)}, hidden {self.hidden}"

    @property
    def problem(self) -> ctypes.Structure:
        return _ChannelGateProblem(*self.shape, TYPES[self.type], LAYOUTS[self.layout], self.hidden)

    def inputs(self, generator: torch.Generator) -> list[Tensor]:
        x, channels = self._random(generator, *self.shape), self.shape[1]
        w1 = self._random(generator, self.hidden, channels, 1, 1) / channels**0.5
        w2 = self._random(generator, channels, self.hidden, 1, 1) / self.hidden**0.5
        return [tensor.to(DTYPES[self.type]) for tensor in (x, w1, w2)]

    def eager(self, *inputs: Tensor) -> Tensor:
        x, w1, w2 = inputs
        mean, peak = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        logits = [F.conv2d(F.relu(F.conv2d(pooled, w1)), w2) for pooled in (mean, peak)]
        return x * torch.sigmoid(logits[0] + logits[1])


OPS: tuple[type[Op], ...] = (MutualGate, SpatialGate, ChannelGate)


def _variant(types: tuple[str, ...], layouts: tuple[str, ...], offset: int) -> str:
    parts = [" -> ".join(dict.fromkeys(types)), " -> ".join(dict.fromkeys(layouts))]
    return ", ".join(parts + (["unaligned"] if offset else []))
