"""The few-shot study: a base stage for each network, then for each draw of K shots a fine-tuning of each variant."""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks import study
from irforge import files
from irforge.datasets import open_dataset
from irforge.train.box_evaluation import find_boxes, judge_again, judged_by_name, score_boxes
from irforge.train.checkpoint import load_deployable, read_contract
from irforge.train.recipe import Recipe
from irforge.train.rescoring.encoders import Encoder, load_encoder
from irforge.train.rescoring.pcb import pcb_rescorer
from irforge.train.rescoring.support import support_boxes
from irforge.train.run import FINAL
from irforge.train.surgery import surgery


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
class Study(study.Study[Step]):
    """See the module's first line.

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

    def is_ready(self, step: Step) -> bool:
        return not step.shots or self.record(Step(step.network, 0, 0)) is not None

    def keeps(self, step: Step) -> tuple[str, ...]:
        # What a fine-tuning made can be made again in minutes.
        return () if step.shots else (FINAL,)

    def start(self, step: Step) -> Path | None:
        """The base weights after surgery; two workers may make them at once, and make the same."""
        if not step.shots:
            return None
        network = step.network
        path = self.out / f"start-{network}.safetensors"
        if not path.is_file():
            lines = io.StringIO()
            with contextlib.redirect_stdout(lines):
                root = None if self.data_root is None else Path(self.data_root)
                surgery("randinit", self.out / f"base-{network}" / FINAL, path, data=self.test, data_root=root)
            files.write_text(path.with_suffix(".txt"), lines.getvalue())
        return path

    def measured(self, step: Step, weights: Path) -> dict[str, Any]:
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
