"""Two reports side by side: a page, and a table for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from irforge.runtime.differences import Change, Differences, Pair
from irforge.runtime.findings import ORDER
from irforge.runtime.report.markup import Cell, Markup, Row, definitions, element, heading, joined, named, table
from irforge.runtime.report.page import document, findings_list, section
from irforge.runtime.report.schema import Finding, Report
from irforge.runtime.report.wording import (
    NOT_MEASURED,
    count,
    milliseconds,
    percent,
    plural,
    quantity,
    ratio,
    signed,
    size_text,
)

_WORDS = {"more": "more than noise", "noise": "within noise", "unknown": "noise unknown", "counted": "counted"}
_RULES = (
    "Latency: rounds are resampled, and a change counts if the 99 % interval of the ratio leaves 1 out and it is not "
    "below what two runs of one file differ by. Pd: target by target where both models were held to the same "
    "reference, at p < 0.01; else by the 99 % interval of the difference. Other rates are means over frames that the "
    "reports do not hold one by one. Kernels and bytes are counted, so that every difference is real."
)


def summary(found: Differences) -> list[Finding]:
    """What a reader should not miss, worst first."""
    findings = []
    if found.machines:
        text = (
            f"These are two machines: {'; '.join(found.machines)}. Times differ by that, too, whatever the models do."
        )
        findings.append(Finding(level="bad", text=text))
    for pair in found.pairs:
        if pair.cautions:
            text = f"{pair.title} was not measured alike: {'; '.join(pair.cautions)}."
            findings.append(Finding(level="caution", text=text))
    same = [pair for pair in found.pairs if pair.same_file]
    if same and len(same) == len(found.pairs):
        text = "All files are the same in both reports: what differs comes from the machine, its software or its load."
        findings.append(Finding(level="note", text=text))
    elif same:
        text = (
            "Some files are the same in both reports. What their times changed by is the machine's doing, and no "
            f"change of the others below {100 * found.floor:.0f} % counts."
        )
        findings.append(Finding(level="note", text=text))
    if found.software:
        findings.append(Finding(level="note", text=f"Other software: {'; '.join(found.software)}."))
    if found.unpaired:
        findings.append(Finding(level="note", text=f"Only in one report: {', '.join(found.unpaired)}."))
    worse, better = _moved(found, worse=True), _moved(found, worse=False)
    if worse:
        findings.append(Finding(level="caution", text=f"Worse by more than noise: {'; '.join(worse)}."))
    if better:
        findings.append(Finding(level="good", text=f"Better by more than noise: {'; '.join(better)}."))
    if not worse and not better:
        findings.append(Finding(level="good", text="Nothing that was measured changed by more than noise."))
    return sorted(findings, key=lambda finding: ORDER.index(finding.level))


def _moved(found: Differences, worse: bool) -> list[str]:
    words = []
    for pair in found.pairs:
        moved = [c for c in pair.changes if c.verdict == "more" and _is_worse(c) == worse]
        if moved:
            words.append(f"{pair.title} ({', '.join(f'{c.name} {change_text(c)}' for c in moved)})")
    return words


def _is_worse(change: Change) -> bool:
    return change.before is not None and change.after is not None and (change.after - change.before) * change.better < 0


def value_text(change: Change, value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    if change.unit == "ms":
        return milliseconds(value)
    if change.unit == "bytes":
        return quantity(value)
    if change.name == "Fa":
        return f"{value:.2e}"
    if change.unit == "rate":
        return percent(value)
    return count(int(value)) if change.verdict == "counted" else f"{value:.1f}"


def change_text(change: Change) -> str:
    """The difference as people say it: times as ratios, rates in points, counts in percent."""
    before, after = change.before, change.after
    if before is None or after is None:
        return NOT_MEASURED
    if before == after:
        return "same"
    if change.unit == "ms":
        return ratio(after, before)
    if change.unit == "rate" and change.name != "Fa":
        return f"{signed(100 * (after - before))} points"
    return f"{signed(100 * (after / before - 1), 1)} %" if before else signed(after)


def render_differences(found: Differences, before: Report, after: Report, names: tuple[str, str]) -> str:
    """The page; `names` are those of the two files."""
    title = f"{after.detector}: {names[1]} against {names[0]}"
    data = f"{after.data.name} {after.data.split}, {plural(after.data.frames, 'frame')}"
    reports = zip(names, (before, after), strict=True)
    origins = [(name, f"{r.environment.date.replace('T', ' ')}, {_machine(r)}: {r.command}") for name, r in reports]
    return document(
        title,
        [
            element("p", data, "lede"),
            findings_list(summary(found)),
            section("What changed", joined(_pair(pair, names) for pair in found.pairs)),
            section("How this is judged", element("p", _RULES)),
            section("The two reports", definitions(origins)),
            element("footer", f"irforge {after.irforge_version}"),
        ],
    )


def _pair(pair: Pair, names: tuple[str, str]) -> Markup:
    aside = f"{pair.before.name} and {pair.after.name}" if pair.before.name != pair.after.name else pair.after.name
    same = ", the same file" if pair.same_file else ""
    title = joined([named(pair.after), size_text(pair.after.height, pair.after.width)], " ")
    rows: list[Row] = [
        [
            change.name,
            value_text(change, change.before),
            value_text(change, change.after),
            change_text(change),
            Cell(_verdict_chip(change), change.why, "text"),
        ]
        for change in pair.changes
    ]
    return joined([heading(title, f"{aside}{same}"), table(["", *names, "Change", "Against the noise"], rows)])


def _verdict_chip(change: Change) -> Markup:
    style = ("chip fail" if _is_worse(change) else "chip pass") if change.verdict == "more" else "chip"
    return element("span", _WORDS[change.verdict], style)


def _machine(report: Report) -> str:
    here = report.environment
    return here.cpu if here.gpu == "none" else f"{here.cpu}, {here.gpu}"


def print_differences(found: Differences, names: tuple[str, str], console: Console | None = None) -> None:
    """One table a pair of models, then what should not be missed."""
    out = console or Console()
    colours = {"bad": "bold red", "caution": "yellow", "good": "green", "note": "cyan"}
    marks = {"bad": "✕", "caution": "!", "good": "✓", "note": "i"}
    findings = summary(found)
    for finding in (f for f in findings if f.level == "bad"):
        out.print(Text(f" {marks['bad']} {finding.text}", style=colours["bad"]), soft_wrap=True)
    for pair in found.pairs:
        shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
        shown.title, shown.title_style = pair.title, "bold"
        for header, justify in (("", "left"), *((name, "right") for name in names), ("Change", "right"), ("", "left")):
            shown.add_column(header, justify="right" if justify == "right" else "left", overflow="fold")
        for change in pair.changes:
            style = ("red" if _is_worse(change) else "green") if change.verdict == "more" else "dim"
            verdict = Text(_WORDS[change.verdict], style=style)
            values = (value_text(change, value) for value in (change.before, change.after))
            shown.add_row(change.name, *values, change_text(change), verdict)
        out.print(shown)
    for finding in (f for f in findings if f.level != "bad"):
        mark = Text(f" {marks[finding.level]} ", style=colours[finding.level])
        out.print(mark.append(finding.text, style="default"), soft_wrap=True)
