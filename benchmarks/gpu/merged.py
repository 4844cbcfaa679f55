"""What the neck's merged convolution gains on a GPU: `PYTHONPATH=. python3 benchmarks/gpu/merged.py`.

Two 3x3 convolutions of the halves that the gate gives, summed, against one convolution of both halves: FP16, replayed
as a CUDA graph, in milliseconds of CUDA events.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.timing import as_cuda_graph, time_passes
from irforge.errors import EnvironmentFault, run_command

SIZES = ((50, 76), (32, 40))
CHANNELS = 1024


@torch.inference_mode()
def compare(height: int, width: int, memory: torch.memory_format) -> tuple[float, float]:
    """Medians in milliseconds: (two convolutions and their sum, one convolution)."""

    def half(module: nn.Module) -> nn.Module:
        return module.cuda().half().to(memory_format=memory)  # type: ignore[call-overload, no-any-return]

    left, right = (half(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)) for _ in range(2))
    merged = half(nn.Conv2d(2 * CHANNELS, CHANNELS, 3, padding=1))
    both = torch.randn(1, 2 * CHANNELS, height, width, device="cuda").half().contiguous(memory_format=memory)
    first, second = (part.contiguous(memory_format=memory) for part in both.chunk(2, 1))
    apart = time_passes(as_cuda_graph(lambda: left(first) + right(second)), 1, samples=300)
    one = time_passes(as_cuda_graph(lambda: merged(both)), 1, samples=300)
    return apart.p50, one.p50


def merged() -> None:
    """Time both forms at two sizes in two memory layouts."""
    if not torch.cuda.is_available():
        raise EnvironmentFault("torch sees no GPU here", "Run it on a machine with an NVIDIA GPU")
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for height, width in SIZES:
        for name, memory in (("channels last", torch.channels_last), ("linear", torch.contiguous_format)):
            apart, one = compare(height, width, memory)
            print(f"{height}x{width} {name}: two {apart:.4f} ms, one {one:.4f} ms, {apart / one:.2f} times as fast")


if __name__ == "__main__":
    run_command(merged)
