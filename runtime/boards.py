"""What a board could do with a compiled plan at best: a bound from published peaks, never a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    """Published peaks of the GPU alone: memory bandwidth in bytes a second, and operations a second (two a MAC), dense,
    by the type that a kernel reads.

    known_as: a part of the name that the driver gives it. mode: that of a Jetson's power modes which has these clocks;
    '' where there is one. document: what NVIDIA publishes the peaks in, with its number or revision. derived: what is
    worked out from it, and how.
    """

    name: str
    compute_capability: str
    bandwidth: float
    peaks: Mapping[str, float]
    known_as: str
    document: str
    derived: str
    mode: str = ""


@dataclass(frozen=True)
class Bound:
    """Milliseconds that a frame takes at the very least, and what it is bound by.

    compute: all MACs at the peaks of their types, one type after another. memory: the weights and the frame, read once
    at full bandwidth; what a kernel leaves for the next one may stay in a cache. traffic: all that kernels read and
    write at full bandwidth, as if there were no cache: not a bound, but what a cache has to gain; None if unknown.
    """

    compute: float
    memory: float
    traffic: float | None

    @property
    def milliseconds(self) -> float:
        return max(self.compute, self.memory)

    @property
    def by(self) -> str:
        return "compute" if self.compute >= self.memory else "memory"


def _peaks(fp32: float, tf32: float, fp16: float, int8: float) -> dict[str, float]:
    tera = {"fp32": fp32, "tf32": tf32, "fp16": fp16, "bf16": fp16, "int8": int8}
    return {name: 1e12 * value for name, value in tera.items()}


_ORIN = "Dense is half of sparse, FP16 half of INT8, TF32 half of FP16, FP32 two operations a CUDA core and clock"
BOARDS = (
    Board(
        "Jetson Orin Nano 8GB (625 MHz)", "8.7", 68e9, _peaks(1.28, 5, 10, 20), "Orin Nano",
        "Jetson Orin Nano Series Data Sheet DS-11105-001 v1.1: 40 TOPS INT8 sparse, 20 dense, 1024 CUDA cores at 625 "
        "MHz, 68 GB/s",
        _ORIN, "15W",
    ),
    Board(
        "Jetson Orin Nano 8GB (MAXN SUPER, 1020 MHz)", "8.7", 102e9, _peaks(2.09, 8.375, 16.75, 33.5), "Orin Nano",
        "Jetson Orin Nano Developer Kit User Guide (2025), introduction: 67 TOPS INT8, which are sparse, up to 102 "
        "GB/s",
        f"{_ORIN}, of which there are 1024 at 1020 MHz", "MAXN_SUPER",
    ),
    Board(
        "Jetson Orin NX 16GB (918 MHz)", "8.7", 102.4e9, _peaks(1.88, 7.5, 15, 30), "Orin NX",
        "Jetson Orin NX Series Data Sheet DS-10712-001 v1.0: 100 TOPS INT8 sparse with 2 DLAs of 20, 1024 CUDA cores "
        "at 918 MHz, 128-bit LPDDR5 at 3200 MHz (printed as 102 GB/s); FP16 as v1.7 has it",
        f"{_ORIN}; the GPU's share is the module's without its DLAs", "MAXN",
    ),
    Board(
        "Jetson Orin NX 16GB (MAXN SUPER, 1173 MHz)", "8.7", 102.4e9, _peaks(2.4, 9.625, 19.25, 38.5), "Orin NX",
        "Jetson Orin NX Series Data Sheet DS-10712-001 v1.7 and the announcement of JetPack 6.2: 157 TOPS INT8 sparse "
        "with 80 of DLAs, 19 TFLOPS FP16, 1024 CUDA cores at 1173 MHz, 102.4 GB/s",
        f"{_ORIN}; the GPU's share is the module's without its DLAs", "MAXN_SUPER",
    ),
    Board(
        "Jetson AGX Orin 64GB (1.3 GHz)", "8.7", 204.8e9, _peaks(5.33, 21.25, 42.5, 85), "AGX Orin",
        "Jetson AGX Orin Series Data Sheet DS-10662-001 v1.8, pages 7 and 12: 170 TOPS INT8 sparse of the GPU, 2048 "
        "CUDA cores at 1.3 GHz, 204.8 GB/s; Technical Brief TB_10749-001 v1.2 has 5.3 TFLOPS FP32",
        _ORIN,
    ),
    Board(
        "T4", "7.5", 320e9, _peaks(8.1, 8.1, 65, 130), "T4",
        "T4 data sheet of March 2019: 8.1 TFLOPS FP32, 65 FP16, 130 TOPS INT8. It has 300 GB/s, and the Turing white "
        "paper, table 5, 320",
        "The higher bandwidth; no TF32, so FP32",
    ),
    Board(
        "L4", "8.9", 300e9, _peaks(30.3, 60, 121, 242.5), "L4",
        "L4 data sheet (revision not known): 30.3 TFLOPS FP32; sparse 120 TF32, 242 FP16, 485 TOPS INT8; 300 GB/s",
        "Dense is half of sparse",
    ),
    Board(
        "A10", "8.6", 600e9, _peaks(31.2, 62.5, 125, 250), "A10",
        "A10 data sheet (revision not known): 31.2 TFLOPS FP32, 62.5 TF32, 125 FP16, 600 GB/s",
        "INT8 is twice FP16",
    ),
    Board(
        "GeForce RTX 4090", "8.9", 1008e9, _peaks(82.6, 82.6, 330.3, 660.6), "RTX 4090",
        "Ada GPU Architecture white paper v2.1, appendix A, table 2: 330.3 TFLOPS FP16 (FP16 accumulation), 660.6 TOPS "
        "INT8, 82.6 TFLOPS FP32 and TF32, 1008 GB/s",
        "Nothing",
    ),
    Board(
        "H100 SXM", "9.0", 3350e9, _peaks(67, 494.5, 989.5, 1979), "H100 80GB HBM3",
        "H100 data sheet of March 2023: 67 TFLOPS FP32; sparse 989 TF32, 1979 FP16, 3958 TOPS INT8; 3.35 TB/s",
        "Dense is half of sparse",
    ),
)  # fmt: skip
"""Sparse peaks are halved: these graphs are dense. Where two documents differ, the higher one: it is a bound."""

CHECKED = (
    "The figures were checked in 2026 against what others quote from these documents; the documents themselves could "
    "not be opened."
)


def frame_bound(
    board: Board, macs: Mapping[str, int], *, tf32: bool | None, least_bytes: int, moved: int | None
) -> Bound:
    """The least time of a frame on a board.

    Args:
        macs: multiply-accumulates of a frame by the type that is read, as direct convolutions; a kernel by Winograd's
            method does with fewer.
        tf32: FP32 may compute in TF32; None, where nobody knows, counts as yes.
        least_bytes: what has to come from memory in any case.
        moved: bytes that kernels read and write, each tensor as if it came from memory.
    """
    seconds = sum(2 * count / peak(board, kind, tf32) for kind, count in macs.items())
    return Bound(
        compute=1e3 * seconds,
        memory=1e3 * least_bytes / board.bandwidth,
        traffic=None if moved is None else 1e3 * moved / board.bandwidth,
    )


def peak(board: Board, kind: str, tf32: bool | None) -> float:
    """Operations a second of kernels that read this type; the highest of the board for a type that is not listed."""
    name = "tf32" if kind == "fp32" and tf32 is not False else kind
    return board.peaks.get(name, max(board.peaks.values()))


def intensity(macs: Mapping[str, int], moved: int) -> float:
    """Operations a byte: where a plan lies on the roofline (Williams et al., CACM 2009)."""
    return 2 * sum(macs.values()) / moved


def ridge(board: Board, macs: Mapping[str, int], tf32: bool | None) -> float:
    """Operations a byte below which the board's memory, and above which its arithmetic, bounds this mix of types."""
    seconds = sum(2 * count / peak(board, kind, tf32) for kind, count in macs.items())
    return 2 * sum(macs.values()) / seconds / board.bandwidth
