"""One file a backend, all behind `irforge.session.Session`; `open_session` picks one."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from irforge.artifact import checkpoint_remedy
from irforge.errors import UsageError
from irforge.runtime.custom_ops import Life
from irforge.runtime.sidecar import read_sidecar
from irforge.session import Session

ONNX_CPU, ONNX_CUDA, TENSORRT, TENSORRT_RTX = "onnxruntime-cpu", "onnxruntime-cuda", "tensorrt", "tensorrt_rtx"
# By file suffix, the longest first: `.rtx.engine` also ends in `.engine`.
BACKENDS = {".rtx.engine": (TENSORRT_RTX,), ".engine": (TENSORRT,), ".onnx": (ONNX_CPU, ONNX_CUDA)}

_log = logging.getLogger("irforge")


def open_session(
    path: str | os.PathLike[str],
    backend: str | None = None,
    *,
    threads: int | None = None,
    trust_engine: bool = False,
    cuda_graph: bool = True,
    custom_ops: Life = "body",
) -> Session:
    """Load a deployable on the fastest backend that this machine has for it, and say on the log which one that is.

    Args:
        path: an `.onnx` file, a TensorRT plan (`.engine`) or a TensorRT-RTX plan (`.rtx.engine`).
        backend: one of `BACKENDS`; None chooses.
        threads: CPU threads inside one operator, for ONNX Runtime.
        trust_engine: load an engine although no sidecar vouches for it; engines are code.
        cuda_graph: replay engines as CUDA graphs.
        custom_ops: how an `.onnx` file's custom operators run; for engines that was settled when they were built.

    Raises:
        UsageError: an unknown suffix or backend, or one that does not take this file.
        ArtifactError: the file, or an engine's sidecar, is damaged, or does not belong to this runtime or GPU.
        EnvironmentFault: the backend or the GPU that it needs is not here.
    """
    name = choose_backend(path, backend)
    if custom_ops == "plugin" and name in (TENSORRT, TENSORRT_RTX) and not read_sidecar(path).plugins:
        raise UsageError(
            f"'{path}' was built with its custom operators' bodies, if it has any",
            "Build it again with --custom-ops plugin, or leave the choice out",
        )
    session: Session
    if name in (ONNX_CPU, ONNX_CUDA):
        from irforge.runtime.backends.ort import OrtSession

        session = OrtSession(path, "cpu" if name == ONNX_CPU else "cuda", threads, custom_ops)
    elif name == TENSORRT:
        from irforge.runtime.backends.tensorrt import tensorrt_session

        session = tensorrt_session(path, trust_engine=trust_engine, cuda_graph=cuda_graph)
    else:
        from irforge.runtime.backends.tensorrt_rtx import tensorrt_rtx_session

        session = tensorrt_rtx_session(path, trust_engine=trust_engine, cuda_graph=cuda_graph)
    natively = f", {session.custom_ops}" if session.custom_ops else ""
    _log.info("%s runs on %s, device %s%s", Path(path).name, name, session.device, natively)
    return session


def choose_backend(path: str | os.PathLike[str], backend: str | None = None) -> str:
    """The name of the backend that `open_session` would take, without loading anything.

    Raises:
        UsageError: an unknown suffix or backend, or one that does not take this file.
    """
    file = Path(path).name
    candidates = next((names for suffix, names in BACKENDS.items() if file.endswith(suffix)), None)
    if candidates is None:
        raise UsageError(
            f"'{path}' has none of the suffixes {', '.join(BACKENDS)}",
            checkpoint_remedy(path) or "Give a deployable or an engine",
        )
    if backend is None:
        return ONNX_CUDA if ONNX_CUDA in candidates and _onnxruntime_sees_a_gpu() else candidates[0]
    if backend not in candidates:
        raise UsageError(f"backend '{backend}' does not take '{file}'", f"It takes {' or '.join(candidates)}")
    return backend


def _onnxruntime_sees_a_gpu() -> bool:
    import onnxruntime

    from irforge.runtime.backends.device import gpus

    providers: Any = onnxruntime.get_available_providers()
    return "CUDAExecutionProvider" in providers and bool(gpus())
