"""The Lightning module and data module of mask detectors; they know no detector by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from irforge.train.data.frames import Planes
from irforge.train.data.masks import CropDataset, WholeFrames
from irforge.train.detectors.base import MaskDetector
from irforge.train.recipe import Recipe


class MaskModule(pl.LightningModule):
    """Trains `network` and keeps the averaged copy `averaged` that is validated and published.

    Frames arrive as levels and are normalised here, as the deployable does it. Losses run in float32 under autocast.
    """

    def __init__(self, recipe: Recipe, detector: MaskDetector, sources: list[str]) -> None:
        super().__init__()
        self.recipe = recipe
        self.detector = detector
        self.sources = sources
        self.network = detector.build(**recipe.network)
        if recipe.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if recipe.ema else None
        if recipe.compile:
            self.network.compile()
        self.criterion = detector.loss(**recipe.loss)
        self.updates = 0

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of a network of the same options; RuntimeError if they do not fit."""
        for network in (self.network, self.averaged):
            if network is not None:
                network.load_state_dict(weights)

    @property
    def trained(self) -> nn.Module:
        """The network whose weights count: the averaged one where there is one."""
        return self.network if self.averaged is None else self.averaged

    def _normalised(self, levels: Tensor) -> Tensor:
        frames = (levels - self.recipe.input.mean) / self.recipe.input.std
        frames = frames.expand(-1, int(self.recipe.network.get("in_channels", 3)), -1, -1)
        return frames.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else frames

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        levels, target = batch
        loss = self.criterion(self.network, self._normalised(levels), target, self.current_epoch)
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(levels))
        return loss

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        stage, epoch = self.recipe.stage_at(self.current_epoch)
        steps = max(int(self.trainer.num_training_batches), 1)
        done = min((epoch * steps + index) / (stage.epochs * steps), 1.0)
        start, end = stage.lr
        rate = end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
        warmup = self.recipe.optimizer.warmup_steps
        if self.updates < warmup:
            rate *= (self.updates + 1) / warmup
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        self.updates += 1
        if self.averaged is None:
            return
        # A young average would be mostly the random start, so its memory grows with its age.
        stage, _ = self.recipe.stage_at(self.current_epoch)
        decay = self.recipe.ema if stage.ema is None else stage.ema
        keep = min(decay, (1 + self.updates) / (10 + self.updates))
        old = [t for t in self.averaged.state_dict().values() if t.is_floating_point()]
        new = [t.detach() for t in self.network.state_dict().values() if t.is_floating_point()]
        torch._foreach_lerp_(old, new, 1 - keep)

    def on_validation_epoch_start(self) -> None:
        self.trained.eval()
        self.counts = torch.zeros(len(self.sources), 4, dtype=torch.float64)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        levels, target, source = batch
        logits = self.detector.logits(self.trained, self._normalised(levels), self.current_epoch)
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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        wanted = self.recipe.optimizer
        rate = self.recipe.stages[0].lr[0]
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        if wanted.name == "adagrad":
            return torch.optim.Adagrad(parameters, rate, weight_decay=wanted.weight_decay)
        if wanted.name == "sgd":
            return torch.optim.SGD(parameters, rate, momentum=wanted.betas[0], weight_decay=wanted.weight_decay)
        family = torch.optim.AdamW if wanted.name == "adamw" else torch.optim.Adam
        # Gates and norms are what weight decay harms in a network this small; only kernels are decayed.
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": wanted.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return family(groups, lr=rate, betas=wanted.betas)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["updates"] = self.updates

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.updates = checkpoint["updates"]


class MaskData(pl.LightningDataModule):
    """Loaders over frames in memory; the training loader is made anew for each epoch, with that epoch's crops."""

    def __init__(
        self, recipe: Recipe, train: list[Planes], shares: list[float], held: list[Planes], workers: int
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.train = train
        self.shares = shares
        self.held = held
        self.workers = workers

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        stage, _ = self.recipe.stage_at(epoch)
        augment = stage.augment or self.recipe.augment
        crops = CropDataset(
            self.train, stage.shares or self.shares, stage.samples, stage.crop, augment, self.recipe.seed, epoch
        )
        return DataLoader(crops, batch_size=stage.batch, drop_last=True, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(WholeFrames(self.held), batch_size=4)
