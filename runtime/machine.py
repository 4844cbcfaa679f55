"""What this machine is: the facts that a latency means nothing without."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from irforge.runtime.backends.device import driver_version, gpus
from irforge.runtime.report.schema import Environment

PACKAGES = (
    "irforge",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "torch",
    "tensorrt",
    "tensorrt-rtx-cu13-libs",
    "cuda-python",
)


def environment(threads: int) -> Environment:
    """The machine as it is now; `threads` is what the sessions were told to use.

    Call it before anything runs: the load average then speaks of others' work.
    """
    return Environment(
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu_name(),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        gpu=gpu_name(),
        load_average=os.getloadavg() if hasattr(os, "getloadavg") else None,
        threads=threads,
        python=platform.python_version(),
        packages=package_versions(),
    )


def package_versions() -> dict[str, str]:
    """Versions of the packages that a figure can depend on, of those installed."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def cpu_name() -> str:
    """The processor's own name, or its architecture where the system does not tell (ARM boards)."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        return Path("/proc/device-tree/model").read_text().strip("\0\n ")
    except OSError:
        return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on, which a container or taskset can make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_name() -> str:
    """Name, compute capability and driver of the first GPU, and how many there are; or 'none'."""
    found = gpus()
    if not found:
        return "none"
    others = f", first of {len(found)}" if len(found) > 1 else ""
    return f"{found[0].name}, SM {found[0].compute_capability}, driver for CUDA {driver_version()}{others}"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
