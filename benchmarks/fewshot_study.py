"""The steps of a few-shot study, each of which leaves one JSON file: whoever finds it there goes on to the next one.

Workers share a folder and nothing else. A step is taken by a lock on a file, which the system lets go when its worker
dies, so that a run may be killed and started again at any time. Training goes on from its last whole epoch.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from irforge import files
from irforge.datasets import open_dataset
from irforge.errors import UsageError
from irforge.train.box_evaluation import find_boxes, judge_again, judged_by_name, score_boxes
from irforge.train.checkpoint import load_deployable, read_contract
from irforge.train.recipe import Recipe
from irforge.train.rescoring.encoders import Encoder, load_encoder
from irforge.train.rescoring.pcb import pcb_rescorer
from irforge.train.rescoring.support import support_boxes
from irforge.train.run import FINAL, LAST, run_training
from irforge.train.surgery import surgery

Say = Callable[[str], None]


class Variant(NamedTuple):
    """What differs from plain fine-tuning: the network, whose base stage is its own, and the losses of the few-shot
    stage."""

    network: str
    loss: dict[str, Any]


NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {"neck": False, "decouple": False},
    "neck": {"neck": True, "decouple": True},
}
VARIANTS = {
    "plain": Variant("plain", {"classification": "ce", "objectness": "bce"}),
    "ca": Variant("plain", {"classification": "ca", "objectness": "ca"}),
    "neck": Variant("neck", {"classification": "ca", "objectness": "ca"}),
    "bnrl": Variant("plain", {"classification": "bnrl", "objectness": "bce"}),
}
"""`ca` is plain fine-tuning with GLMD-CA's losses, `neck` that with its neck and gates too; `bnrl` has RISF's loss."""


LIMITS = (5, 10, 20)
"""How many boxes of a frame PCB judges, besides all of them: what a limit for real time costs."""


class Step(NamedTuple):
    """One file of the study. `shots` 0 is the base stage of a network, which `variant` names then."""

    variant: str
    shots: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.shots}shot-seed{self.seed}" if self.shots else f"base-{self.variant}"

    @property
    def network(self) -> str:
        return VARIANTS[self.variant].network if self.shots else self.variant


@dataclass(frozen=True)
class Study:
    """Base training once for each network, then a fine-tuning for each draw of K shots and each variant.

    Attributes:
        out: the folder of all files.
        base, novel: the recipes; the second one knows shots.
        test: the data to evaluate on, whose classes are those of the few-shot stage.
        shots, seeds: all K, and how many draws of each, from 0.
        pcb: judge the detections a second time by PCB with EfficientNet-Lite0: all, and the best of a frame (`LIMITS`).
    """

    out: Path
    base: Recipe
    novel: Recipe
    test: str
    shots: tuple[int, ...]
    seeds: int
    variants: tuple[str, ...]
    pcb: bool
    data_root: str | None = None

    @property
    def steps(self) -> list[Step]:
        """In the order of their use: bases first, then draw by draw, so that what is there can always be compared."""
        networks = dict.fromkeys(VARIANTS[name].network for name in self.variants)
        return [
            *(Step(network, 0, 0) for network in networks),
            *(Step(name, k, seed) for seed in range(self.seeds) for k in self.shots for name in self.variants),
        ]

    def recipe(self, step: Step) -> Recipe:
        if not step.shots:
            network = {**self.base.network, **NETWORKS[step.network]}
            return self.base.model_copy(update={"network": network})
        chosen = self.novel.with_shots(step.shots, step.seed)
        changes: dict[str, Any] = {
            "network": {**chosen.network, **NETWORKS[step.network]},
            "loss": {**chosen.loss, **VARIANTS[step.variant].loss},
            "seed": chosen.seed + step.seed,
        }
        return chosen.model_copy(update=changes)

    def key(self, step: Step) -> str:
        """What a step's figures depend on: its recipe, that of its base, and the data."""
        recipes = [self.recipe(step), self.recipe(Step(step.network, 0, 0))]
        return files.sha256_of_json([self.test, *(recipe.model_dump(mode="json") for recipe in recipes)])

    def record(self, step: Step) -> dict[str, Any] | None:
        """What a finished step wrote.

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
        """Train and evaluate one step, and write its file."""
        begin = time.perf_counter()
        folder = self.out / step.name
        resumed = (folder / LAST).is_file()
        say(f"{step.name}: {'goes on' if resumed else 'begins'}")
        start = self._start(step.network) if step.shots else None
        weights = folder / FINAL
        # Between the last epoch and the evaluation there is nothing left to train.
        if not (resumed and self._is_trained(step, folder)):
            run_training(self.recipe(step), step.name, folder, resume=resumed, data_root=self.data_root, weights=start)
        trained = time.perf_counter()
        record = self._evaluated(step, weights)
        record |= {"train_seconds": trained - begin, "evaluate_seconds": time.perf_counter() - trained}
        files.write_json(
            self._file(step, ".json"), {"step": step.name, "key": self.key(step), "resumed": resumed} | record
        )
        if step.shots:
            # Kept are the bases alone; what a fine-tuning made can be made again in minutes.
            for name in (LAST, FINAL):
                (folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def taken(self, step: Step) -> Iterator[bool]:
        """True inside where this worker has the step for itself, and it is not done yet."""
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
        return self.out / "steps" / f"{step.name}{ending}"

    def _is_trained(self, step: Step, folder: Path) -> bool:
        weights = folder / FINAL
        if not weights.is_file():
            return False
        return read_contract(weights).provenance.epochs == self.recipe(step).epochs

    def _start(self, network: str) -> Path:
        """The base weights after surgery; two workers may make them at once, and make the same."""
        path = self.out / f"start-{network}.safetensors"
        if not path.is_file():
            lines = io.StringIO()
            with contextlib.redirect_stdout(lines):
                root = None if self.data_root is None else Path(self.data_root)
                surgery("randinit", self.out / f"base-{network}" / FINAL, path, data=self.test, data_root=root)
            files.write_text(path.with_suffix(".txt"), lines.getvalue())
        return path

    def _evaluated(self, step: Step, weights: Path) -> dict[str, Any]:
        deployable, contract = load_deployable(weights)
        dataset = open_dataset(self.test, self.data_root)
        before = read_contract(self.out / f"base-{step.network}" / FINAL).output.classes
        novel = [name for name in contract.output.classes if name not in before]
        judged = judged_by_name(dataset, contract)
        found = find_boxes(deployable, contract, judged.dataset, "native")
        threshold = contract.output.score_threshold
        record: dict[str, Any] = {
            "plain": score_boxes(found, judged, contract, threshold, novel).named,
            "frames": len(dataset),
        }
        if self.pcb and novel:
            shots = open_dataset(self.recipe(step).data[0].data, self.data_root)
            support = list(support_boxes(shots, contract))
            for limit in (None, *LIMITS):
                rescorer = pcb_rescorer(_encoder(), support, contract.output.classes, judged=novel, limit=limit)
                again = judge_again(found, judged.dataset, contract, rescorer)
                record[f"pcb{limit or ''}"] = score_boxes(again, judged, contract, threshold, novel).named
        return record


class RememberingEncoder(Encoder):
    """An encoder that keeps the maps of frames: each fine-tuning is judged on the same ones."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.pad_level = encoder.pad_level
        self.seen: dict[bytes, Tensor] = {}

    def features(self, frame: Tensor) -> Tensor:
        key = hashlib.sha256(frame.numpy().tobytes()).digest()
        if key not in self.seen:
            self.seen[key] = self.encoder.features(frame)
        return self.seen[key]

    def classify(self, features: Tensor) -> Tensor:
        return self.encoder.classify(features)


_ENCODERS: list[Encoder] = []


def _encoder() -> Encoder:
    if not _ENCODERS:
        _ENCODERS.append(RememberingEncoder(load_encoder("efficientnet-lite0")[0]).eval())
    return _ENCODERS[0]


def work(study: Study, say: Say) -> None:
    """Take steps until none is left; where other workers have all that can be done now, wait for them."""
    while any(study.record(step) is None for step in study.steps):
        for step in study.steps:
            base = Step(step.network, 0, 0)
            if study.record(step) is not None or (step.shots and study.record(base) is None):
                continue
            with study.taken(step) as mine:
                if mine:
                    study.run(step, say)
                    break
        else:
            time.sleep(2)
        done = sum(study.record(step) is not None for step in study.steps)
        say(f"{done} of {len(study.steps)} steps are done")
