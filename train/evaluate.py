"""`python train/evaluate.py CHECKPOINT --data NAME:SPLIT`: the accuracy of a trained detector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import InputError, UsageError, run_command
from irforge.options import Tile

if TYPE_CHECKING:
    from irforge.contract import Contract
    from irforge.datasets import Dataset
    from irforge.rescoring import Rescorer
    from irforge.train.detectors.base import Deployable
    from irforge.train.evaluation import Figures


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="best.safetensors, or a published pickle with --trust.")],
    data: Annotated[list[str], typer.Option(help="NAME[:SPLIT][@CLASSES] or path; repeat for several.")],
    protocol: Annotated[str | None, typer.Option(help="squash, native or both. [default: both]")] = None,
    tile: Tile = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="In place of the contract's.")] = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="Count Pd and Fa as the published code does.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Read a pickle; it comes from someone you trust.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures here too.")] = None,
    save_maps: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write masks too: FOLDER/DATA/PROTOCOL/ID.png of 16 bits.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named datasets lie; else IRFORGE_DATA.")] = None,
    novel: Annotated[
        str, typer.Option(metavar="NAMES", help="Novel classes or groups, by comma; default: those surgery gave it.")
    ] = "",
    rescore: Annotated[
        str, typer.Option(metavar="ENCODER", help="Judge boxes again: efficientnet-lite0, resnet (PCB) or clip.")
    ] = "",
    support: Annotated[
        list[str] | None, typer.Option(metavar="DATA", help="The shots it was fine-tuned on; repeat for several.")
    ] = None,
    rescore_weights: Annotated[Path | None, typer.Option(help="The encoder's checkpoint; Lite0 has a package.")] = None,
    alpha: Annotated[
        float | None, typer.Option(min=0, max=1, help="The detector's share. [default: 0.5, CLIP 0.7]")
    ] = None,
) -> None:
    """Measure a detector on frames with truth, and print a table.

    Masks: IoU, nIoU, Pd, Fa. Boxes: COCO AP, F1 at IoU 0.5 and 0.3 and at 3 pixels between centres, mNoCoAP; classes go
    by name. With novel classes: nAP, nAP50, nAP75, the base classes' bAP; on all frames ('paper'), and where shots were
    drawn from them on the others too ('-strict'). With --tile all of them are of whole frames.
    """
    from irforge import files
    from irforge.datasets import open_dataset
    from irforge.tiles import in_tiles
    from irforge.train.checkpoint import load_deployable
    from irforge.train.evaluation import PROTOCOLS, TILE, novel_classes, table_line

    if tile is not None and protocol is not None:
        raise UsageError(f"frames are either cut (--tile) or fitted whole (--protocol {protocol})", "Give one of them")
    if protocol not in (None, *PROTOCOLS, "both"):
        raise UsageError(f"there is no protocol '{protocol}'", f"Protocols: {', '.join(PROTOCOLS)}, both")
    root = None if data_root is None else str(data_root)
    deployable, contract = load_deployable(checkpoint, trust=trust)
    if tile is not None:
        contract = in_tiles(contract, tile)
    protocols = (TILE,) if tile is not None else PROTOCOLS if protocol in (None, "both") else (protocol,)
    level = contract.output.score_threshold if threshold is None else threshold
    shots = [open_dataset(name, root) for name in support or ()]
    opened = [open_dataset(name, root) for name in data]
    rescorer = None
    if rescore:
        from irforge.train.rescoring.support import rescorer_by_name

        # As published, base classes keep the scores of the detector that learnt them from many boxes.
        judged = novel_classes(contract, opened[0], novel) or None
        rescorer = rescorer_by_name(rescore, contract, shots, rescore_weights, trust, alpha, judged)
    if save_maps is not None:
        refuse_shared_names(opened)
    rows: list[dict[str, Any]] = []
    for dataset in opened:
        few = novel_classes(contract, dataset, novel)
        for frames, part in few_shot_frames(dataset, shots) if few else [("", dataset)]:
            cut = tile_facts(contract, part) if tile is not None else {}
            for chosen in protocols:
                maps = None if save_maps is None else save_maps / dataset.name / chosen
                for judge, found in figures(deployable, contract, part, chosen, level, legacy, maps, few, rescorer):
                    label = f"{part.name}:{part.split}"
                    if not rows:
                        typer.echo(table_line("data", "n", "protocol", found.table))
                    if cut and not judge:
                        typer.echo(tile_line(label, cut))
                    shown = f"{label} +{judge}" if judge else label
                    typer.echo(table_line(shown, str(found.frames), chosen, found.table.values()))
                    own: dict[str, Any] = {"data": label, "protocol": chosen, "threshold": level, "legacy": legacy}
                    own |= {"novel": few, "frames_taken": frames} if few else {}
                    own |= {"rescoring": rescorer.spec.model_dump(mode="json")} if judge and rescorer else {}
                    rows.append(own | cut | found.full)
    if json is not None:
        files.write_json(json, {"checkpoint": str(checkpoint), "results": rows})


def figures(
    deployable: Deployable,
    contract: Contract,
    dataset: Dataset,
    protocol: str,
    threshold: float,
    legacy: bool,
    maps: Path | None,
    novel: list[str],
    rescorer: Rescorer | None,
) -> Iterator[tuple[str, Figures]]:
    """The figures of one dataset by one protocol: ("", as they are), and where a rescorer judges ("pcb", again)."""
    from irforge.train.evaluation import evaluate as measure

    if contract.output.kind == "mask" or maps is not None:
        yield "", measure(deployable, contract, dataset, protocol, threshold, legacy, maps, novel, rescorer)
        return
    from irforge.train.box_evaluation import find_boxes, judge_again, judged_by_name, score_boxes

    judged = judged_by_name(dataset, contract)
    if judged.note:
        typer.echo(f"{dataset.name}:{dataset.split}: {judged.note}", err=True)
    found = find_boxes(deployable, contract, judged.dataset, protocol, threshold)
    yield "", score_boxes(found, judged, contract, threshold, novel)
    if rescorer is not None:
        again = judge_again(found, judged.dataset, contract, rescorer)
        yield rescorer.spec.method, score_boxes(again, judged, contract, threshold, novel)


def tile_facts(contract: Contract, dataset: Dataset) -> dict[str, Any]:
    """How the frames of a dataset are cut, for the record: size and overlap of tiles, and fewest and most a frame."""
    from irforge.tiles import tile_overlap
    from irforge.train.evaluation import frame_tiles

    spec = contract.input
    counts = {len(frame_tiles(spec, *sample.frame().shape[:2]).corners) for sample in dataset}
    return {"tile": list(spec.size), "overlap": tile_overlap(spec), "tiles_a_frame": [min(counts), max(counts)]}


def tile_line(label: str, facts: dict[str, Any]) -> str:
    (height, width), (fewest, most) = facts["tile"], facts["tiles_a_frame"]
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f"{label}: each frame in {count} tiles of {width}x{height} that overlap by {facts['overlap']} pixels"


def few_shot_frames(dataset: Dataset, shots: list[Dataset]) -> list[tuple[str, Dataset]]:
    """All frames ('paper'), and those that no shot was drawn from ('strict') where that is not the same: neither the
    given ones nor any of the K-shot lists that belong to the dataset."""
    from irforge.datasets import open_dataset, shot_splits
    from irforge.metrics.fewshot import evaluation_frames

    supports = list(shots)
    for split in shot_splits(dataset.root):
        try:
            supports.append(open_dataset(dataset.root, split=split))
        except InputError as error:
            typer.echo(f"the K-shot list '{split}' is not left out of 'strict': {error.line}", err=True)
    taken = {sample.frame_path.resolve() for part in supports for sample in part}
    frames = {sample.frame_path.resolve() for sample in dataset}
    if not frames & taken:
        return [("paper", dataset)]
    if frames <= taken:
        typer.echo(f"{dataset.name}:{dataset.split}: shots were drawn from every frame, none is left for 'strict'")
        return [("paper", dataset)]
    return [("paper", dataset), ("strict", evaluation_frames(dataset, supports, "strict"))]


def refuse_shared_names(datasets: list[Dataset]) -> None:
    """Raises UsageError where two datasets would write masks to the same files."""
    seen: dict[tuple[str, str], Path] = {}
    for dataset in datasets:
        for sample in dataset:
            other = seen.setdefault((dataset.name, sample.id), sample.frame_path)
            if other != sample.frame_path:
                raise UsageError(
                    f"the masks of '{other}' and '{sample.frame_path}' would be one file",
                    "Save them to two folders, by one command each",
                )


if __name__ == "__main__":
    run_command(evaluate)
