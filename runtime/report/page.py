"""One static page from one report: no script, no network, no figure that is not in the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib import resources

from irforge.runtime.report import bounds, cost, origin, outcome, speed
from irforge.runtime.report.markup import Markup, element, joined, text
from irforge.runtime.report.run_timing import RunTiming
from irforge.runtime.report.schema import Finding, Report
from irforge.runtime.report.trtexec_view import trtexec_section
from irforge.runtime.report.views import VIEWS
from irforge.runtime.report.wording import plural
from irforge.runtime.trtexec import TrtexecRun

# The browser itself refuses scripts and network, whatever a report's text holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_READING = (
    "The threshold was chosen once, on validation, for FP32. The machine's times say nothing of another machine's, and "
    "a plan's kernels and bytes are counted, not timed: only a run on that GPU gives its latency."
)


def render(report: Report, runs: Sequence[RunTiming] = (), trtexec: Sequence[TrtexecRun] = ()) -> str:
    """The page's HTML, ready to be written to a file; with the times of pipeline runs, and what trtexec measured."""
    title = f"{report.detector}: what each precision costs and gains"
    latency = joined([cost.latency(report), speed.age(runs), speed.percentiles(report), speed.spread(report)])
    sections = [
        ("Accuracy", outcome.accuracy(report)),
        ("Parity with the reference", outcome.parity(report)),
        ("Targets lost and gained", outcome.targets(report)),
        ("Latency", latency),
        ("Cold start", speed.cold_start(report)),
        ("Minutes on end", speed.sustained(report)),
        ("Batches", speed.batches(report)),
        ("Power, clocks and temperature", speed.power(report)),
        ("Compiled plans", cost.engines(report)),
        ("What boards could do at best", bounds.boards(report)),
        ("As trtexec measured it", trtexec_section(trtexec)),
        ("The same with trtexec", bounds.commands(report)),
        ("Left out of INT8", cost.exceptions(report)),
        ("Machine", origin.environment(report)),
        ("Provenance", origin.provenance(report)),
        ("How to read this", element("p", f"{VIEWS[report.output].reading} {_READING}")),
        ("The command that made it", element("pre", report.command)),
    ]
    return document(
        title,
        [
            element("p", _lede(report), "lede"),
            findings_list(report.findings),
            outcome.summary(report),
            *(section(name, content) for name, content in sections),
            element("footer", f"irforge {report.irforge_version} · report schema {report.schema_version}"),
        ],
    )


def render_trtexec(trtexec: Sequence[TrtexecRun]) -> str:
    """A page of trtexec's own measurements alone."""
    title = f"{', '.join(run.name for run in trtexec)}: as trtexec measured it"
    return document(title, [trtexec_section(trtexec)])


def document(title: str, parts: Sequence[Markup]) -> str:
    """A whole page: the title, then the parts, in this report's style."""
    style = resources.files("irforge.runtime.report").joinpath("style.css").read_text()
    body = joined([element("h1", title), *parts], "\n")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: Markup) -> Markup:
    """A part of the page under its heading; nothing without content."""
    return Markup(f"<section>{element('h2', title)}\n{content}</section>") if content else Markup("")


def _lede(report: Report) -> str:
    here, data = report.environment, report.data
    day = datetime.fromisoformat(here.date)
    gpu = "no GPU" if here.gpu == "none" else here.gpu
    return (
        f"{day.day} {day:%B %Y} · {here.cpu}, {plural(here.threads, 'thread')}, {gpu} · "
        f"{data.name} {data.split}, {plural(data.frames, 'frame')}"
    )


def findings_list(findings: Sequence[Finding]) -> Markup:
    """What a reader should not miss, above everything else."""
    items = joined(Markup(f'<li class="{f.level}"><span>{text(f.text)}</span></li>') for f in findings)
    return Markup(f'<ul class="findings">{items}</ul>') if findings else Markup("")
