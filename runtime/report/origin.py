"""The page's end: the machine, and where models and data come from."""

from __future__ import annotations

import json

from irforge.runtime.report.markup import Cell, Markup, Row, definitions, element, joined, named, table, text
from irforge.runtime.report.schema import Report
from irforge.runtime.report.wording import NOT_MEASURED, plural, quantity, size_text


def environment(report: Report) -> Markup:
    here = report.environment
    load = NOT_MEASURED if here.load_average is None else " · ".join(f"{v:.2f}" for v in here.load_average)
    return definitions(
        [
            ("Date", here.date.replace("T", " ")),
            ("Processor", f"{here.cpu}, {plural(here.cores, 'core')}"),
            ("Memory", quantity(here.memory_bytes)),
            ("GPU", here.gpu),
            ("Threads of a session", str(here.threads)),
            ("Load average at the start", f"{load} (1, 5, 15 minutes)"),
            ("System", f"{here.system}, Python {here.python}"),
            ("Packages", ", ".join(f"{name} {version}" for name, version in here.packages.items())),
            ("Measuring took", f"{report.seconds:.0f} s"),
        ]
    )


def provenance(report: Report) -> Markup:
    files: list[Row] = [
        [
            named(model),
            size_text(model.height, model.width),
            Cell(model.name, style="text"),
            Cell(Markup(f"<code>{text(model.sha256)}</code>"), style="text wide"),
        ]
        for model in report.models
    ]
    contracts = (
        Markup(f"<details><summary>Contract of {text(m.name)}</summary>{_pretty(m.contract)}</details>")
        for m in report.models
    )
    return joined([table(["", "Size", "File", "SHA-256"], files), definitions(_origin(report)), *contracts])


def _origin(report: Report) -> list[tuple[str, str]]:
    source = report.models[0].contract.get("provenance", {})
    items = [("Detector", report.detector)]
    for title, key in (("Trained on", "trained_on"), ("Validated on", "validated_on")):
        for note in source.get(key, []):
            data = f"{note['name']}, split {note['split']}, {plural(note['frames'], 'frame')}"
            items.append((title, f"{data}. Licence: {note['licence']}"))
    if report.data.licence:
        items.append(("Measured on", f"{report.data.name}, split {report.data.split}. Licence: {report.data.licence}"))
    for title, key in (("Recipe", "recipe"), ("Seed", "seed"), ("Epochs", "epochs"), ("Weights", "weights_sha256")):
        if source.get(key) not in (None, ""):
            items.append((title, str(source[key])))
    return items


def _pretty(contract: dict[str, object]) -> Markup:
    return element("pre", json.dumps(contract, indent=2))
