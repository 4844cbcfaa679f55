"""The runs of the SLS study, each of which leaves one JSON file, and the table of what there is.

Workers share a folder and nothing else. A run is taken by a lock on a file, which the system lets go when its worker
dies; training goes on from its last whole epoch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from irforge import files
from irforge.datasets import open_dataset
from irforge.errors import UsageError
from irforge.metrics.fewshot import Interval, mean_interval, paired_gain
from irforge.train.checkpoint import load_deployable, read_contract
from irforge.train.evaluation import evaluate
from irforge.train.recipe import Recipe
from irforge.train.run import FINAL, LAST, run_training

Say = Callable[[str], None]

WITHOUT: dict[str, dict[str, Any]] = {"acm": {"name": "soft-iou"}, "dna-net": {"name": "batch-iou"}}
"""The loss that each network was published with."""

WITH: dict[str, Any] = {"name": "sls", "warm_epochs": 1}
SHOWN = ("IoU", "nIoU", "Pd", "Fa")


class Step(NamedTuple):
    network: str
    sls: bool
    seed: int

    @property
    def name(self) -> str:
        return f"{self.network}-{'sls' if self.sls else 'published'}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
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
        loss = WITH if step.sls else WITHOUT[step.network]
        return chosen.model_copy(update={"loss": loss, "seed": chosen.seed + step.seed})

    def key(self, step: Step) -> str:
        return files.sha256_of_json([self.test, self.every, self.recipe(step).model_dump(mode="json")])

    def record(self, step: Step) -> dict[str, Any] | None:
        """What a finished run wrote.

        Raises:
            UsageError: it was made by another recipe or on other data.
        """
        path = self._file(step, ".json")
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_bytes())
        if found["key"] != self.key(step):
            raise UsageError(
                f"'{path}' was made by another recipe or for other data", "Choose another folder with --out"
            )
        return found

    def run(self, step: Step, say: Say) -> None:
        """Train and measure, and write the run's file."""
        begin = time.perf_counter()
        folder = self.out / step.name
        resumed = (folder / LAST).is_file()
        say(f"{step.name}: {'goes on' if resumed else 'begins'}")
        weights = folder / FINAL
        # Between the last epoch and the measurement there is nothing left to train.
        if not (resumed and self._is_trained(step, weights)):
            run_training(self.recipe(step), step.name, folder, resume=resumed, data_root=self.data_root)
        trained = time.perf_counter()
        deployable, contract = load_deployable(weights)
        test = open_dataset(self.test, self.data_root)
        part = test.subset(range(0, len(test), self.every), f"{test.split}/{self.every}")
        figures = evaluate(deployable, contract, part, "squash")
        record = {"step": step.name, "key": self.key(step), "resumed": resumed, "frames": figures.frames}
        record |= {"figures": figures.named}
        record |= {"train_seconds": trained - begin, "evaluate_seconds": time.perf_counter() - trained}
        files.write_json(self._file(step, ".json"), record)
        (folder / LAST).unlink(missing_ok=True)

    @contextlib.contextmanager
    def taken(self, step: Step) -> Iterator[bool]:
        """True inside where this worker has the run for itself, and it is not done yet."""
        path = self._file(step, ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield self.record(step) is None

    def _file(self, step: Step, ending: str) -> Path:
        return self.out / "runs" / f"{step.name}{ending}"

    def _is_trained(self, step: Step, weights: Path) -> bool:
        return weights.is_file() and read_contract(weights).provenance.epochs == self.recipe(step).epochs


def work(study: Study, say: Say) -> None:
    """Take runs until none is left; where other workers have all that can be done now, wait for them."""
    while any(study.record(step) is None for step in study.steps):
        for step in study.steps:
            if study.record(step) is not None:
                continue
            with study.taken(step) as mine:
                if mine:
                    study.run(step, say)
                    break
        else:
            time.sleep(2)
        say(f"{sum(study.record(step) is not None for step in study.steps)} of {len(study.steps)} runs are done")


def summary(study: Study) -> dict[str, Any]:
    """JSON-ready: mean and 95 % interval of each arm over seeds, and of the difference paired by seed."""
    records = {step: found for step in study.steps if (found := study.record(step)) is not None}
    figures = {step: found["figures"] for step, found in records.items()}
    rows = []
    for network in study.recipes:
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
            said = verdict(gains["IoU"]) if "IoU" in gains else ""
            rows.append({"network": network, "loss": "difference", "seeds": len(both), "verdict": said} | cells)
    frames = sorted({found["frames"] for found in records.values()})
    return {"test": study.test, "every": study.every, "frames": frames, "rows": rows}


def arm(network: str, sls: bool) -> str:
    return str((WITH if sls else WITHOUT[network])["name"])


def verdict(gain: Interval) -> str:
    """What an interval supports: `gain` or `loss` where 0 lies outside, else nothing."""
    if gain.half is None:
        return "one seed shows nothing"
    return "gain" if gain.is_above(0) else "loss" if gain.is_below(0) else "not shown"


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
