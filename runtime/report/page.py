"""One static page from one report: no script, no network, no figure that is not in the JSON."""

from __future__ import annotations

from datetime import datetime
from importlib import resources

from irforge.runtime.report import cost, origin, outcome
from irforge.runtime.report.markup import Markup, element, joined, text
from irforge.runtime.report.schema import Report
from irforge.runtime.report.views import VIEWS
from irforge.runtime.report.wording import plural

# The browser itself refuses scripts and network, whatever a report's text holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_READING = (
    "The threshold was chosen once, on validation, for FP32. The machine's times say nothing of another machine's, and "
    "a plan's kernels and bytes are counted, not timed: only a run on that GPU gives its latency."
)


def render(report: Report) -> str:
    """The page's HTML, ready to be written to a file."""
    style = resources.files("irforge.runtime.report").joinpath("style.css").read_text()
    title = f"{report.detector}: what each precision costs and gains"
    body = joined(
        [
            element("h1", title),
            element("p", _lede(report), "lede"),
            _findings(report),
            outcome.summary(report),
            _section("Accuracy", outcome.accuracy(report)),
            _section("Parity with the reference", outcome.parity(report)),
            _section("Targets lost and gained", outcome.targets(report)),
            _section("Latency", cost.latency(report)),
            _section("Compiled plans", cost.engines(report)),
            _section("Left out of INT8", cost.exceptions(report)),
            _section("Machine", origin.environment(report)),
            _section("Provenance", origin.provenance(report)),
            _section("How to read this", element("p", f"{VIEWS[report.output].reading} {_READING}")),
            _section("The command that made it", element("pre", report.command)),
            element("footer", f"irforge {report.irforge_version} · report schema {report.schema_version}"),
        ],
        "\n",
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: Markup) -> Markup:
    return Markup(f"<section>{element('h2', title)}\n{content}</section>") if content else Markup("")


def _lede(report: Report) -> str:
    here, data = report.environment, report.data
    day = datetime.fromisoformat(here.date)
    gpu = "no GPU" if here.gpu == "none" else here.gpu
    return (
        f"{day.day} {day:%B %Y} · {here.cpu}, {plural(here.threads, 'thread')}, {gpu} · "
        f"{data.name} {data.split}, {plural(data.frames, 'frame')}"
    )


def _findings(report: Report) -> Markup:
    items = joined(Markup(f'<li class="{f.level}"><span>{text(f.text)}</span></li>') for f in report.findings)
    return Markup(f'<ul class="findings">{items}</ul>')
