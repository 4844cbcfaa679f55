"""What the two-stage detectors cost: `python benchmarks/twostage.py -o twostage.json`, or some parts: `--part infer`.

macs     multiply-accumulates of a frame, of the detectors and of image encoders that re-score N boxes of it
train    one training step of one frame, in torch
infer    one frame to detections, in torch and on ONNX Runtime
rescore  one frame's N boxes re-scored, on ONNX Runtime
gate     GLMD-CA at full size through export, its parity with torch, and NVIDIA's compiler in FP32 and FP16 for SM 8.9

Weights are random, scaled so that detections exist (`benchmarks/settled.py`): that changes neither time nor memory.
Each measurement has a process of its own, whose largest resident memory it reports, Python and torch included; on a GPU
(`--device cuda`) the most that torch allocated there. Parts that were not asked for keep what the file has of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.twostage_cases import CASES, ENCODERS, PARTS, Figures
from irforge.errors import UsageError, run_command


def benchmark(
    output: Annotated[Path, typer.Option("-o", "--output", help="The .json file; what it has of other parts stays.")],
    part: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; repeat for several. [default: all]")
    ] = None,
    case: Annotated[list[str] | None, typer.Option(help="full or small. [default: both]")] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(ENCODERS)}. [default: all but the largest]")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Calls that are timed, after one that is not.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, or cuda: of what runs in torch.")] = "cpu",
) -> None:
    """Measure what the two-stage detectors cost, and print it as Markdown."""
    import json

    from benchmarks.twostage_parts import measure
    from benchmarks.twostage_table import tables
    from irforge.files import write_json

    for what, given, known in (("part", part, PARTS), ("case", case, CASES), ("encoder", encoder, ENCODERS)):
        for name in given or ():
            if name not in known:
                raise UsageError(f"there is no {what} '{name}'", f"There are: {', '.join(known)}")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"there is no device '{device}'", "There are: cpu, cuda")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    results: Figures = json.loads(output.read_text()) if output.is_file() else {}
    chosen = encoder or [name for name in ENCODERS if name != "clip-vit-l-14-336"]
    for name in part or PARTS:
        results[name] = measure(name, case or list(CASES), chosen, rounds, threads, device)
        # After each part: the next one may take an hour.
        write_json(output, results)
    typer.echo(tables(results))


if __name__ == "__main__":
    run_command(benchmark)
