"""A figure of the GPU page: what it is, where it comes from, and how numbers and tables are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.gpu.records import Report, Times


@dataclass(frozen=True)
class Figure:
    """One row: what it is, where gpu.json has it, the step that makes it, and its value, empty if there is none."""

    name: str
    where: str
    step: str
    value: Callable[[Report], str]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" if line[0] != "---" else f"|{'|'.join(line)}|\n" for line in lines)


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def microseconds(times: Times | None) -> str:
    return f"{number(1e3 * times.p50)} us" if times else ""


def milliseconds(times: Times | None) -> str:
    return f"{number(times.p50)} / {number(times.p99)}" if times else ""
