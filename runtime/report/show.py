"""`irforge report FILES...`: a report as a page and a table; two reports against each other; what trtexec measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irforge.errors import UsageError, run_command

if TYPE_CHECKING:
    from irforge.runtime.report.given import Given
    from irforge.runtime.report.run_timing import RunTiming


def report(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILES...",
            help="What 'irforge bench' wrote (report.json by default), or two of them to compare. With one, or without:"
            " what 'irforge run --timing' wrote, and trtexec's --exportTimes, --exportProfile and --exportLayerInfo.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page to write; by default beside the first file.")
    ] = None,
) -> None:
    """Show measurements: a page to read, print or send, and a table here."""
    from irforge.files import refuse_overwriting, write_text
    from irforge.runtime.report.given import sort_out
    from irforge.runtime.report.page import render, render_trtexec
    from irforge.runtime.report.table import print_report
    from irforge.runtime.report.trtexec_view import print_trtexec

    paths = sources or [Path("report.json")]
    if output is not None and output.suffix != ".html":
        raise UsageError(f"'{output}' does not end in .html")
    page = output or paths[0].with_suffix(".html")
    refuse_overwriting([page], paths)
    given = sort_out(paths)
    if given.runs and not given.reports:
        raise UsageError("a run's times stand in a report, and there is none", "Give the report.json, too")
    if len(given.reports) == 2:
        page = output or paths[0].with_name(f"{paths[0].stem}.{paths[1].stem}.html")
        write_text(page, _compared(given))
    elif given.reports:
        ((_, measured),) = given.reports
        write_text(page, render(measured, given.runs, given.trtexec))
        print_report(measured)
        _print_ages(given.runs)
    else:
        write_text(page, render_trtexec(given.trtexec))
    print_trtexec(given.trtexec)
    typer.echo(f"{page}")


def _compared(given: Given) -> str:
    from irforge.runtime.differences import compare_reports
    from irforge.runtime.report.difference_view import print_differences, render_differences

    (path, before), (other, after) = given.reports
    names = (path.name, other.name) if path.name != other.name else (str(path), str(other))
    found = compare_reports(before, after)
    print_differences(found, names)
    return render_differences(found, before, after, names)


def _print_ages(runs: Sequence[RunTiming]) -> None:
    from irforge.runtime.report.wording import milliseconds

    for run in runs:
        name = ", ".join(run.sources)
        if run.age:
            p50, p99 = milliseconds(run.age.p50), milliseconds(run.age.p99)
            typer.echo(
                f" {name}: age of a detection {p50} ms at p50, {p99} at p99; dropped {run.dropped} of {run.read}"
            )
        else:
            typer.echo(f" {name}: {run.age_note}")


if __name__ == "__main__":
    run_command(report)
