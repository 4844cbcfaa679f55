"""What was found out and made, as a table for people."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from irforge.export.adopt.deployable import Adopted


def print_adopted(adopted: Adopted, output: Path | None, console: Console | None = None) -> None:
    """Print what the file is, what its outputs mean and why, and what was made of it."""
    source, contract, reading = adopted.source, adopted.contract, adopted.reading
    console = console or Console()
    written = str(output) if output else "nothing written; -o OUT.onnx writes it"
    table = Table(title=f"{source.path} -> {written}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    shapes = [f"{name} {' x '.join(map(str, shape))}" for name, shape in source.outputs.items()]
    made = [
        f"{shape}, by {adopted.origins[name] or 'none'}" for shape, name in zip(shapes, source.outputs, strict=True)
    ]
    names = contract.output.classes
    rows = {
        "file": f"opset {source.opset}, {source.framework or 'no known framework'}: {source.title}",
        "input": f"'{source.input}' {source.door}, {source.channels} x {source.height} x {source.width}",
        "outputs": "\n".join(made),
        "frames in": "\n".join(adopted.door.reasons),
        f"layout {reading.layout}": "\n".join(reason for reason in reading.reasons if reason),
        "gives": "\n".join(f"{t.name}: {t.dtype} {' x '.join(map(str, t.shape))}" for t in contract.output.tensors),
        "classes": f"{len(names)}: {', '.join(names[:8])}{', ...' * (len(names) > 8)}",
        "threshold": f"{contract.output.score_threshold:g}",
        "rewrites": ", ".join(f"{name} {count}" for name, count in adopted.rewrites.items()) or "none",
        "parity": ", ".join(f"{name}: max |d| {value:.1e}" for name, value in adopted.parity.items()),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    for note in adopted.notes:
        console.print(f"note: {note}", highlight=False)
