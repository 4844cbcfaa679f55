"""Which NVIDIA GPUs this machine has, asked of the driver itself: no package needed, and no fault without one."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache

# CUdevice_attribute in cuda.h.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, its compute capability ('8.9') and its memory in bytes."""

    name: str
    compute_capability: str
    memory_bytes: int


@cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that the installed driver sees; none without a driver."""
    driver = _driver()
    count = ctypes.c_int()
    if driver is None or driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_gpu(driver, ordinal) for ordinal in range(count.value))


@cache
def driver_version() -> str | None:
    """The newest CUDA version that the driver supports, such as '13.0'; None without a driver."""
    driver = _driver()
    version = ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) or not version.value:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


def _gpu(driver: ctypes.CDLL, ordinal: int) -> Gpu:
    device, major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value)
