"""mNoCoAP of checkpoints that give masks: `python benchmarks/classical.py MPCM.safetensors --data SIRST-V2:test_full`.

Frames keep their own size. A target is an 8-connected component above the contract's threshold. `shifted` is what the
published code gives for filters and segmentation networks (Dai et al., OSCAR, TGRS 2023), `legacy` what it gives where
their points are rounded like the centres of boxes; both take the first of the highest pixels in a component's box,
`unbiased` the middle of them: see `irforge.metrics.NocoMetrics` and `points_from_map`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from irforge.errors import UsageError, run_command

if TYPE_CHECKING:
    from irforge.datasets import Dataset

VARIANTS: tuple[Literal["legacy", "shifted", "unbiased"], ...] = ("legacy", "shifted", "unbiased")


def points_of_masks(checkpoint: Path, dataset: Dataset) -> dict[str, Any]:
    """JSON-ready: mNoCoAP in all variants, how many points there were, and seconds of the detector a frame.

    Raises:
        UsageError: the checkpoint gives boxes.
        InputError: a frame has no boxes.
    """
    import time

    import numpy as np
    import torch

    from irforge.errors import InputError
    from irforge.frames import prepare, to_gray
    from irforge.metrics import NocoMetrics, points_from_map
    from irforge.train.checkpoint import load_deployable
    from irforge.train.evaluation import protocol_spec

    deployable, contract = load_deployable(checkpoint)
    if contract.output.kind != "mask":
        raise UsageError(f"'{checkpoint}' gives boxes", "'irforge evaluate' measures their mNoCoAP")
    spec = protocol_spec(contract.input, "native", deployable.stride)
    metrics = {variant: NocoMetrics(variant) for variant in VARIANTS}
    points, seconds = 0, 0.0
    for sample in dataset:
        truth = sample.boxes()
        if truth is None:
            raise InputError(f"'{dataset.name}' has no boxes for '{sample.id}'", "mNoCoAP needs boxes")
        frame = sample.frame()
        tensor, geometry = prepare(frame, spec, str(sample.frame_path))
        begin = time.perf_counter()
        with torch.inference_mode():
            mask = deployable(torch.from_numpy(tensor))[0, 0].numpy()
        seconds += time.perf_counter() - begin
        plane, level = np.asarray(geometry.crop(mask), np.float32), contract.output.score_threshold
        middle, first = points_from_map(plane, level), points_from_map(plane, level, "first")
        points += len(middle)
        gray = to_gray(frame, contract.input.colour, str(sample.frame_path))
        for variant, metric in metrics.items():
            metric.update(middle if variant == "unbiased" else first, truth, gray)
    return {
        "checkpoint": checkpoint.name,
        "detector": contract.provenance.detector,
        "network": contract.provenance.network,
        "threshold": contract.output.score_threshold,
        "data": f"{dataset.name}:{dataset.split}",
        "frames": len(dataset),
        "points": points,
        "seconds_a_frame": seconds / max(len(dataset), 1),
        "mNoCoAP": {name: metric.result().as_dict() for name, metric in metrics.items()},
    }


def classical(
    checkpoints: Annotated[list[Path], typer.Argument(help="Made by 'irforge classical', or any that gives masks.")],
    data: Annotated[str, typer.Option(help="NAME[:SPLIT] or a path, with truth.")] = "SIRST-V2:test_full",
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Leave larger frames out.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N frames.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the figures here too, as JSON.")] = None,
) -> None:
    """Measure mNoCoAP and the time a frame, and print a line for each checkpoint."""
    from irforge import files
    from irforge.datasets import open_dataset
    from irforge.train.evaluation import figure_text

    dataset = open_dataset(data)
    dataset = dataset if max_pixels is None else dataset.within(max_pixels)
    dataset = dataset if limit is None else dataset.first(limit)
    typer.echo(f"{'checkpoint':24} {'n':>5} {'points':>7} {'s/frame':>8}" + "".join(f" {name:>8}" for name in VARIANTS))
    rows = []
    for checkpoint in checkpoints:
        row = points_of_masks(checkpoint, dataset)
        rows.append(row)
        cells = "".join(f" {figure_text(row['mNoCoAP'][name]['mean']):>8}" for name in VARIANTS)
        line = f"{checkpoint.name:24} {row['frames']:>5} {row['points']:>7} {row['seconds_a_frame']:>8.3f}{cells}"
        typer.echo(line)
        if output is not None:
            files.write_json(output, rows)


if __name__ == "__main__":
    run_command(classical)
