"""The two protocols that every backend and every detector of this package follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from irforge.contract import Contract
from irforge.detections import Detections

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor at a graph's door: NumPy dtype name and shape, where a string is a free dimension."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Timings:
    """Seconds of the last run on the device's own clock; None where the backend cannot tell."""

    compute: float
    copy_in: float | None = None
    copy_out: float | None = None


@runtime_checkable
class Session(Protocol):
    """A loaded graph that runs.

    `thread_rule` says whether `run` may be called from several threads: 'any thread', 'one thread at a time' or
    'the creating thread'. `device` is where it computes ('cpu', 'cuda:0'); `backend` and `precision` are for reports.
    `custom_ops` says which of irforge's custom operators run and how ('MutualGate by plugin'); '' without any.
    """

    backend: str
    device: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    thread_rule: str
    last_timings: Timings | None
    custom_ops: str

    def run(self, feeds: Mapping[str, Array], out: dict[str, Array] | None = None) -> dict[str, Array]:
        """Run once. With `out`, results are written into its arrays, which are returned; shapes must match.

        Raises:
            InputError: a feed is missing, unknown, or of the wrong dtype or shape.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class StageTimes:
    """Seconds that the last frame spent in each host-side stage."""

    prepare: float = 0.0
    infer: float = 0.0
    decode: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Detector(Protocol):
    """Frames in, detections out, on whatever backend: what `irforge.load` returns."""

    contract: Contract
    session: Session
    last_times: StageTimes

    def __call__(self, frame: Array) -> Detections:
        """Detect in one raw frame, H x W or H x W x C, of the contract's bit depth."""
        ...

    def close(self) -> None: ...
