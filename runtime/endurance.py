"""What a reader should not miss of minutes on end: a model that slows down, a device that is held back."""

from __future__ import annotations

from collections.abc import Sequence

from irforge.runtime.report.schema import Finding, Model
from irforge.runtime.report.times import Readings
from irforge.runtime.report.wording import precision_name, size_text

# Less is the difference of two runs of the same file.
_SLOWER = 0.05
_FEW_CALLS = 100


def endurance(models: Sequence[Model], readings: Sequence[Readings]) -> list[Finding]:
    """Cautions about slowing down and about clocks held back by heat or by the power limit."""
    found = []
    for model in models:
        kept = model.sustained
        if kept is None:
            continue
        # With few calls a window's p99 is its slowest one, of which nothing follows.
        counts = all(window.n >= _FEW_CALLS for window in kept.windows)
        drifts = [("p50", kept.p50_drift), ("p99", kept.p99_drift if counts else None)]
        slower = [f"{name} by {100 * drift:.0f} %" for name, drift in drifts if drift is not None and drift > _SLOWER]
        if slower:
            name = f"{precision_name(model)} at {size_text(model.height, model.width)}"
            text = f"{name} slows down over {kept.seconds:.0f} s without a pause: {', '.join(slower)}."
            found.append(Finding(level="caution", text=text))
    everything = [*readings, *(one for model in models if model.sustained for one in model.sustained.readings)]
    for one in everything:
        reasons = [
            f"{r.name.removeprefix('held back ')} {r.mean:.0f} %" for r in one.readings if _holds_back(r.name, r.mean)
        ]
        if reasons:
            text = f"{one.source} held its clocks back ({one.during}): {', '.join(reasons)} of the time."
            found.append(Finding(level="caution", text=text))
    return found


def _holds_back(name: str, share: float) -> bool:
    return name.startswith("held back") and share > 0
