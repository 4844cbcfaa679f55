"""The trained detector behind the Session protocol: what parity and benchmarks compare against."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from irforge.contract import Contract, Range
from irforge.errors import InputError, UsageError
from irforge.runtime.backends.tensors import check_feeds, check_out
from irforge.session import Array, TensorInfo, Timings
from irforge.train.checkpoint import load_deployable
from irforge.train.detectors.base import Deployable


class TorchSession:
    """A checkpoint's deployable in eager FP32 on the CPU; see `irforge.session.Session`.

    Args:
        checkpoint: safetensors with a contract.
        threads: torch threads while it runs; None leaves torch's setting.
        plain: run the network as research code does: the gray frame copied to three channels and normalised outside
            of a three-channel network. The baseline that speed-ups are stated against; its values are the same.
        size: (height, width) to report instead of the contract's, ("H", "W") for any: eager torch takes all multiples
            of the stride.
        trust: load a pickled checkpoint.

    Raises:
        ArtifactError: the checkpoint cannot be read.
        UsageError: `plain` for a detector that does not take gray frames.
    """

    backend = "torch"
    device = "cpu"
    precision = "fp32"
    thread_rule = "one thread at a time"
    custom_ops = ""

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        *,
        threads: int | None = None,
        plain: bool = False,
        size: tuple[int | str, int | str] | None = None,
        trust: bool = False,
    ) -> None:
        deployable, contract = load_deployable(checkpoint, trust=trust)
        self._module: nn.Module | None = PlainNetwork(deployable, contract) if plain else deployable
        self._module.eval()
        self._threads = threads
        self._names = [tensor.name for tensor in contract.output.tensors]
        self.contract = contract
        self.last_timings: Timings | None = None
        spec = contract.input
        height, width = size or (_side(spec.height, "H"), _side(spec.width, "W"))
        self.inputs: Mapping[str, TensorInfo] = {spec.name: TensorInfo(spec.door, ("N", spec.channels, height, width))}
        sides = {"H": height, "W": width}
        self.outputs: Mapping[str, TensorInfo] = {
            tensor.name: TensorInfo(
                tensor.dtype, tuple(sides.get(side, side) if isinstance(side, str) else side for side in tensor.shape)
            )
            for tensor in contract.output.tensors
        }

    def run(self, feeds: Mapping[str, Array], out: dict[str, Array] | None = None) -> dict[str, Array]:
        """Run once; see the protocol.

        Raises:
            InputError: feeds or `out` do not fit, or the session is closed.
        """
        if self._module is None:
            raise InputError("this torch session is closed")
        sizes = check_feeds(self.inputs, feeds)
        if out is not None:
            check_out(self.outputs, out, sizes)
        (frames,) = feeds.values()
        with _threads(self._threads), torch.inference_mode():
            result = self._module(torch.from_numpy(np.ascontiguousarray(frames)))
        tensors: list[Tensor] = [result] if isinstance(result, Tensor) else list(result)
        arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in zip(self._names, tensors, strict=True)}
        if out is None:
            return arrays
        for name, array in out.items():
            np.copyto(array, arrays[name])
        return out

    def close(self) -> None:
        self._module = None

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PlainNetwork(nn.Module):
    """Gray frames N x 1 x H x W -> probabilities, through a three-channel network with nothing folded into it.

    A network that was trained on one channel gets a three-channel first layer of the same function.
    """

    def __init__(self, deployable: Deployable, contract: Contract) -> None:
        super().__init__()
        if contract.input.channels != 1 or contract.output.kind != "mask":
            raise UsageError("the plain baseline exists for detectors that turn gray frames into a mask")
        self.network: nn.Module = copy.deepcopy(deployable.network)
        name, first = next((n, m) for n, m in self.network.named_modules() if isinstance(m, nn.Conv2d))
        if first.in_channels == 1:
            parent, _, leaf = name.rpartition(".")
            setattr(self.network.get_submodule(parent), leaf, _three_channels(first))
        self.mean: Tensor
        self.std: Tensor
        for buffer in ("mean", "std"):
            value = getattr(deployable.normalise, buffer).detach()
            self.register_buffer(buffer, value.expand(1, 3, 1, 1).clone(), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        x = (frames.float().repeat(1, 3, 1, 1) - self.mean) / self.std
        _, final = self.network(x)
        return torch.sigmoid(final)


def _three_channels(conv: nn.Conv2d) -> nn.Conv2d:
    """A convolution of three channels that gives for a gray frame copied to all of them what `conv` gives for one."""
    wide = copy.deepcopy(conv)
    wide.in_channels = 3
    wide.weight = nn.Parameter(conv.weight.detach().repeat(1, 3, 1, 1) / 3)
    return wide


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _side(side: int | Range, symbol: str) -> int | str:
    return symbol if isinstance(side, Range) else side
