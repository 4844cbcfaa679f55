"""What is measured of the two-stage detectors, and how: each measurement alone in a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

Figures = dict[str, Any]


class Case(NamedTuple):
    """A detector at a size (height, width); `loss` is what its recipe changes of the published one."""

    title: str
    size: tuple[int, int]
    network: dict[str, Any]
    loss: dict[str, Any]


CASES = {
    "full": Case("GLMD-CA, ResNet-101", (800, 1216), {"class_count": 11}, {}),
    # As train/detectors/glmd/base_small.yaml has it.
    "small": Case(
        "GLMD-CA, ResNet-18",
        (256, 320),
        {
            "class_count": 4,
            "depth": 18,
            "in_channels": 1,
            "stride_in_1x1": False,
            "anchor_sizes": [8, 16, 24, 32, 64],
            "candidates": 256,
            "proposals": 32,
            "norm": "batch",
            "freeze_at": 0,
            "freeze_res5": False,
        },
        {"candidates": 500, "proposals": 100, "anchor_batch": 64, "roi_batch": 16},
    ),
}
BOXES = (5, 10, 20, 100)
ENCODERS = {
    "clip-vit-b-32": "CLIP ViT-B/32, a crop each",
    "clip-vit-l-14-336": "CLIP ViT-L/14 at 336, a crop each",
    "efficientnet-lite0": "EfficientNet-Lite0, the frame once",
}
FRAME = (512, 640)
PARTS = ("macs", "train", "infer", "rescore", "gate")


def alone(function: Callable[..., Figures], *arguments: Any) -> Figures:
    """What a function finds in a fresh process, and the most memory that this held."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_with_memory, function, arguments).result()


def _with_memory(function: Callable[..., Figures], arguments: tuple[Any, ...]) -> Figures:
    import cv2
    import torch

    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    found = function(*arguments)
    if torch.cuda.is_initialized():
        return found | {"peak_device_bytes": torch.cuda.max_memory_allocated()}
    # Of this program alone: what getrusage tells begins with the size of the program that started it.
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    return found | {"peak_bytes": peak}


def timed(call: Callable[[], Any], rounds: int, device: str = "cpu") -> list[float]:
    """Seconds of each call but the first, which prepares memory and kernels."""
    import torch

    seconds = []
    for _ in range(rounds + 1):
        start = perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(perf_counter() - start)
    return seconds[1:]
