"""TensorRT (10.3 and later, 11) behind the Session protocol, for `*.engine` plans."""

from __future__ import annotations

import os
from typing import Any

from irforge.runtime.backends.engine import EngineSession
from irforge.runtime.sidecar import EngineRecord


def tensorrt_session(
    path: str | os.PathLike[str],
    *,
    trust_engine: bool = False,
    cuda_graph: bool = True,
    built: EngineRecord | None = None,
) -> EngineSession:
    """A session of a TensorRT plan; see `EngineSession`. With `cuda_graph`, runs are captured once and replayed."""
    return EngineSession(path, "TensorRT", _context, capture=cuda_graph, trust_engine=trust_engine, built=built)


def _context(trt: Any, engine: Any) -> Any:
    return engine.create_execution_context()
