"""The model zoo's page: `python benchmarks/zoo.py [COMPARE.json ...] -o docs/zoo.md`.

Every figure is read from a contract (what `irforge publish` measured) or from what `irforge compare` wrote; recipes,
logs and weights are found where they lie in the repository.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irforge.errors import run_command

if TYPE_CHECKING:
    from irforge.contract import Contract
    from irforge.runtime.comparison.schema import Comparison, Contestant

ROOT = Path(__file__).parents[1]
WEIGHT_FOLDERS = ("irforge/samples", "weights")
HEAD = """# Model zoo

Written by `python benchmarks/zoo.py`; change that, or what it reads, and not this page. A recipe trains with
`irforge fit RECIPE`, its run ends in `irforge publish`, which measures the weights and writes their card; figures
under *as published here* are that card's. What the protocols mean: [protocols.md](protocols.md)."""


def zoo(root: Path, page: Path, comparisons: Sequence[tuple[Path, Comparison]] = ()) -> str:
    """The page: for each detector its recipes, logs, weights and their figures; then the comparisons.

    Args:
        root: of the repository.
        page: where it is going to lie, for links.
        comparisons: with the files that they were read from.

    Raises:
        ArtifactError: weights without a readable contract.
    """
    from irforge.train.checkpoint import read_contract
    from irforge.train.detectors.classical.deploy import Classical
    from irforge.train.detectors.registry import DETECTORS, find_detector

    weights = [
        (path, read_contract(path))
        for folder in WEIGHT_FOLDERS
        for path in sorted((root / folder).glob("*.safetensors"))
    ]
    recipes = _recipes(root)
    parts, untrained = [HEAD], []
    for name in DETECTORS:
        detector = find_detector(name)
        if isinstance(detector, Classical):
            untrained.append(f"| {detector.title} | `irforge classical {name} -o {name}.safetensors` |")
            continue
        own = [(path, contract) for path, contract in weights if contract.provenance.detector == name]
        parts += [
            f"## {detector.title}",
            _configs(name, recipes.get(name, []), own, root, page),
            _logs({name, *(path.parent.name for path, _ in recipes.get(name, []))}, root, page),
        ]
        parts += [_published(path, contract, page) for path, contract in own]
    if untrained:
        parts += ["## Methods without training", "| method | what makes it |\n|---|---|\n" + "\n".join(untrained)]
    parts += [_side_by_side(path, comparison, page) for path, comparison in comparisons]
    return "\n\n".join(part for part in parts if part) + "\n"


def _recipes(root: Path) -> dict[str, list[tuple[Path, bool]]]:
    """By detector: its recipes, and whether they are for K shots. Only these two fields are read: a recipe may name a
    detector's options that are checked where it is trained."""
    import yaml

    found: dict[str, list[tuple[Path, bool]]] = {}
    for path in sorted((root / "train/detectors").glob("*/*.yaml")):
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        found.setdefault(fields["detector"], []).append((path, "{K}" in str(fields.get("data"))))
    return found


def _configs(
    name: str, recipes: Sequence[tuple[Path, bool]], weights: Sequence[tuple[Path, Contract]], root: Path, page: Path
) -> str:
    lines = ["| config | recipe | weights | trained by |", "|---|---|---|---|"]
    for recipe, shots in recipes:
        made = [
            f"{_link(path, page)} ([card]({_relative(path.with_suffix('.md'), page)}))"
            for path, contract in weights
            if contract.provenance.recipe == recipe.name
        ]
        command = f"irforge fit {recipe.relative_to(root).as_posix()}{' --shots K' if shots else ''}"
        label = recipe.stem.removeprefix("recipe").strip("_") or "published"
        lines.append(f"| {name} {label} | {_link(recipe, page)} | {', '.join(made) or 'none yet'} | `{command}` |")
    return "\n".join(lines) if recipes else "No recipe."


def _logs(names: set[str], root: Path, page: Path) -> str:
    """Reports and logs that are called by a detector's name or by that of its folder."""
    told = sorted(path for path in (root / "docs/training").glob("*.md") if path.stem in names)
    logs = sorted(path for path in (root / "docs/training").glob("*.csv") if path.stem.split("_")[0] in names)
    words = [f"How it was trained: {_link(path, page)}." for path in told]
    words += [f"Logs: {', '.join(_link(path, page) for path in logs)}."] if logs else []
    return " ".join(words)


def _published(path: Path, contract: Contract, page: Path) -> str:
    """The figures of a card but for those on validation frames, which the weights were chosen by."""
    rows: dict[tuple[str, str, int], dict[str, float]] = {}
    for metric in contract.provenance.metrics:
        if not metric.protocol.endswith("validation"):
            rows.setdefault((metric.data, metric.protocol, metric.frames), {})[metric.name] = metric.value
    if not rows:
        return f"{_link(path, page)} holds no figures."
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    lines = [f"{_link(path, page)}, as published here:", "", f"| data | protocol | n | {' | '.join(names)} |"]
    lines.append("|---" * (3 + len(names)) + "|")
    for (data, protocol, frames), values in rows.items():
        cells = " | ".join(_figure(name, values.get(name)) for name in names)
        lines.append(f"| {data} | {protocol} | {frames} | {cells} |")
    return "\n".join(lines)


def _side_by_side(path: Path, comparison: Comparison, page: Path) -> str:
    from irforge.runtime.comparison.wording import frames_text, giga, mega
    from irforge.runtime.report.wording import count, milliseconds

    def cells(one: Contestant) -> Iterable[str]:
        found, mask, engine, timing = one.objects, one.mask, one.engine, one.timing
        yield from (one.name, one.fit)
        yield from (_rate(mask.iou if mask else None), _rate(mask.niou if mask else None))
        yield from map(
            _rate, (found.pd, found.centre.f1, found.iou50.f1, found.ap50, found.nocoap, found.nocoap_legacy)
        )
        yield f"{found.false_per_frame:.3f}"
        yield from (mega(one.parameters), giga(one.macs), count(engine.kernels if engine else None))
        yield f"{milliseconds(timing.frame.p50)} / {milliseconds(timing.frame.p99)}" if timing else "–"

    headers = (
        *("model", "frames", "IoU", "nIoU", "Pd", "F1, 3 px", "F1, IoU 0.5", "AP50", "mNoCoAP", "as published"),
        *("false a frame", "parameters, M", "GMAC", "kernels", "p50 / p99, ms"),
    )
    here = comparison.environment
    lines = [
        f"## {frames_text(comparison)}",
        "",
        f"{comparison.protocol} Times: {here.threads} thread{'s' if here.threads > 1 else ''} of {here.cpu}, load"
        f" {_load(here.load_average)} at the start. From {_link(path, page)}, which came from",
        "",
        f"```\n{comparison.command}\n```",
        "",
        f"| {' | '.join(headers)} |",
        "|---" * len(headers) + "|",
        *(f"| {' | '.join(cells(one))} |" for one in comparison.contestants),
    ]
    warnings = [f"- {finding.text}" for finding in comparison.findings if finding.level in ("bad", "caution")]
    return "\n".join([*lines, *(["", *warnings] if warnings else [])])


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1e6:.2f}e-6" if name == "Fa" else f"{value:.4f}"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _load(average: Any) -> str:
    return "unknown" if average is None else f"{average[0]:.1f}"


def _relative(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path.resolve(), page.resolve().parent)).as_posix()


def _link(path: Path, page: Path) -> str:
    return f"[{path.name}]({_relative(path, page)})"


def main(
    comparisons: Annotated[list[Path] | None, typer.Argument(metavar="[COMPARE.json ...]")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = ROOT / "docs/zoo.md",
) -> None:
    """Write the model zoo's page from recipes, weights, cards and comparisons."""
    from irforge import files
    from irforge.runtime.comparison.schema import read_comparison

    read = [(path, read_comparison(path)) for path in comparisons or ()]
    files.write_text(output, zoo(ROOT, output, read))
    typer.echo(str(output))


if __name__ == "__main__":
    run_command(main)
