"""`python train/publish.py CHECKPOINT -o OUT.safetensors --data NAME:SPLIT`: small weights, measured, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import run_command


def publish(
    checkpoint: Annotated[Path, typer.Argument(help="best.safetensors of a training run.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="OUT.safetensors; OUT.md is written beside it.")],
    data: Annotated[list[str], typer.Option(help="Test sets as NAME[:SPLIT]; repeat for several.")],
    note: Annotated[str, typer.Option(help="A remark for the card: machine, time, what is open.")] = "",
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Round the kernels to FP16, measure what is left on the test sets, and write weights and model card."""
    from irforge import files
    from irforge.contract import Metric
    from irforge.datasets import dataset_paths, open_dataset
    from irforge.train.card import model_card
    from irforge.train.checkpoint import load_deployable, save_rounded
    from irforge.train.evaluation import PROTOCOLS, evaluate, table_line

    read = [path for name in data for path in dataset_paths(name, data_root)]
    files.refuse_overwriting([out, out.with_suffix(".md")], [checkpoint, *read])
    save_rounded(checkpoint, out)
    deployable, contract = load_deployable(out)
    metrics: list[Metric] = []
    for name in data:
        dataset = open_dataset(name, None if data_root is None else str(data_root))
        label = f"{dataset.name}:{dataset.split}"
        for protocol in PROTOCOLS:
            found = evaluate(deployable, contract, dataset, protocol)
            if not metrics:
                typer.echo(table_line("data", "n", "protocol", found.table))
            typer.echo(table_line(label, str(found.frames), protocol, found.table.values()))
            metrics += [
                Metric(name=figure, value=value, data=label, frames=found.frames, protocol=f"{protocol}, test")
                for figure, value in found.named.items()
            ]
    validated = [
        metric.model_copy(update={"protocol": f"{metric.protocol}, validation"})
        for metric in contract.provenance.metrics
    ]
    contract = contract.with_provenance(
        metrics=[*validated, *metrics], weights_sha256=files.sha256_of_file(checkpoint)
    ).with_step("publish", kernels="float16", source=checkpoint.name)
    save_rounded(checkpoint, out, contract)
    card = model_card(contract, out, note)
    files.write_text(out.with_suffix(".md"), card)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB; card: {out.with_suffix('.md')}")


if __name__ == "__main__":
    run_command(publish)
