"""`irforge doctor`: what this machine can do, each claim tried here, and what to install for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import typer

from irforge.errors import CheckFailed, IrforgeError

_GIB = 2**30
_EXTRAS = ("train", "video", "live", "track", "rescore", "gpu", "tensorrt", "rtx", "test")


class Finding(NamedTuple):
    """One line: what, whether it works here (None for a mere fact), and the fact or the mend."""

    name: str
    works: bool | None
    note: str


def doctor() -> None:
    """Say what this machine can do, and what to install for the rest."""
    for title, check in CHECKS.items():
        typer.echo(title)
        for finding in check():
            mark = "" if finding.works is None else "yes" if finding.works else "no"
            typer.echo(f"  {finding.name:<18} {mark:<4} {finding.note}")


def machine() -> Iterator[Finding]:
    """What it is: versions, processor, memory, disk, GPU and driver."""
    import shutil

    import irforge
    from irforge.runtime.backends.device import driver_version, gpus
    from irforge.runtime.machine import environment, usable_cores

    here = environment(threads=usable_cores())
    memory = f", {here.memory_bytes / _GIB:.1f} GiB memory" if here.memory_bytes else ""
    yield Finding("irforge", None, f"{irforge.__version__}, Python {here.python}")
    yield Finding("system", None, here.system)
    yield Finding("cpu", None, f"{here.cpu}, {here.cores} cores{memory}")
    yield Finding("disk", None, f"{shutil.disk_usage(Path.cwd()).free / _GIB:.1f} GiB free in this folder")
    driver = driver_version()
    if driver is None:
        yield Finding("NVIDIA driver", False, "none; where there is a GPU, install NVIDIA's driver")
        return
    yield Finding("NVIDIA driver", True, f"for CUDA up to {driver}")
    for number, device in enumerate(gpus()):
        note = f"{device.name}, SM {device.compute_capability}, {device.memory_bytes / _GIB:.0f} GiB"
        yield Finding(f"GPU {number}", True, note)
    if not gpus():
        yield Finding("GPU", False, "the driver sees none")


def packages() -> Iterator[Finding]:
    """The core's requirements and those of each extra, as the installed package states them."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in requires("irforge") or []]
    core = [requirement for requirement in wanted if requirement.marker is None]
    yield _installed("core", "irforge", [(r.name, str(r.specifier)) for r in core])
    for extra in _EXTRAS:
        mine = [r for r in wanted if r.marker is not None and r.marker.evaluate({"extra": extra})]
        if mine:
            yield _installed(extra, f"'irforge[{extra}]'", [(r.name, str(r.specifier)) for r in mine])
        else:
            yield Finding(extra, False, "not offered for this platform")


def backends() -> Iterator[Finding]:
    """What runs and what compiles a model, each tried on a graph of one convolution."""
    import tempfile

    from irforge.runtime.backends import ONNX_CPU, ONNX_CUDA

    with tempfile.TemporaryDirectory(prefix="irforge-doctor-") as folder:
        model = Path(folder) / "convolution.onnx"
        _write_convolution(model)
        yield _tried(ONNX_CPU, partial(_run, model, ONNX_CPU))
        yield _tried(ONNX_CUDA, partial(_run, model, ONNX_CUDA))
        yield _tried("tensorrt", partial(_compile, model, "tensorrt"))
        yield _tried("rtx compile gate", partial(_compile, model, "tensorrt_rtx"))


def custom_operators() -> Iterator[Finding]:
    """Native code for irforge's custom operators, loaded here; without it they run by their bodies."""
    from irforge.runtime.custom_ops import has_cuda, native_library, tensorrt_major

    def onnxruntime() -> str:
        library = native_library("onnxruntime")
        return f"{library.name}, for {'CPU and CUDA' if has_cuda(library) else 'CPU'}"

    def tensorrt() -> str:
        library = native_library("tensorrt")
        return f"{library.name}, for TensorRT {tensorrt_major(library)}"

    for name, describe in (("ONNX Runtime", onnxruntime), ("TensorRT", tensorrt)):
        try:
            yield Finding(name, True, describe())
        except IrforgeError as error:
            # Without the folder that the error names: what doctor says is passed on.
            broken = "does not load" in error.what
            state = "does not load, build it again" if broken else "not built; operators run by their bodies"
            yield Finding(name, False, f"{state} (docs/custom-ops.md)")


def codecs() -> Iterator[Finding]:
    """Which video formats OpenCV writes and reads back here, and PyAV."""
    import tempfile

    import cv2

    with tempfile.TemporaryDirectory(prefix="irforge-doctor-") as folder:
        for suffix in (".mp4", ".mkv", ".avi"):
            yield _tried(f"video {suffix}", partial(_write_and_read, Path(folder) / f"clip{suffix}"))
    built_with = [line.split() for line in cv2.getBuildInformation().splitlines()]
    ffmpeg = ["FFMPEG:", "YES"] in built_with
    yield Finding("OpenCV", ffmpeg, f"{cv2.__version__}, {'with' if ffmpeg else 'without'} FFmpeg")
    av = _version("av")
    yield Finding("PyAV", av is not None, av or "pip install 'irforge[video]'")


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Machine": machine,
    "Packages": packages,
    "Backends": backends,
    "Native operators": custom_operators,
    "Codecs": codecs,
}


def _tried(name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, attempt())
    except IrforgeError as error:
        return Finding(name, False, error.line)


def _installed(name: str, argument: str, requirements: list[tuple[str, str]]) -> Finding:
    from packaging.specifiers import SpecifierSet

    there, lacking = [], []
    for package, specifier in requirements:
        version = _version(package)
        if version is not None and SpecifierSet(specifier).contains(version, prereleases=True):
            there.append(f"{package} {version}")
        else:
            lacking.append(f"{package}{specifier}" + (f" (here {version})" if version else ""))
    if lacking:
        return Finding(name, False, f"lacks {', '.join(lacking)}: pip install {argument}")
    return Finding(name, True, ", ".join(there))


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    # The GPU build of ONNX Runtime takes the place of the plain one.
    for name in (package, f"{package}-gpu") if package == "onnxruntime" else (package,):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _write_convolution(path: Path) -> None:
    import onnx

    from irforge.artifact import save_model

    weights = ", ".join(["0.125"] * 72)
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    convolution (float[1, 8, 32, 32] frames) => (float[1, 1, 32, 32] mask)
    <float[1, 8, 3, 3] weights = {{{weights}}}> {{
        mask = Conv<pads = [1, 1, 1, 1]>(frames, weights)
    }}"""
    save_model(path, onnx.parser.parse_model(text))


def _run(model: Path, backend: str) -> str:
    import numpy as np

    from irforge.runtime.backends import open_session

    with open_session(model, backend) as session:
        mask = session.run({"frames": np.ones((1, 8, 32, 32), np.float32)})["mask"]
        centre = float(mask[0, 0, 16, 16])
        if abs(centre - 9) > 1e-3:
            raise CheckFailed(f"a convolution of 72 ones by 1/8 gave {centre:g} and not 9 on {session.device}")
        return f"ran a convolution on {session.device}, with the right result"


def _compile(model: Path, backend: str) -> str:
    from irforge.runtime.compilers.child import compile_in_child
    from irforge.runtime.compilers.request import BuildRequest
    from irforge.runtime.compilers.targets import DEFAULT_TARGETS

    request = BuildRequest.model_validate(
        {
            "backend": backend,
            "onnx": str(model),
            "plan": str(model.with_suffix(".plan")),
            "targets": DEFAULT_TARGETS if backend == "tensorrt_rtx" else (),
        }
    )
    result, _ = compile_in_child(request)
    return f"{result.version} compiled for SM {', '.join(result.compute_capabilities)} in {result.seconds:.1f} s"


def _write_and_read(path: Path) -> str:
    import numpy as np

    from irforge.detections import Detections
    from irforge.runtime.sinks import OverlayVideo
    from irforge.runtime.sources import SourceFrame, open_source

    with OverlayVideo(path, 25) as sink:
        for index in range(3):
            sink.write(SourceFrame(index, "test", None, np.full((64, 640), 90, np.uint8)), Detections.empty())
    with open_source(path) as source:
        return f"OpenCV wrote 3 frames and read {sum(1 for _ in source)} of them back"
