"""What the training of all detectors shares: learning rate, averaged weights, loaders; it knows no detector by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from irforge.contract import InputSpec
from irforge.train.decay import decay_groups
from irforge.train.detectors.base import Detector
from irforge.train.recipe import Augment, Recipe, Stage


class TrainingModule(pl.LightningModule):
    """Trains `network` and keeps the averaged copy `averaged` that is validated and published.

    Frames arrive as levels and pass the deployable's own normalisation. Losses run in float32 under autocast.

    Attributes:
        titles: the validation metrics that go into the contract, logged as `NAME/SOURCE`, and what tables call them.
        chosen_by: the metric, a mean over the sources, whose highest value marks the best epoch.
        protocol: how validation scores, for the contract.
        score_threshold: the contract's, as the last validation chose it.
    """

    titles: ClassVar[Mapping[str, str]]
    chosen_by: ClassVar[str]
    protocol: str
    score_threshold = 0.5

    def __init__(self, recipe: Recipe, detector: Detector, spec: InputSpec, sources: list[str]) -> None:
        super().__init__()
        self.recipe = recipe
        self.sources = sources
        self.network = detector.build(**recipe.network)
        if recipe.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if recipe.ema else None
        self.normalise = detector.deployable(self.network, spec).normalise
        if recipe.compile:
            self.network.compile()
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

    def normalised(self, levels: Tensor) -> Tensor:
        """What the network takes, of levels N x 1 x H x W."""
        frames: Tensor = self.normalise(levels)
        return frames.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else frames

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        stage, epoch = self.recipe.stage_at(self.current_epoch)
        steps = max(int(self.trainer.num_training_batches), 1)
        done = min((epoch * steps + index) / (stage.epochs * steps), 1.0)
        start, end = stage.lr
        rate = end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
        warmup, low = self.recipe.optimizer.warmup_steps, self.recipe.optimizer.warmup_start
        if self.updates < warmup:
            rate *= (self.updates + 1) / warmup if low is None else low + (1 - low) * self.updates / warmup
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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        wanted = self.recipe.optimizer
        rate = self.recipe.stages[0].lr[0]
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        if wanted.name == "adagrad":
            return torch.optim.Adagrad(parameters, rate, weight_decay=wanted.weight_decay)
        if wanted.name == "sgd":
            groups = decay_groups(self.network, wanted)
            return torch.optim.SGD(groups, rate, momentum=wanted.betas[0], weight_decay=wanted.weight_decay)
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


class EpochData(pl.LightningDataModule):
    """Loaders over frames in memory; the training loader is made anew for each epoch, with that epoch's crops.

    Of several processes each one takes every n-th sample: together they see in an update what one would.

    Args:
        crops: makes the training samples of a stage with its augmentation, for an epoch.
        held: the frames of validation.
        batch: frames of a validation batch.
        collate: makes a training batch of samples, where torch's own way does not do.
    """

    def __init__(
        self,
        recipe: Recipe,
        crops: Callable[[Stage, Augment, int], Dataset[Any]],
        held: Dataset[Any],
        workers: int,
        batch: int | None,
        collate: Callable[[Sequence[Any]], Any] | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.crops = crops
        self.held = held
        self.workers = workers
        self.batch = batch
        self.collate = collate

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        stage, _ = self.recipe.stage_at(epoch)
        crops = self.crops(stage, stage.augment or self.recipe.augment, epoch)
        whole = len(cast(Sized, crops)) // self.trainer.world_size * self.trainer.world_size
        return DataLoader(
            self._share(crops, whole),
            batch_size=stage.batch // self.trainer.world_size,
            drop_last=True,
            num_workers=self.workers,
            collate_fn=self.collate,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self._share(self.held, len(cast(Sized, self.held))), batch_size=self.batch)

    def _share(self, samples: Dataset[Any], count: int) -> Dataset[Any]:
        assert self.trainer is not None
        processes = self.trainer.world_size
        return samples if processes == 1 else Subset(samples, range(self.trainer.global_rank, count, processes))
