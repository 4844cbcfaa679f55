"""A part of a detector by itself, such as a neck: compiled, and opened by the process that built it.

A part has no contract, so its engine gets no sidecar. What `build_part` returns takes the sidecar's place and is never
written down: only the process that built an engine can open it, and only while the file is what it built.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from irforge.files import replacing
from irforge.runtime.compilers.targets import DEFAULT_TARGETS
from irforge.runtime.engines import (
    BuildOptions,
    Profile,
    Work,
    backend_of,
    check_graph,
    compile_engine,
    gate,
    targets_for,
)

if TYPE_CHECKING:
    from irforge.runtime.backends.engine import EngineSession
    from irforge.runtime.plan import PlanReport
    from irforge.runtime.sidecar import EngineRecord


def compile_part(
    model: str | os.PathLike[str], profile: Profile, targets: tuple[str, ...] = DEFAULT_TARGETS
) -> tuple[PlanReport, dict[str, str]]:
    """Put a part's graph through NVIDIA's parser and compiler without keeping the engine.

    Args:
        profile: least, tuned-for and greatest shape of each input.

    Returns:
        The plan, and the reason for each target that was skipped.

    Raises:
        see `irforge.runtime.engines.build_engine`.
    """
    loaded, _ = check_graph(model, "tensorrt_rtx")
    return gate(loaded, targets, profile, {name: tuned for name, (_, tuned, _) in profile.items()})


def build_part(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    profile: Profile,
    options: BuildOptions | None = None,
) -> EngineRecord:
    """Compile a part's `.onnx` file to an engine for `open_part`.

    Args:
        output: its suffix tells the backend, as in `build_engine`.
        profile: least, tuned-for and greatest shape of each input.
        options: their `batch` says nothing here; `profile` does.

    Raises:
        see `irforge.runtime.engines.build_engine`.
    """
    options = options or BuildOptions()
    backend = backend_of(output)
    targets = targets_for(backend, options)
    loaded, warnings = check_graph(model, backend)
    work = Work(Path(model), Path(output), backend, targets, loaded, tuple(warnings), profile)
    with replacing(output) as temporary:
        tuned = {name: shape for name, (_, shape, _) in profile.items()}
        return compile_engine(work, temporary, tuned, options)


def open_part(engine: str | os.PathLike[str], built: EngineRecord, *, cuda_graph: bool = True) -> EngineSession:
    """Load an engine that `build_part` made in this process.

    Args:
        built: what `build_part` returned.
        cuda_graph: replay it as a CUDA graph.

    Raises:
        ArtifactError: the file is not what was built, or does not deserialise.
        EnvironmentFault: the runtime, the CUDA layer, the GPU or memory on it is missing.
    """
    if built.runtime == "TensorRT":
        from irforge.runtime.backends.tensorrt import tensorrt_session

        return tensorrt_session(engine, cuda_graph=cuda_graph, built=built)
    from irforge.runtime.backends.tensorrt_rtx import tensorrt_rtx_session

    return tensorrt_rtx_session(engine, cuda_graph=cuda_graph, built=built)
