"""MSHNet and the GLMD neck in torch: what precision, memory layout, a CUDA graph and torch.compile make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.records import NetworkTiming
from benchmarks.gpu.steps import Run
from benchmarks.gpu.timing import as_cuda_graph, time_passes
from irforge.errors import EnvironmentFault

# The first compilation starts the compiler's processes and has everything to build.
COMPILATION_SECONDS = 60


@dataclass(frozen=True)
class Mode:
    """How a network runs: type, TF32 for FP32's products, channels last, CUDA graph, torch.compile."""

    name: str
    half: bool = True
    tf32: bool = False
    channels_last: bool = True
    cuda_graph: bool = False
    compiled: bool = False


REFERENCE = Mode("FP32", half=False, channels_last=False)
MODES = (
    REFERENCE,
    Mode("FP32, TF32 products", half=False, tf32=True, channels_last=False),
    Mode("FP16", channels_last=False),
    Mode("FP16, channels last"),
    Mode("FP16, channels last, CUDA graph", cuda_graph=True),
)
COMPILED = Mode("FP16, channels last, torch.compile, CUDA graph", cuda_graph=True, compiled=True)


@dataclass(frozen=True)
class Network:
    """A network of one input and one output, and the shapes it is timed at."""

    name: str
    load: Callable[[], nn.Module]
    shapes: tuple[tuple[int, int, int, int], ...]


class FusedLogits(nn.Module):
    """MSHNet's fused logits alone; the heads of the scales are computed all the same."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)[1]
        return logits


def load_mshnet() -> nn.Module:
    """MSHNet for gray frames with the weights that ship, or random ones where safetensors is not installed."""
    from irforge.samples import FRAMES
    from irforge.train.detectors.mshnet.network import MSHNet

    torch.manual_seed(0)
    network = MSHNet(in_channels=1)
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        return FusedLogits(network).eval()
    network.load_state_dict(load_file(FRAMES.parent / "mshnet.safetensors"))
    return FusedLogits(network).eval()


def load_neck() -> nn.Module:
    """The GLMD neck with random weights."""
    from irforge.train.detectors.glmd.neck import GlmdNeck

    torch.manual_seed(0)
    return GlmdNeck().eval()


NETWORKS = (
    Network("MSHNet", load_mshnet, ((1, 1, 256, 256), (1, 1, 512, 640))),
    Network("GLMD neck", load_neck, ((1, 1024, 50, 76), (1, 1024, 32, 40))),
)


def run(run: Run) -> None:
    if not torch.cuda.is_available():
        raise EnvironmentFault(f"torch {torch.__version__} sees no GPU here")
    torch.backends.cudnn.benchmark = True
    for modes, seconds in ((MODES, 5), ((COMPILED,), COMPILATION_SECONDS)):
        for network in NETWORKS:
            for shape in network.shapes:
                for mode in modes:
                    wanted = NetworkTiming(network=network.name, shape=list(shape), mode=mode.name)
                    if run.has_time(wanted.label, seconds):
                        timing = time_network(network, shape, mode)
                        run.add("networks", timing)
                        _show(timing)


@torch.inference_mode()
def time_network(network: Network, shape: tuple[int, int, int, int], mode: Mode) -> NetworkTiming:
    """One network at one size in one mode, and how far its output is from its own FP32 output."""
    timing = NetworkTiming(network=network.name, shape=list(shape), mode=mode.name)
    try:
        features = example(shape, "cuda")
        with tf32(False):
            expected = prepared(network.load().cuda(), features, REFERENCE)()
        with tf32(mode.tf32):
            call = prepared(network.load().cuda(), features, mode)
            difference = relative_difference(call(), expected)

            def one_pass() -> None:
                call()

            times = time_passes(as_cuda_graph(one_pass) if mode.cuda_graph else one_pass, 1, samples=500, seconds=3.0)
    except RuntimeError as error:
        return replace(timing, failure=" ".join(str(error).split())[:300] or type(error).__name__)
    failure = "" if difference < 1 else "its output is not that of FP32"
    return replace(timing, times=times, max_difference=min(difference, 1e9), failure=failure)


def example(shape: tuple[int, int, int, int], device: str) -> Tensor:
    """A random input: standard deviation 1, as a normalised frame has, and a feature map about."""
    generator = torch.Generator(device=device).manual_seed(0)
    return torch.randn(shape, generator=generator, device=device)


def prepared(network: nn.Module, features: Tensor, mode: Mode) -> Callable[[], Tensor]:
    """A call of the network on the features, both in the mode's type and memory layout."""
    dtype = torch.float16 if mode.half else torch.float32
    memory = torch.channels_last if mode.channels_last else torch.contiguous_format
    network = network.to(dtype=dtype).to(memory_format=memory)  # type: ignore[call-overload]
    x = features.to(dtype=dtype, memory_format=memory)
    if mode.compiled:
        torch.compiler.reset()
        network = torch.compile(network, dynamic=False)  # type: ignore[assignment]
    return lambda: network(x)


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest expected value; infinite where a value is not finite."""
    difference = (values.double() - expected.double()).abs().max() / expected.double().abs().max()
    return float(difference.nan_to_num(nan=torch.inf))


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products and convolutions may round their factors to TF32."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def _show(timing: NetworkTiming) -> None:
    where = f"  {timing.network} {timing.shape}, {timing.mode}: "
    if timing.times is None:
        print(where + timing.failure, flush=True)
    else:
        print(f"{where}{timing.times.p50:.3f} ms, p99 {timing.times.p99:.3f}", flush=True)
