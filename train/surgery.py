"""`python train/surgery.py remove|randinit BASE.safetensors --data NAME:SPLIT -o NOVEL.safetensors`: predictors for
other classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import UsageError, run_command

if TYPE_CHECKING:
    from irforge.train.predictors import Surgery


def surgery(
    how: Annotated[str, typer.Argument(metavar="remove|randinit", help="Take them out, or widen them.")],
    checkpoint: Annotated[Path, typer.Argument(help="best.safetensors of base training.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write: where novel training starts.")],
    data: Annotated[
        str | None, typer.Option(metavar="NAME[:SPLIT][@CLASSES]", help="The new classes are those of this dataset.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Or one of them, in order; repeat for all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of new rows ('randinit').")] = 0,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
) -> None:
    """Give a trained two-stage detector predictors for other classes, and list what became of every tensor.

    'remove' drops them: novel training starts them anew. 'randinit' keeps the rows of classes that stay, by name, draws
    those of new ones at random, and moves the background's to the end.
    """
    from safetensors.torch import load_file, save

    from irforge import files
    from irforge.contract import METADATA_KEY
    from irforge.train.checkpoint import read_contract
    from irforge.train.predictors import remove_predictors, widen_predictors

    if how not in ("remove", "randinit"):
        raise UsageError(f"there is no surgery '{how}'", "It is 'remove' or 'randinit'")
    files.refuse_overwriting([out], [checkpoint])
    new = new_classes(data, classes, data_root)
    contract = read_contract(checkpoint)
    old = contract.output.classes
    weights = load_file(checkpoint)
    done = remove_predictors(weights, old) if how == "remove" else widen_predictors(weights, old, new, seed)
    output = contract.output.model_copy(update={"classes": new})
    step = {
        "how": how,
        "source": checkpoint.name,
        "source_sha256": files.sha256_of_file(checkpoint),
        "classes_before": old,
        "dropped": [row.name for row in done.rows if row.fate == "dropped"],
        "created": [row.name for row in done.rows if row.fate == "created"],
        "seed": seed if how == "randinit" else None,
    }
    network = {**contract.provenance.network, "classes": new}
    network.pop("class_count", None)
    # What was measured before was measured with predictors that are gone.
    contract = contract.with_provenance(metrics=[], network=network).with_step("surgery", **step)
    contract = contract.model_copy(update={"output": output})
    files.write_bytes(out, save(done.weights, {METADATA_KEY: contract.to_json()}))
    typer.echo("\n".join([*surgery_lines(done), f"{out}: classes {', '.join(new)}"]))


def new_classes(data: str | None, classes: list[str] | None, data_root: Path | None) -> list[str]:
    """The new classes, named by a dataset or one by one.

    Raises:
        UsageError: by neither or by both.
    """
    from irforge.datasets import open_dataset

    if (data is None) == (not classes):
        raise UsageError("the new classes are to be named once", "Give --data NAME:SPLIT, or --class NAME for each")
    return list(classes or []) if data is None else list(open_dataset(data, data_root).classes)


def surgery_lines(done: Surgery) -> list[str]:
    """A line for each tensor: its fate, name, shape and what of it was kept; then the sums."""
    width = max(len(row.name) for row in done.rows)
    lines = [
        f"{row.fate:<8} {row.name:<{width}}  {'x'.join(map(str, row.shape)) or '1':<16} {row.note}".rstrip()
        for row in done.rows
    ]
    fates = [row.fate for row in done.rows]
    sums = ", ".join(f"{fates.count(fate)} tensors {fate}" for fate in ("kept", "dropped", "created"))
    return [*lines, sums]


if __name__ == "__main__":
    run_command(surgery)
