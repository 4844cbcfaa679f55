"""The SLS study: networks trained by the loss they were published with and by SLS, and the table of what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import study
from irforge import files
from irforge.datasets import open_dataset
from irforge.metrics.fewshot import mean_interval, paired_gain
from irforge.train.checkpoint import load_deployable
from irforge.train.evaluation import evaluate
from irforge.train.recipe import Recipe

WITHOUT: dict[str, dict[str, Any]] = {"acm": {"name": "soft-iou"}, "dna-net": {"name": "batch-iou"}}
"""The loss that each network was published with."""

WARM_SHARE = 0.5
"""Of the epochs, with the plain IoU; as published these are 5 of 400, 1,000 updates."""
SHOWN = ("IoU", "nIoU", "Pd", "Fa")


class Step(NamedTuple):
    network: str
    sls: bool
    seed: int

    @property
    def name(self) -> str:
        return f"{self.network}-{'sls' if self.sls else 'published'}-seed{self.seed}"


@dataclass(frozen=True)
class Study(study.Study[Step]):
    """Every network with its published loss and with SLS, from several seeds, in the folder `out`.

    Args:
        recipes: by the name of the network; their loss is left out of account.
        test: the data to measure on, and of them every `every`-th frame.
    """

    out: Path
    recipes: Mapping[str, Recipe]
    test: str
    every: int
    seeds: int
    data_root: str | None = None

    @property
    def steps(self) -> list[Step]:
        """Both arms of a seed come before the next seed: what there is can be compared."""
        pairs = [(seed, network) for seed in range(self.seeds) for network in self.recipes]
        return [Step(network, sls, seed) for seed, network in pairs for sls in (False, True)]

    def recipe(self, step: Step) -> Recipe:
        """The arms of a seed start from the same weights and see the same crops."""
        chosen = self.recipes[step.network]
        warm = max(round(WARM_SHARE * chosen.epochs), 1)
        loss = {"name": "sls", "warm_epochs": warm} if step.sls else WITHOUT[step.network]
        return chosen.model_copy(update={"loss": loss, "seed": chosen.seed + step.seed})

    def key(self, step: Step) -> str:
        return files.sha256_of_json([self.test, self.every, self.recipe(step).model_dump(mode="json")])

    def measured(self, step: Step, weights: Path) -> dict[str, Any]:
        deployable, contract = load_deployable(weights)
        test = open_dataset(self.test, self.data_root)
        part = test.subset(range(0, len(test), self.every), f"{test.split}/{self.every}")
        figures = evaluate(deployable, contract, part, "squash")
        return {"frames": figures.frames, "figures": figures.named}


def summary(what: Study) -> dict[str, Any]:
    """JSON-ready: mean and 95 % interval of each arm over seeds, and of the difference paired by seed."""
    records = {step: found for step in what.steps if (found := what.record(step)) is not None}
    figures = {step: found["figures"] for step, found in records.items()}
    rows = []
    for network in what.recipes:
        for sls in (False, True):
            own = [values for step, values in figures.items() if (step.network, step.sls) == (network, sls)]
            if own:
                cells = {name: mean_interval([v[name] for v in own])._asdict() for name in _shared(own)}
                rows.append({"network": network, "loss": arm(network, sls), "seeds": len(own)} | cells)
        both = [
            (figures[other], values)
            for step, values in figures.items()
            if (step.network, step.sls) == (network, True) and (other := step._replace(sls=False)) in figures
        ]
        if both:
            gains = {
                name: paired_gain([sls[name] for _, sls in both], [plain[name] for plain, _ in both])
                for name in _shared([values for pair in both for values in pair])
            }
            cells = {name: gain._asdict() for name, gain in gains.items()}
            said = study.verdict(gains["IoU"], "seed") if "IoU" in gains else ""
            rows.append({"network": network, "loss": "difference", "seeds": len(both), "verdict": said} | cells)
    frames = sorted({found["frames"] for found in records.values()})
    return {"test": what.test, "every": what.every, "frames": frames, "rows": rows}


def arm(network: str, sls: bool) -> str:
    return "sls" if sls else str(WITHOUT[network]["name"])


def markdown(found: Mapping[str, Any]) -> str:
    lines = ["| network | loss | seeds | IoU | nIoU | Pd | Fa e-6 | shown for IoU |", "|---" * 8 + "|"]
    for row in found["rows"]:
        signed = row["loss"] == "difference"
        cells = " | ".join(_interval(row.get(name), signed, 1e6 if name == "Fa" else 1) for name in SHOWN)
        lines.append(f"| {row['network']} | {row['loss']} | {row['seeds']} | {cells} | {row.get('verdict', '')} |")
    frames = ", ".join(map(str, found["frames"])) or "no"
    lines += ["", f"{found['test']}, every {found['every']}. frame: {frames} frames; mean ± 95 % (Student's t)."]
    return "\n".join(lines) + "\n"


def _shared(rows: Sequence[Mapping[str, float]]) -> list[str]:
    return [name for name in SHOWN if all(name in row for row in rows)]


def _interval(cell: Mapping[str, Any] | None, signed: bool, unit: float) -> str:
    if cell is None:
        return "-"
    digits = 3 if unit == 1 else 1
    mean = f"{unit * cell['mean']:{'+' if signed else ''}.{digits}f}"
    return mean if cell["half"] is None else f"{mean} ± {unit * cell['half']:.{digits}f}"
