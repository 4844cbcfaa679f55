"""NVIDIA's compilers, each driven in a child process, because a graph can crash them."""

from __future__ import annotations

import importlib
from typing import Any

_PACKAGES = {"tensorrt": ("tensorrt", "tensorrt_bindings"), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
EXTRAS = {"tensorrt": "pip install 'irforge[tensorrt]'", "tensorrt_rtx": "pip install 'irforge[rtx]'"}


def import_compiler(backend: str) -> Any:
    """NVIDIA's Python module of a backend: `tensorrt` or `tensorrt_rtx`, under whichever name it is installed.

    Raises:
        ImportError, OSError: not installed, or its libraries do not load.
    """
    *first, last = _PACKAGES[backend]
    for package in first:
        try:
            return importlib.import_module(package)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(last)
