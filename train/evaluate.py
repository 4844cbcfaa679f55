"""`python train/evaluate.py CHECKPOINT --data NAME:SPLIT`: IoU, nIoU, Pd and Fa of a trained detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import UsageError, run_command


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="best.safetensors, or a published pickle with --trust.")],
    data: Annotated[list[str], typer.Option(help="NAME[:SPLIT] or path; repeat for several.")],
    protocol: Annotated[str, typer.Option(help="squash, native or both.")] = "both",
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="In place of the contract's.")] = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="Count Pd and Fa as the published code does.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Read a pickle; it comes from someone you trust.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Measure a mask detector on frames with masks, and print a table."""
    from irforge import files
    from irforge.datasets import open_dataset
    from irforge.train.checkpoint import load_deployable
    from irforge.train.evaluation import PROTOCOLS, evaluate_masks, table_row

    if protocol not in (*PROTOCOLS, "both"):
        raise UsageError(f"there is no protocol '{protocol}'", f"Protocols: {', '.join(PROTOCOLS)}, both")
    deployable, contract = load_deployable(checkpoint, trust=trust)
    if threshold is None:
        threshold = contract.output.score_threshold
    rows = []
    typer.echo(f"{'data':30} {'n':>5} {'protocol':12} {'IoU':>7} {'nIoU':>7} {'Pd':>7} {'Fa e-6':>8}")
    for name in data:
        dataset = open_dataset(name, None if data_root is None else str(data_root))
        for chosen in PROTOCOLS if protocol == "both" else (protocol,):
            result = evaluate_masks(deployable, contract.input, dataset, chosen, threshold, legacy=legacy)
            rows.append({"data": f"{dataset.name}:{dataset.split}", "protocol": chosen, "threshold": threshold})
            rows[-1] |= {"legacy": legacy, **result.as_dict()}
            typer.echo(table_row(rows[-1]))
    if json is not None:
        files.write_json(json, {"checkpoint": str(checkpoint), "results": rows})


if __name__ == "__main__":
    run_command(evaluate)
