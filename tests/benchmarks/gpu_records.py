"""Records of the GPU script that its tests share."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu.records import Report

ROOT = Path(__file__).parents[2]


def new_report() -> Report:
    gpu = {"name": "some GPU", "compute_capability": "9.0", "memory_bytes": 80 << 30}
    return Report("2026-01-02T03:04:05+00:00", gpu, {"python": "3.12.3", "driver": "580.1", "pycuda": "2026.1"})
