"""`irforge report REPORT.json -o REPORT.html`: a report as a page, and its summary in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irforge.errors import run_command


def report(
    source: Annotated[Path, typer.Argument(metavar="REPORT.json", help="What 'irforge bench' wrote.")] = Path(
        "report.json"
    ),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page to write; by default beside the report.")
    ] = None,
) -> None:
    """Show a report: a page to read, print or send, and a table here."""
    from irforge.files import write_text
    from irforge.runtime.report.page import render
    from irforge.runtime.report.schema import read_report
    from irforge.runtime.report.table import print_report

    measured = read_report(source)
    page = output or source.with_suffix(".html")
    write_text(page, render(measured))
    print_report(measured)
    typer.echo(f"{page}")


if __name__ == "__main__":
    run_command(report)
