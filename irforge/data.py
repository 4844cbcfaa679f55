"""`irforge data`: which datasets there are, what is in one, what is wrong with it, and what it shares with another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from irforge.datasets import Dataset, Sample
    from irforge.datasets.overlap import Overlap


def data(
    name: Annotated[
        str, typer.Argument(metavar="[NAME[:SPLIT]]", help="A dataset, a path or a COCO file; without one, list all.")
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Show every finding; fail (exit code 6) on faults or shared frames.")
    ] = False,
    overlap: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:SPLIT]", help="Look for the same frames there, by content; may be repeated."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures and findings as JSON too.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where named data lie, instead of IRFORGE_DATA.")] = None,
) -> None:
    """List, describe and check datasets, and show what they share."""
    from rich.console import Console

    from irforge.datasets import dataset_paths
    from irforge.files import refuse_overwriting, write_json

    names = [name, *(overlap or [])] if name else []
    refuse_overwriting([json_file], [path for each in names for path in dataset_paths(each, data_root)])
    out = Console()
    if not name:
        if check or overlap:
            raise UsageError("no dataset is named to check or compare", "'irforge data' alone lists those there are")
        content, faults = _list(data_root, out), 0
    else:
        content, faults = _describe(name, overlap or [], data_root, check, out)
    if json_file:
        write_json(json_file, content)
    if check and faults:
        raise CheckFailed(f"'{name}' has {faults} fault{'s' if faults > 1 else ''}", "They are listed above")


def _list(data_root: Path | None, out: Console) -> dict[str, Any]:
    from dataclasses import asdict

    from irforge.datasets.listing import list_datasets
    from irforge.datasets.show import print_listing

    listings = list(list_datasets(data_root))
    print_listing(listings, out)
    return {"datasets": [asdict(listing) for listing in listings]}


def _describe(
    name: str, others: list[str], data_root: Path | None, everything: bool, out: Console
) -> tuple[dict[str, Any], int]:
    """Print and return what there is to say of a dataset, and the number of faults."""
    from dataclasses import asdict

    from irforge.datasets.check import scan
    from irforge.datasets.describe import describe
    from irforge.datasets.listing import open_splits, open_whole
    from irforge.datasets.overlap import label, overlap, shared_names
    from irforge.datasets.show import print_description, print_findings, print_overlap, print_shared_names

    compared = [dataset for other in others for dataset in open_whole(other, data_root)]
    digests: dict[str, dict[str, str]] = {}
    parts, faults = [], 0
    datasets = open_whole(name, data_root)
    for dataset in datasets:
        facts, findings = scan(dataset, _tracked(dataset, out))
        described = describe(dataset, facts)
        digests[label(dataset)] = {frame.name: frame.digest for frame in facts}
        print_description(described, out)
        out.print()
        print_findings(findings, everything, out)
        overlaps: list[Overlap] = []
        for other in compared:
            if label(other) not in digests:
                digests[label(other)] = _digests(other, out)
            overlaps.append(overlap(dataset, other, digests))
            print_overlap(overlaps[-1], everything, out)
        faults += sum(finding.fault for finding in findings) + sum(found.shared > 0 for found in overlaps)
        parts.append(
            asdict(described)
            | {"findings": [asdict(f) for f in findings], "overlaps": [asdict(found) for found in overlaps]}
        )
    shared = shared_names(datasets if len(datasets) > 1 else open_splits(datasets[0]))
    if shared:
        print_shared_names(shared, out)
    return {"datasets": parts, "shared_names": [asdict(pair) for pair in shared]}, faults


def _digests(dataset: Dataset, out: Console) -> dict[str, str]:
    from irforge.datasets.describe import frame_digest

    return {sample.id: frame_digest(sample.frame()) for sample in _tracked(dataset, out)}


def _tracked(dataset: Dataset, out: Console) -> Iterator[Sample]:
    """The samples, with a bar on a terminal's stderr."""
    from rich.console import Console as Terminal
    from rich.progress import track

    err = Terminal(stderr=True)
    hidden = not (err.is_terminal and out.is_terminal)
    yield from track(dataset, dataset.name, len(dataset), console=err, transient=True, disable=hidden)
