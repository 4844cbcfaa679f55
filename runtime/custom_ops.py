"""Which life of irforge's custom operators runs: their bodies of standard operators, or native code from a library.

The choice is made once, where a model is loaded or built, and kept by construction: with `plugin` the bodies are taken
out of what the runtime sees, so that it cannot fall back to them in silence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from irforge.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from onnx import ModelProto

Life = Literal["body", "plugin"]
LIVES: tuple[Life, ...] = ("body", "plugin")

LIBRARIES = {"onnxruntime": "libirforge_ort.so", "tensorrt": "libirforge_plugins.so"}
ENVIRONMENT = "IRFORGE_PLUGINS"
_CHECKOUT = Path(__file__).resolve().parents[1] / "build" / "lib"


def parse_life(text: str) -> Life:
    """`body` or `plugin`, as the user typed it.

    Raises:
        UsageError: anything else.
    """
    for life in LIVES:
        if text == life:
            return life
    raise UsageError(f"there is no '{text}' form of custom operators", f"Forms: {', '.join(LIVES)}")


def live(model: ModelProto, life: Life, where: str | os.PathLike[str]) -> str:
    """Make the choice for a loaded model, in place.

    Args:
        where: what to call the model in errors.

    Returns:
        For people: 'MutualGate by its body', 'SpatialGate x 16 by plugin'; '' if the model has no custom operators.

    Raises:
        UsageError: `plugin` was asked for and the model has none.
    """
    from irforge.ops import count_custom_ops, drop_bodies

    counts = count_custom_ops(model)
    if life == "body":
        return _words(counts, "by body")
    if not counts:
        raise UsageError(
            f"'{where}' has no custom operator that a plugin could run",
            "'irforge fuse' writes those that its graph has the pattern of; without any, leave out --custom-ops",
        )
    drop_bodies(model)
    return _words(counts, "by plugin")


def native_library(backend: Literal["onnxruntime", "tensorrt"]) -> Path:
    """The library with the native custom operators of a backend: in the folder that IRFORGE_PLUGINS names, else in the
    checkout's build folder.

    Raises:
        EnvironmentFault: it is not there.
    """
    name = LIBRARIES[backend]
    named = os.environ.get(ENVIRONMENT)
    folder = Path(named) if named else _CHECKOUT
    library = folder / name
    if not library.is_file():
        raise EnvironmentFault(
            f"the plugin library '{name}' is not in '{folder}'",
            f"Build it (cmake -B build && cmake --build build), or let {ENVIRONMENT} name its folder",
        )
    return library


def has_cuda(library: Path) -> bool:
    """Whether a library of ONNX Runtime operators has kernels for the CUDA provider too.

    Raises:
        EnvironmentFault: it does not load, or is none of ours.
    """
    import ctypes

    try:
        return bool(ctypes.CDLL(os.fspath(library)).irforge_ort_has_cuda())
    except (OSError, AttributeError) as error:
        raise EnvironmentFault(f"the plugin library '{library}' does not load: {error}", "Build it again") from None


def require_cuda(library: Path) -> None:
    """Refuse a library of ONNX Runtime operators without CUDA kernels: its nodes would run on the CPU in silence.

    Raises:
        EnvironmentFault: it has none, or does not load.
    """
    if not has_cuda(library):
        raise EnvironmentFault(
            f"the plugin library '{library}' was built without CUDA",
            "Build it again where a CUDA toolkit is, or run on the CPU",
        )


def tensorrt_major(library: str | os.PathLike[str]) -> int:
    """The major version of TensorRT whose headers a plugin library was compiled with.

    Raises:
        EnvironmentFault: it does not load, or is none of ours.
    """
    import ctypes

    try:
        return int(ctypes.CDLL(os.fspath(library)).irforge_tensorrt_major())
    except (OSError, AttributeError) as error:
        raise EnvironmentFault(f"the plugin library '{library}' does not load: {error}", "Build it again") from None


def require_same_major(library: str | os.PathLike[str], tensorrt_version: str) -> None:
    """Refuse a plugin library that was compiled for another major version of TensorRT.

    Interfaces changed their tables of virtual functions between 10 and 11; loading would crash, or worse.

    Raises:
        EnvironmentFault: it was, or it does not load.
    """
    built_for = tensorrt_major(library)
    if str(built_for) != tensorrt_version.split(".")[0]:
        raise EnvironmentFault(
            f"the plugin library '{library}' was built for TensorRT {built_for}, here is {tensorrt_version}",
            "Build it again with this version's headers (-DIRFORGE_TENSORRT_INCLUDE=...)",
        )


def _words(counts: dict[str, int], how: str) -> str:
    names = [name if number == 1 else f"{name} x {number}" for name, number in sorted(counts.items())]
    return f"{', '.join(names)} {how}" if names else ""
