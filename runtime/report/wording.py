"""Figures as people read them; one form for the page and the terminal."""

from __future__ import annotations

from irforge.runtime.report.schema import EngineFacts, Model, Tiles

NOT_MEASURED = "–"
MINUS = "\u2212"
UNITLESS = ("probability", "score")
"""Units of checks that need not be written out."""


def milliseconds(value: float) -> str:
    """Three significant digits: 0.123, 4.56, 78.9, 123; all of them from a second on: 1234."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def per_second(value: float) -> str:
    """Frames a second, with as many digits as milliseconds have."""
    return milliseconds(value)


def quantity(value: int | float | None) -> str:
    """Bytes in decimal units."""
    if value is None:
        return NOT_MEASURED
    for unit, digits in (("B", 0), ("kB", 1), ("MB", 1)):
        if value < 1000:
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def percent(rate: float | None, digits: int = 2) -> str:
    return NOT_MEASURED if rate is None else f"{100 * rate:.{digits}f} %"


def hundredths(rate: float | None) -> str:
    """A rate in percent without the sign, for a column whose legend has it."""
    return NOT_MEASURED if rate is None else f"{100 * rate:.1f}"


def signed(value: float | None, digits: int = 2) -> str:
    """With its sign; a value that rounds to zero has none."""
    if value is None:
        return NOT_MEASURED
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+") + text


def scientific(value: float | None) -> str:
    """Small differences: '0', '3.1e-05'."""
    if value is None:
        return NOT_MEASURED
    return "0" if value == 0 else f"{value:.1e}"


def count(value: int | None) -> str:
    return NOT_MEASURED if value is None else f"{value:,}".replace(",", "\u202f")


def ratio(value: float, base: float) -> str:
    """How many times as fast as the base, in words that cannot be read the wrong way round."""
    if not value or not base:
        return NOT_MEASURED
    if abs(base / value - 1) < 0.03:
        return "same"
    return f"{base / value:.2f}× faster" if value < base else f"{value / base:.2f}× slower"


def plural(number: int, noun: str, many: str = "") -> str:
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def size_text(height: int, width: int) -> str:
    """As cameras are sold: width × height."""
    return f"{width} × {height}"


def tiles_text(tiles: Tiles) -> str:
    """How a frame is cut."""
    number = count(tiles.most) if tiles.fewest == tiles.most else f"{count(tiles.fewest)} to {count(tiles.most)}"
    each = "tile" if tiles.most == 1 else "tiles"
    return f"each frame in {number} {each} that overlap by {tiles.overlap} pixels, {tiles.a_run} in a run of the graph"


def size_name(size_class: str) -> str:
    """A size class as it is printed."""
    return size_class.replace("px2", "px²")


def precision_name(model: Model) -> str:
    """What a row is called: the reference by its framework, the rest by precision, and by file where several share
    it."""
    name = model.precision.upper()
    return f"{name}, {model.backend}" if model.role == "reference" else f"{name} {model.variant}".rstrip()


def chosen_engine(model: Model) -> EngineFacts | None:
    """The engine whose facts stand for the model in a summary: one for SM 8.9 if built, else the last."""
    return next((e for e in model.engines if "8.9" in e.targets), model.engines[-1] if model.engines else None)
