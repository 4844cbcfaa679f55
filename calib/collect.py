"""Collect activation ranges: `python calib/collect.py MODEL.onnx FRAMES -o RANGES.json`, the same as
`irforge calibrate`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import UsageError, run_command
from irforge.files import refuse_overwriting

if TYPE_CHECKING:
    from irforge.calib.ranges import Ranges


def collect_ranges(
    model_path: Path,
    source: str,
    *,
    method: str = "minmax",
    percentile: float = 99.9999,
    limit: int | None = None,
    data_root: Path | None = None,
    threads: int | None = None,
    on_start: Callable[[int], None] | None = None,
    on_frame: Callable[[], None] | None = None,
) -> Ranges:
    """Run a model on frames, prepared as its contract says, and record what each of its float tensors does.

    Args:
        source: a folder, a list of files, or `NAME:SPLIT`.
        method: which threshold `quantize` takes unless told otherwise; all are recorded.
        percentile: of the `percentile` method, in percent of all values.
        limit: at most so many frames, spread evenly over the set.
        on_start: told the number of frames before the first is read.

    Raises:
        UsageError: no such method or dataset.
        InputError: frames missing, damaged, too small, or not as the contract asks.
        ArtifactError: no contract, or not an FP32 model.
        CalibrationError: every frame is flat, or a tensor is not finite.
    """
    import hashlib

    import irforge
    from irforge.artifact import load_model, model_fingerprint, read_contract
    from irforge.calib.floats import require_float_model
    from irforge.calib.frames import choose, open_frames, refuse_flat
    from irforge.calib.histogram import check_method
    from irforge.calib.observe import Observer, Statistics, observe
    from irforge.calib.ranges import FramesUsed, Ranges, ranges_key
    from irforge.frames import prepare

    check_method(method)
    if not 0 < percentile <= 100:
        raise UsageError(f"percentile {percentile} is not between 0 and 100")
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} frames leaves nothing to calibrate on")
    model = load_model(model_path)
    contract = read_contract(model, model_path)
    require_float_model(model, contract, model_path)
    dataset = open_frames(source, data_root)
    chosen = choose(dataset, limit)
    if on_start:
        on_start(len(chosen))
    observer: Observer | None = None
    statistics: dict[str, Statistics] = {}
    hashes, spans = [], []
    for sample in chosen:
        frame = sample.frame()
        digest = hashlib.sha256(f"{frame.dtype}{frame.shape}".encode())
        digest.update(frame.tobytes())
        hashes.append(digest.hexdigest())
        spans.append((int(frame.min()), int(frame.max())))
        tensor, _ = prepare(frame, contract.input, f"'{sample.frame_path}'")
        observer = observer or Observer(model, tensor.shape, threads)
        observe(observer, tensor, str(sample.frame_path), statistics)
        if on_frame:
            on_frame()
    refuse_flat(spans, source)
    described = contract.input.model_dump(mode="json")
    fingerprint = model_fingerprint(model)
    return Ranges(
        key=ranges_key(fingerprint, described, hashes),
        model=model_path.name,
        model_fingerprint=fingerprint,
        contract_input=described,
        frames=FramesUsed(
            source=source,
            split=dataset.split,
            licence=dataset.licence,
            asked=limit,
            available=len(dataset),
            sha256=hashes,
        ),
        method=method,
        percentile=percentile,
        irforge_version=irforge.__version__,
        tensors={name: found.result(percentile) for name, found in statistics.items()},
    )


def collect(
    model: Annotated[Path, typer.Argument(help="An FP32 deployable (.onnx).")],
    frames: Annotated[str, typer.Argument(help="Frames: a folder, a list of files, or NAME:SPLIT.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .json file to write.")],
    method: Annotated[str, typer.Option(help="minmax, percentile, entropy or mse: what quantize takes.")] = "minmax",
    percentile: Annotated[float, typer.Option(help="For the percentile method, in percent of all values.")] = 99.9999,
    limit: Annotated[int | None, typer.Option(help="At most so many frames, spread evenly over the set.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; default IRFORGE_DATA.")] = None,
) -> None:
    """Collect the activation ranges of a model on frames, for `irforge quantize` and `irforge half`."""
    from rich.console import Console
    from rich.progress import Progress

    from irforge.calib.ranges import save_ranges
    from irforge.calib.tables import print_ranges
    from irforge.datasets import dataset_paths

    if output.suffix != ".json":
        raise UsageError(f"'{output}' does not end in .json")
    refuse_overwriting([output], [model, *dataset_paths(frames, data_root)])
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("calibrating", total=None)
        ranges = collect_ranges(
            model,
            frames,
            method=method,
            percentile=percentile,
            limit=limit,
            data_root=data_root,
            on_start=lambda count: bars.update(task, total=count),
            on_frame=lambda: bars.advance(task),
        )
    save_ranges(output, ranges)
    print_ranges(ranges, output)


if __name__ == "__main__":
    run_command(collect)
