"""`python train/evaluate.py CHECKPOINT --data NAME:SPLIT`: the accuracy of a trained detector."""

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
    save_maps: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write masks too: FOLDER/DATA/PROTOCOL/ID.png of 16 bits.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Measure a detector on frames with truth, and print a table.

    Masks: IoU, nIoU, Pd, Fa. Boxes: COCO AP, F1 at IoU 0.5 and 0.3 and at 3 pixels between centres, mNoCoAP.
    """
    from irforge import files
    from irforge.datasets import open_dataset
    from irforge.train.checkpoint import load_deployable
    from irforge.train.evaluation import PROTOCOLS, table_line
    from irforge.train.evaluation import evaluate as measure

    if protocol not in (*PROTOCOLS, "both"):
        raise UsageError(f"there is no protocol '{protocol}'", f"Protocols: {', '.join(PROTOCOLS)}, both")
    deployable, contract = load_deployable(checkpoint, trust=trust)
    level = contract.output.score_threshold if threshold is None else threshold
    rows: list[dict[str, object]] = []
    for name in data:
        dataset = open_dataset(name, None if data_root is None else str(data_root))
        label = f"{dataset.name}:{dataset.split}"
        for chosen in PROTOCOLS if protocol == "both" else (protocol,):
            maps = None if save_maps is None else save_maps / dataset.name / chosen
            found = measure(deployable, contract, dataset, chosen, level, legacy, maps)
            if not rows:
                typer.echo(table_line("data", "n", "protocol", found.table))
            typer.echo(table_line(label, str(found.frames), chosen, found.table.values()))
            own = {"data": label, "protocol": chosen, "threshold": level, "legacy": legacy}
            rows.append(own | found.full)
    if json is not None:
        files.write_json(json, {"checkpoint": str(checkpoint), "results": rows})


if __name__ == "__main__":
    run_command(evaluate)
