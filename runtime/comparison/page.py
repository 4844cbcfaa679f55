"""One static page from one comparison: no script, no network, no figure that is not in the JSON."""

from __future__ import annotations

from datetime import datetime
from importlib import resources

from irforge.runtime.comparison import sections
from irforge.runtime.comparison.schema import Comparison
from irforge.runtime.comparison.wording import frames_text
from irforge.runtime.report.markup import Markup, element, joined, text
from irforge.runtime.report.wording import plural

# The browser itself refuses scripts and network, whatever a comparison's text holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(comparison: Comparison) -> str:
    """The page's HTML, ready to be written to a file."""
    title = f"{plural(len(comparison.contestants), 'detector')} on {comparison.data.name} {comparison.data.split}"
    body = joined(
        [
            element("h1", title),
            element("p", _lede(comparison), "lede"),
            _findings(comparison),
            _section("Accuracy", sections.accuracy(comparison)),
            _section("Curves", sections.curves(comparison)),
            _section("Cost", sections.cost(comparison)),
            _section("Where they disagree", sections.gallery(comparison)),
            _section("What is missing, and why", sections.missing(comparison)),
            _section("Models", sections.models(comparison)),
            _section("How to read this", element("p", f"{comparison.protocol} {sections.READING}")),
            _section("The command that made it", element("pre", comparison.command)),
            element("footer", f"irforge {comparison.irforge_version} · comparison {comparison.schema_version}"),
        ],
        "\n",
    )
    return document(title, body)


def document(title: str, body: Markup) -> str:
    """A whole page in the comparison's style, which the browser lets neither run scripts nor reach a network."""
    style = "\n".join(
        resources.files(f"irforge.runtime.{package}").joinpath(name).read_text()
        for package, name in (("report", "style.css"), ("comparison", "comparison.css"))
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: Markup) -> Markup:
    return Markup(f"<section>{element('h2', title)}\n{content}</section>") if content else Markup("")


def _lede(comparison: Comparison) -> str:
    here = comparison.environment
    day = datetime.fromisoformat(here.date)
    gpu = "no GPU" if here.gpu == "none" else here.gpu
    machine = f"{here.cpu}, {plural(here.threads, 'thread')}, {gpu}"
    return f"{day.day} {day:%B %Y} · {machine} · {frames_text(comparison)}"


def _findings(comparison: Comparison) -> Markup:
    items = joined(Markup(f'<li class="{f.level}"><span>{text(f.text)}</span></li>') for f in comparison.findings)
    return Markup(f'<ul class="findings">{items}</ul>') if items else items
