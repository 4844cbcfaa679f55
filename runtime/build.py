"""`irforge build`: compile an ONNX file to an engine with its sidecar, and show what the engine really computes in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting


def build(
    model: Annotated[Path, typer.Argument(help="The .onnx file.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="NAME.rtx.engine or NAME.engine. [default: beside the model]"),
    ] = None,
    sm: Annotated[
        str, typer.Option(help="Compute capabilities, such as 7.5,8.9. [default: this GPU, else the five common ones]")
    ] = "",
    backend: Annotated[str, typer.Option(help="tensorrt, tensorrt_rtx, or auto: by the output's suffix.")] = "auto",
    batch: Annotated[str, typer.Option(help="Batch size, or min,opt,max.")] = "1",
    custom_ops: Annotated[
        str, typer.Option(help="body, or plugin: irforge's own operators by libirforge_plugins.so (TensorRT only).")
    ] = "body",
    timing_cache: Annotated[Path | None, typer.Option(help="TensorRT: read and update this timing cache.")] = None,
    workspace: Annotated[
        int, typer.Option(min=0, help="Scratch memory that tactics may take, MiB; 0 sets no limit.")
    ] = 0,
    require: Annotated[
        str, typer.Option(help="Fail below these shares of convolution MACs: int8=0.9 (in and out), int8:read=0.9.")
    ] = "",
    log: Annotated[bool, typer.Option("--log", help="Print the compiler's log.")] = False,
) -> None:
    """Compile an ONNX file to a TensorRT or TensorRT-RTX engine with its sidecar.

    TensorRT-RTX (NAME.rtx.engine) compiles on any machine, with no GPU, for several GPU generations in one plan.
    TensorRT (NAME.engine) compiles on the GPU that the engine is for.
    """
    from irforge.runtime.compilers.targets import parse_targets
    from irforge.runtime.custom_ops import parse_life
    from irforge.runtime.engines import BuildOptions, build_engine
    from irforge.runtime.proof import parse_requirement
    from irforge.runtime.sidecar import sidecar_path

    options = BuildOptions(
        targets=parse_targets(sm) if sm else (),
        batch=_batch(batch),
        custom_ops=parse_life(custom_ops),
        timing_cache=timing_cache,
        workspace_bytes=workspace * 2**20 or None,
        require=parse_requirement(require),
    )
    target = _output(model, output, backend)
    refuse_overwriting([target, sidecar_path(target), timing_cache], [model])
    sidecar = build_engine(model, target, options)
    if log:
        print("\n".join(sidecar.build_log_tail))
    for record in (sidecar, *sidecar.companions):
        _show(record, target.with_name(record.engine))


def _output(model: Path, output: Path | None, backend: str) -> Path:
    from irforge.runtime.backends.device import gpus
    from irforge.runtime.engines import SUFFIXES, backend_of

    if backend not in ("auto", *SUFFIXES.values()):
        raise UsageError(f"backend '{backend}' is unknown", f"Known ones: auto, {', '.join(SUFFIXES.values())}")
    if output is None:
        wanted = backend if backend != "auto" else ("tensorrt" if gpus() and _has_tensorrt() else "tensorrt_rtx")
        suffix = next(suffix for suffix, name in SUFFIXES.items() if name == wanted)
        return model.with_name(model.name.removesuffix(".onnx") + suffix)
    if backend not in ("auto", backend_of(output)):
        raise UsageError(
            f"{backend} does not make '{output.name}'", "Its engines end in .rtx.engine for tensorrt_rtx, .engine else"
        )
    return output


def _has_tensorrt() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorrt") is not None


def _batch(text: str) -> tuple[int, int, int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 3):
        raise UsageError(f"'{text}' is no batch", "Give one size, such as 1, or min,opt,max, such as 1,4,8")
    return (sizes[0], sizes[0], sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1], sizes[2])


def _show(sidecar: Any, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", *(f"SM {' '.join(proof.compute_capabilities)}" for proof in sidecar.proofs))
    table.add_row("kernels a frame", *(str(proof.kernels) for proof in sidecar.proofs))
    table.add_row("weighted layers read", *(proof.summary for proof in sidecar.proofs))
    table.add_row("weighted layers write", *(proof.writes_summary for proof in sidecar.proofs))
    table.add_row("bytes read and written", *(_megabytes(p.bytes_read, p.bytes_written) for p in sidecar.proofs))
    table.add_row("peak activation memory", *(_megabytes(proof.peak_bytes) for proof in sidecar.proofs))
    table.add_row("weights", *(_megabytes(*proof.constant_bytes.values()) for proof in sidecar.proofs))
    console = Console()
    if sidecar.proofs:
        console.print(table)
    else:
        console.print(f"precision not proven: {sidecar.proof_unavailable}")
    if sidecar.custom_ops:
        console.print(f"custom operators: {sidecar.custom_ops}", highlight=False)
    for note in sidecar.notes:
        console.print(f"note: {note}", highlight=False)
    for target, reason in sidecar.skipped_targets.items():
        console.print(f"SM {target} skipped: {reason}", highlight=False)
    print(f"{output}: {sidecar.engine_bytes / 1e6:.1f} MB for {sidecar.runtime} {sidecar.runtime_version}, ", end="")
    print(f"SM {', '.join(sidecar.compute_capabilities)}, built in {sidecar.build_seconds:.1f} s. {sidecar.loaders}.")
    for version, command in sidecar.trtexec.items():
        print(f"TensorRT {version}: {command}")


def _megabytes(*sizes: int | None) -> str:
    known = [size for size in sizes if size is not None]
    return f"{sum(known) / 1e6:.1f} MB" if len(known) == len(sizes) else "unknown"


if __name__ == "__main__":
    run_command(build)
