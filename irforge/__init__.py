"""irforge: from PyTorch training to a measured, deployable TensorRT engine for infrared detectors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# ONNX Runtime's wheels report their use to Microsoft unless told otherwise; nobody who loads a model here was asked.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["Contract", "Detections", "__version__", "load", "video"]

if TYPE_CHECKING:
    from irforge.contract import Contract
    from irforge.detections import Detections
    from irforge.runtime.detector import load
    from irforge.runtime.sources import open_source as video

# Resolved on first use, so that `import irforge` and `irforge --help` stay instant.
_LAZY = {
    "Contract": ("irforge.contract", "Contract"),
    "Detections": ("irforge.detections", "Detections"),
    "load": ("irforge.runtime.detector", "load"),
    "video": ("irforge.runtime.sources", "open_source"),
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'irforge' has no attribute '{name}'")
    from importlib import import_module

    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
