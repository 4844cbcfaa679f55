"""Training and validation of detectors that give boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from irforge.contract import Contract, InputSpec, Provenance
from irforge.datasets import Dataset
from irforge.metrics.boxes import BoxMetrics, best_threshold
from irforge.train.box_evaluation import detect
from irforge.train.data.boxes import BoxCrops, WholeBoxFrames, collate
from irforge.train.data.frames import BoxFrames, load_box_frames
from irforge.train.detectors.base import BoxBatch, BoxDetector, output_of
from irforge.train.evaluation import protocol_spec
from irforge.train.module import EpochData, TrainingModule
from irforge.train.recipe import Augment, Recipe, Stage


class BoxModule(TrainingModule):
    """Validates by COCO's AP50 and by F1 at IoU 0.5, at the score threshold whose F1 over all sources is best."""

    titles: ClassVar = {"ap50": "AP50", "f1": "F1 at IoU 0.5"}
    chosen_by: ClassVar = "ap50"

    def __init__(
        self, recipe: Recipe, detector: BoxDetector, spec: InputSpec, sources: list[str], held: Sequence[BoxFrames]
    ) -> None:
        super().__init__(recipe, detector, spec, sources)
        self.criterion = detector.loss(**recipe.loss)
        self.held = held
        # In a list, so that it is no second copy of the network in the module's state.
        self.deployed = [detector.deployable(self.trained, spec)]
        output = output_of(detector, 0.0, recipe.network)
        self.contract = Contract(input=spec, output=output, provenance=Provenance(detector=detector.name))
        self.protocol = f"{spec.fit.kind}, in frame pixels, best threshold on these frames"

    def training_step(self, batch: tuple[Tensor, BoxBatch], index: int) -> Tensor:
        levels, truth = batch
        terms = self.criterion(self.network, self.normalised(levels), truth, self.current_epoch)
        loss = torch.stack(list(terms.values())).sum()
        for name, term in {"loss": loss, **{f"loss/{name}": term for name, term in terms.items()}}.items():
            shown = name == "loss"
            self.log(name, term, on_step=False, on_epoch=True, prog_bar=shown, batch_size=len(levels), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.deployed[0].eval()
        self.metrics = [BoxMetrics(part.classes, threshold=0.0) for part in self.held]

    def validation_step(self, batch: tuple[Tensor, int, int], index: int) -> None:
        levels, source, number = batch
        frame = self.held[source].frames[number]
        found = detect(self.deployed[0], self.contract, levels, frame.geometry)
        size = (frame.geometry.frame_height, frame.geometry.frame_width)
        self.metrics[source].update(found, frame.truth, size)

    def on_validation_epoch_end(self) -> None:
        parts = self._of_all_processes()
        together = BoxMetrics(self.held[0].classes, threshold=0.0)
        for part in parts:
            together.merge(part)
        self.score_threshold = best_threshold(together)
        scores: dict[str, list[float]] = {name: [] for name in self.titles}
        for name, part in zip(self.sources, parts, strict=True):
            result = part.at(self.score_threshold).result()
            for metric, value in (("ap50", result.ap50), ("f1", result.iou50.f1)):
                scores[metric].append(value or 0.0)
                self.log(f"{metric}/{name}", value or 0.0)
        for metric, values in scores.items():
            self.log(metric, float(np.mean(values)), prog_bar=True)
        self.log("threshold", self.score_threshold)

    def _of_all_processes(self) -> list[BoxMetrics]:
        if self.trainer.world_size == 1:
            return self.metrics
        gathered: list[list[BoxMetrics]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(gathered, self.metrics)
        for others in gathered[1:]:
            for mine, other in zip(gathered[0], others, strict=True):
                mine.merge(other)
        return gathered[0]


def box_frames(parts: Sequence[Dataset], spec: InputSpec, stride: int, on_disk: bool = False) -> list[BoxFrames]:
    """The parts' frames, prepared; at their own size, padded to the stride, where nothing is resized."""
    chosen = protocol_spec(spec, "native", stride) if spec.fit.kind == "pad-to-multiple" else spec
    return [load_box_frames(part, chosen, on_disk) for part in parts]


def box_data(
    recipe: Recipe, train: Sequence[BoxFrames], held: Sequence[BoxFrames], module: BoxModule, workers: int
) -> EpochData:
    """Crops of the training frames and the held frames as they are."""
    shares = [source.share for source in recipe.data]

    def crops(stage: Stage, augment: Augment, epoch: int) -> BoxCrops:
        return BoxCrops(
            train,
            stage.shares or shares,
            stage.samples,
            stage.crop,
            augment,
            recipe.seed,
            epoch,
            module.criterion,
        )

    return EpochData(recipe, crops, WholeBoxFrames(held), workers, batch=None, collate=collate)
