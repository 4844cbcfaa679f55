"""The `trtexec` command lines that build what `irforge build` builds, for TensorRT 10 and 11.

They differ: version 11 dropped --fp16, --int8 and --best (types are in the graph), types strongly and replays CUDA
graphs without being told, and its latency leaves transfers out, where version 10 counts them in.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from irforge.runtime.compilers.request import Shape


def trtexec_commands(
    onnx: str,
    engine: str,
    profile: Mapping[str, tuple[Shape, Shape, Shape]],
    *,
    timing_cache: str | None = None,
    workspace_bytes: int | None = None,
    plugin_library: str | None = None,
) -> dict[str, str]:
    """Command line by major version ('10', '11'); each builds the engine and then times it."""
    common = ["trtexec", f"--onnx={onnx}", f"--saveEngine={engine}"]
    for which, flag in enumerate(("--minShapes", "--optShapes", "--maxShapes")):
        shapes = ",".join(f"{name}:{'x'.join(map(str, bounds[which]))}" for name, bounds in profile.items())
        common += [f"{flag}={shapes}"] if shapes else []
    if timing_cache:
        common.append(f"--timingCacheFile={timing_cache}")
    if workspace_bytes:
        common.append(f"--memPoolSize=workspace:{workspace_bytes // 2**20}M")
    if plugin_library:
        common.append(f"--dynamicPlugins={plugin_library}")
    common.append("--profilingVerbosity=detailed")
    ten = [*common, "--stronglyTyped", "--useCudaGraph", "--noDataTransfers"]
    return {"10": shlex.join(ten), "11": shlex.join(common)}
