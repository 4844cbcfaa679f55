"""TensorRT-RTX behind the Session protocol, for `*.rtx.engine` plans.

Its kernels are finished on the device, when the context is made: seconds, the first time. It captures CUDA graphs by
itself, so the session does not.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from irforge.runtime.backends.engine import EngineSession
from irforge.runtime.sidecar import EngineRecord


def tensorrt_rtx_session(
    path: str | os.PathLike[str],
    *,
    trust_engine: bool = False,
    cuda_graph: bool = True,
    built: EngineRecord | None = None,
) -> EngineSession:
    """A session of a TensorRT-RTX plan; see `EngineSession`. With `cuda_graph`, the runtime replays whole graphs."""
    create = partial(_context, cuda_graph=cuda_graph)
    return EngineSession(path, "TensorRT-RTX", create, capture=False, trust_engine=trust_engine, built=built)


def _context(trt: Any, engine: Any, *, cuda_graph: bool) -> Any:
    config = engine.create_runtime_config()
    strategy = trt.CudaGraphStrategy
    config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if cuda_graph else strategy.DISABLED
    return engine.create_execution_context(config)
