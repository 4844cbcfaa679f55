"""Training and validation of detectors that mark target pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from irforge.contract import InputSpec
from irforge.datasets import Dataset
from irforge.train.data.frames import load_planes
from irforge.train.data.masks import CropDataset, WholeFrames
from irforge.train.detectors.base import MaskDetector
from irforge.train.module import EpochData, TrainingModule
from irforge.train.recipe import Augment, Recipe, Stage


class MaskModule(TrainingModule):
    """Validates by IoU and nIoU; of a small split the pooled IoU can hang on one large target, nIoU does not."""

    titles: ClassVar = {"iou": "IoU", "niou": "nIoU"}
    chosen_by: ClassVar = "niou"

    def __init__(self, recipe: Recipe, detector: MaskDetector, spec: InputSpec, sources: list[str]) -> None:
        super().__init__(recipe, detector, spec, sources)
        self.detector = detector
        self.criterion = detector.loss(**recipe.loss)
        self.protocol = f"{spec.fit.kind} {recipe.input.height}x{recipe.input.width}, p > 0.5"

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        levels, target = batch
        loss = self.criterion(self.network, self.normalised(levels), target, self.current_epoch)
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(levels), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.trained.eval()
        self.counts = torch.zeros(len(self.sources), 4, dtype=torch.float64)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        levels, target, source = batch
        logits = self.detector.logits(self.trained, self.normalised(levels), self.current_epoch)
        found, true = logits > 0, target > 0.5
        inter = (found & true).flatten(1).sum(1).double().cpu()
        union = (found | true).flatten(1).sum(1).double().cpu()
        own = inter / union.clamp_min(1)
        self.counts.index_add_(0, source.cpu(), torch.stack([inter, union, own, (union > 0).double()], 1))

    def on_validation_epoch_end(self) -> None:
        counts = self.trainer.strategy.reduce(self.counts.to(self.device), reduce_op="sum").cpu()
        for metric, (part, whole) in {"iou": (0, 1), "niou": (2, 3)}.items():
            scores = counts[:, part] / counts[:, whole].clamp_min(1)
            for name, score in zip(self.sources, scores.tolist(), strict=True):
                self.log(f"{metric}/{name}", score)
            self.log(metric, float(scores.mean()), prog_bar=True)


def mask_data(
    recipe: Recipe, spec: InputSpec, train: Sequence[Dataset], held: Sequence[Dataset], workers: int
) -> EpochData:
    """Crops of the training parts and whole frames of the held ones, prepared once."""
    planes = [load_planes(part, spec) for part in train]
    shares = [source.share for source in recipe.data]

    def crops(stage: Stage, augment: Augment, epoch: int) -> CropDataset:
        return CropDataset(planes, stage.shares or shares, stage.samples, stage.crop, augment, recipe.seed, epoch)

    return EpochData(recipe, crops, WholeFrames([load_planes(part, spec) for part in held]), workers, batch=4)
