"""Datasets on a terminal of 80 columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from irforge.datasets.base import Finding
from irforge.datasets.describe import Description, Histogram
from irforge.datasets.listing import Listing
from irforge.datasets.overlap import Overlap, SharedNames

_BAR = 32
_EXAMPLES = 3


def print_listing(listings: Sequence[Listing], out: Console) -> None:
    """A row a dataset; what is known of its licence stands below the table."""
    table = _table()
    for name in ("Dataset", "Frames", "Truth", "Splits"):
        table.add_column(name, justify="right" if name == "Frames" else "left", no_wrap=name in ("Frames", "Truth"))
    for listing in listings:
        if listing.fault:
            table.add_row(listing.name, "–", "–", listing.fault)
        else:
            splits = ", ".join(f"{name} {frames}" for name, frames in listing.splits.items())
            table.add_row(listing.name, str(listing.frames), listing.truth, splits or "–")
    out.print(table)
    for listing in listings:
        if not listing.fault:
            out.print(Text(f"{listing.name}: {listing.licence}"))


def print_description(described: Description, out: Console) -> None:
    """What a split is made of, then its histograms."""
    out.print(Text(f"{described.name}:{described.split}", style="bold"))
    table = Table(box=None, show_header=False, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for row in _facts(described):
        table.add_row(*row)
    out.print(table)
    per_frame = [(str(number), count) for number, count in described.targets_per_frame.items()]
    if described.truth != "none":
        _print_bars("Targets in a frame", per_frame, out)
    unit = "pixels of the mask" if described.truth == "masks" else "square pixels of the box"
    _print_histogram(f"Area of a target, {unit}", described.area, out)
    _print_histogram("Contrast: target's mean less its surroundings', levels", described.contrast, out)
    _print_histogram("Contrast in standard deviations of the surroundings", described.local_contrast, out)


def print_findings(findings: Sequence[Finding], everything: bool, out: Console) -> None:
    """Findings by kind, faults first; without `everything` the first few of each kind."""
    kinds: dict[tuple[bool, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[(not finding.fault, finding.kind)].append(finding)
    for (harmless, kind), same in sorted(kinds.items()):
        out.print(Text(f"{'note' if harmless else 'FAULT'}: {kind} ({len(same)})", style="" if harmless else "red"))
        for finding in islice(same, None if everything else _EXAMPLES):
            out.print(Text(f"  {finding.where}: {finding.text}"), soft_wrap=True)
        if not everything and len(same) > _EXAMPLES:
            out.print(f"  and {len(same) - _EXAMPLES} more: --check lists them")
    if not findings:
        out.print("nothing found amiss")


def print_shared_names(shared: Sequence[SharedNames], out: Console) -> None:
    """Which lists for training name frames of which list for testing."""
    table = _table("Frames that a list for testing shares with lists for training, by name")
    table.add_column("Test list", no_wrap=True)
    table.add_column("Frames", justify="right", no_wrap=True)
    table.add_column("Shared with")
    by_test: Mapping[tuple[str, int], list[str]] = defaultdict(list)
    for pair in shared:
        by_test[pair.test, pair.frames].append(f"{pair.train} {pair.shared}")
    for (test, frames), trains in by_test.items():
        table.add_row(test, str(frames), ", ".join(trains))
    out.print()
    out.print(table)
    out.print("Train and test with lists that share nothing.")


def print_overlap(found: Overlap, everything: bool, out: Console) -> None:
    """How many frames of one dataset are in the other, and which."""
    style = "red" if found.shared else ""
    line = f"{found.shared} of {found.frames} frames of {found.first} are in {found.second}"
    out.print(Text(line, style=style), soft_wrap=True)
    names = [*found.same, *(f"{mine} (there {theirs})" for mine, theirs in found.renamed)]
    shown = list(islice(names, None if everything else _EXAMPLES))
    for name in shown:
        out.print(Text(f"  {name}"), soft_wrap=True)
    if len(names) > len(shown):
        out.print(f"  and {len(names) - len(shown)} more: --check lists them")
    if found.name_only:
        out.print(Text(f"  {len(found.name_only)} names are in both with other content: {found.name_only[0]} first"))


def _facts(described: Description) -> Iterable[tuple[str, str]]:
    yield "frames", str(described.frames)
    if described.truth == "none":
        yield "truth", "none"
    else:
        yield "truth", f"{described.truth}; targets: {described.targets}, frames without one: {described.target_free}"
    if len(described.classes) > 1:
        yield "classes", ", ".join(f"{name} {count}" for name, count in described.classes.items())
    common = list(islice(described.sizes.items(), 4))
    rest = len(described.sizes) - len(common)
    sizes = ", ".join(f"{size} ({count})" for size, count in common)
    yield "sizes", f"{sizes} and {rest} more" if rest else sizes
    stored = ", ".join(f"{kind} ({count})" for kind, count in described.stored.items())
    yield "stored", f"{stored}; highest level {described.highest_level}"
    yield "licence", described.licence


def _print_histogram(title: str, values: Histogram | None, out: Console) -> None:
    if values is None:
        return
    labels = [_interval(low, high) for low, high, _ in values.bins]
    figures = f"median {values.median:.4g}, 5 % below {values.p5:.4g}, 5 % above {values.p95:.4g}"
    _print_bars(f"{title}\n  {figures}", list(zip(labels, (count for _, _, count in values.bins), strict=True)), out)


def _print_bars(title: str, rows: Sequence[tuple[str, int]], out: Console) -> None:
    highest = max((count for _, count in rows), default=0) or 1
    total = sum(count for _, count in rows) or 1
    out.print(Text(f"\n{title}"))
    for name, count in rows:
        bar = "█" * round(_BAR * count / highest) or ("▏" if count else "")
        out.print(Text(f"  {name:>14} {count:>6} {100 * count / total:5.1f} % {bar}".rstrip()), soft_wrap=True)


def _interval(low: float | None, high: float | None) -> str:
    if low is None:
        return f"to {high:g}"
    return f"above {low:g}" if high is None else f"{low:g} to {high:g}"


def _table(title: str | None = None) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    table.title, table.title_style = title, "bold"
    return table
