"""One training run: data, trainer, checkpoints, log and curve.

Under torchrun every process calls `run_training`, and they train one network together; the first one alone writes.
"""

from __future__ import annotations

import csv
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.strategies import DDPStrategy

import irforge
from irforge import files
from irforge.contract import (
    Contract,
    DataNote,
    Fit,
    InputSpec,
    Letterbox,
    Metric,
    Normalization,
    PadToMultiple,
    Provenance,
    Squash,
)
from irforge.datasets import Dataset, open_dataset
from irforge.errors import ArtifactError, UsageError
from irforge.train.checkpoint import save_checkpoint
from irforge.train.data.frames import split_validation
from irforge.train.detectors.base import BoxDetector, Detector, MaskDetector, output_of
from irforge.train.detectors.registry import find_detector
from irforge.train.module import EpochData, TrainingModule
from irforge.train.predictors import starting_weights
from irforge.train.recipe import Recipe, Source

LAST = "last.ckpt"
BEST = "best.safetensors"
FINAL = "last.safetensors"
LOG = "log.csv"
CURVE = "curve.png"
OF_THE_DATA = "data"


def input_spec(recipe: Recipe) -> InputSpec:
    """The contract's input of a detector trained by this recipe."""
    wanted = recipe.input
    fits: dict[str, Fit] = {"squash": Squash(), "letterbox": Letterbox(), "pad-to-multiple": PadToMultiple(multiple=1)}
    return InputSpec(
        height=wanted.height,
        width=wanted.width,
        colour=wanted.colour,
        fit=fits[wanted.fit],
        pad_level=float(round(wanted.mean)),
        normalization=Normalization(mean=wanted.mean, std=wanted.std),
    )


def run_training(
    recipe: Recipe,
    recipe_name: str,
    out: Path,
    resume: bool = False,
    workers: int = 0,
    data_root: str | None = None,
    weights: Path | None = None,
) -> Path:
    """Train by a recipe; returns the best checkpoint, `out`/best.safetensors, or without validation the last epoch's,
    `out`/last.safetensors.

    `out`/last.ckpt is written after every epoch, and `resume` goes on from it exactly. With `weights`, a checkpoint of
    the same detector, the network starts from those instead of at random; nothing else is taken over.

    Raises:
        UsageError: no data named, unknown detector or options, batches that cannot be filled or shared by the
            processes, or `out` already holds a run.
        ArtifactError: `weights` cannot be read, or are of another detector or size.
        KeyboardInterrupt: Ctrl-C; the last checkpoint is whole and can be resumed.
    """
    if not recipe.stages:
        recipe.with_shots(None)
    last = out / LAST
    if resume and not last.is_file():
        raise UsageError(f"there is no '{last}' to resume from", "Leave --resume out, or give the --out of that run")
    if not resume and last.is_file():
        raise UsageError(f"'{out}' already holds a run", "Add --resume to go on with it, or choose another --out")
    detector = find_detector(recipe.detector)
    spec = input_spec(recipe)
    train, held = open_sources(recipe.data, recipe.validation_share, data_root)
    written, recipe = recipe, with_classes_of_data(recipe, train)
    nodes, devices = launched()
    require_full_batches(recipe, sum(map(len, train)), sum(map(len, held)), nodes * devices)
    pl.seed_everything(recipe.seed, verbose=False)
    try:
        module, data = prepared(recipe, detector, spec, train, held, workers)
    except (TypeError, ValueError) as error:
        raise UsageError(f"recipe '{recipe_name}' does not suit {detector.title}: {error}") from None
    module.score_threshold = recipe.score_threshold
    ancestor = None if weights is None else start_from(weights, recipe.detector, module)
    base = Contract(
        input=spec,
        output=output_of(detector, recipe.score_threshold, recipe.network),
        provenance=Provenance(
            detector=recipe.detector,
            network=recipe.network,
            recipe=recipe_name,
            recipe_sha256=files.sha256_of_json(written.model_dump(mode="json")),
            trained_on=[licensed(part.note(), source) for part, source in zip(train, recipe.data, strict=True)],
            validated_on=[part.note() for part in held],
            seed=recipe.seed,
            irforge_version=irforge.__version__,
            history=[] if ancestor is None else ancestor.history,
        ),
    )
    if ancestor is not None and weights is not None:
        base = base.with_step(
            "fit",
            started_from=weights.name,
            weights_sha256=files.sha256_of_file(weights),
            recipe=ancestor.recipe,
            recipe_sha256=ancestor.recipe_sha256,
            epochs=ancestor.epochs,
            trained_on=[f"{note.name}:{note.split}" for note in ancestor.trained_on],
        )
    metric, title = next(iter(module.titles.items()))
    keeper = Keeper(out, base, metric, title)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = pl.Trainer(
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        accelerator="auto",
        devices=devices,
        num_nodes=nodes,
        # Heads that an epoch leaves out have no gradient. Running statistics are evened out once an epoch instead.
        strategy=DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if nodes * devices > 1 else "auto",
        use_distributed_sampler=False,
        gradient_clip_val=recipe.optimizer.clip or None,
        check_val_every_n_epoch=recipe.validate_every,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if held else 0,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
        callbacks=[EvenStatistics(), keeper, TQDMProgressBar(refresh_rate=10)],
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        trainer.fit(module, data, ckpt_path=str(last) if resume else None, weights_only=True)
    except SystemExit:
        # Lightning ends the program on Ctrl-C and on SIGTERM; here the caller decides.
        raise KeyboardInterrupt from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return keeper.kept


def launched() -> tuple[int, int]:
    """(nodes, processes of each): as torchrun says, else one node with a process for each GPU, or one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 1, max(torch.cuda.device_count(), 1)
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return int(os.environ["WORLD_SIZE"]) // here, here


def require_full_batches(recipe: Recipe, frames: int, held: int, processes: int) -> None:
    """Raises UsageError if a stage has not one whole batch, or the processes cannot share batches or validation."""
    for number, stage in enumerate(recipe.stages, 1):
        where = f"batch {stage.batch} of stage {number}"
        if (stage.samples or frames) < stage.batch:
            raise UsageError(
                f"{where} is more than the {stage.samples or frames} samples of an epoch, which would train nothing",
                "Set 'samples' of the stage, or a smaller batch",
            )
        if stage.batch % processes:
            raise UsageError(
                f"{where} cannot be shared by {processes} processes",
                "A batch is that of all processes together: choose a multiple of their number",
            )
    if 0 < held < processes:
        raise UsageError(
            f"{held} frames for validation cannot be shared by {processes} processes", "Raise 'validation_share'"
        )


def with_classes_of_data(recipe: Recipe, parts: Sequence[Dataset]) -> Recipe:
    """The recipe with the data's classes where it says `classes: data`.

    Raises:
        UsageError: parts of the data have different classes.
    """
    if recipe.network.get("classes") != OF_THE_DATA:
        return recipe
    names = parts[0].classes
    for part in parts[1:]:
        if part.classes != names:
            raise UsageError(
                f"'{parts[0].name}' has the classes {', '.join(names)}, '{part.name}' {', '.join(part.classes)}",
                "Choose the same ones in the same order with '@', or name them under 'network: classes'",
            )
    return recipe.model_copy(update={"network": {**recipe.network, "classes": list(names)}})


def prepared(
    recipe: Recipe,
    detector: Detector,
    spec: InputSpec,
    train: Sequence[Dataset],
    held: Sequence[Dataset],
    workers: int,
) -> tuple[TrainingModule, EpochData]:
    """What is trained and what it is trained on, by what the detector gives: a mask or boxes."""
    if detector.target == "mask":
        from irforge.train.mask_module import MaskModule, mask_data

        module = MaskModule(recipe, cast(MaskDetector, detector), spec, [part.name for part in held])
        return module, mask_data(recipe, spec, train, held, workers)
    from irforge.train.box_module import BoxModule, box_data, box_frames

    require_classes(recipe, (*train, *held))
    stride = detector.deployable(detector.build(**recipe.network), spec).stride
    held_frames = box_frames(held, spec, stride)
    names = [part.name for part in held]
    boxes = BoxModule(recipe, cast(BoxDetector, detector), spec, names, held_frames)
    frames = box_frames(train, spec, stride, on_disk=recipe.frames == "disk")
    return boxes, box_data(recipe, frames, held_frames, boxes, workers)


def require_classes(recipe: Recipe, parts: Sequence[Dataset]) -> None:
    """Raises UsageError if the recipe names several classes that are not the data's, in its order."""
    names = list(recipe.network.get("classes", ()))
    for part in parts:
        if names and names != list(part.classes) and len(names) + len(part.classes) > 2:
            raise UsageError(
                f"the recipe's classes are {', '.join(names)}, those of '{part.name}' {', '.join(part.classes)}",
                "Name the same ones in the same order under 'network: classes'",
            )


def start_from(weights: Path, detector: str, module: TrainingModule) -> Provenance:
    """Put the weights of a checkpoint into the module's networks; returns where they come from."""
    found, contract = starting_weights(weights, module.network.state_dict(), module.recipe.network.get("classes"))
    if contract.provenance.detector != detector:
        raise ArtifactError(
            f"checkpoint '{weights}' is of detector '{contract.provenance.detector}', the recipe trains '{detector}'",
            "Start from a checkpoint of the same detector",
        )
    try:
        module.start_from(found)
    except RuntimeError:
        raise ArtifactError(
            f"the weights in '{weights}' do not fit the recipe's network options",
            f"They were trained with {contract.provenance.network}",
        ) from None
    return contract.provenance


def licensed(note: DataNote, source: Source) -> DataNote:
    """The note with the licence that the recipe states, where it states one."""
    return note.model_copy(update={"licence": source.licence}) if source.licence else note


def open_sources(sources: Sequence[Source], share: float, data_root: str | None) -> tuple[list[Dataset], list[Dataset]]:
    """(training parts, validation parts) of the named datasets.

    Raises:
        UsageError: none named, or nothing left for training, or for the validation that is wanted.
    """
    if not sources:
        raise UsageError("no training data", "Give --data NAME:SPLIT, or name it in the recipe under 'data'")
    train, held = [], []
    for source in sources:
        dataset = open_dataset(source.data, data_root, split=None)
        if source.validation and share:
            dataset, validation = split_validation(dataset, share)
            if len(validation):
                held.append(validation)
        if not len(dataset):
            raise UsageError(f"'{source.data}' leaves no frame to train on", "Lower 'validation_share'")
        train.append(dataset)
    if share and not held:
        raise UsageError(
            "no frame is left for validation", "Raise 'validation_share', name more data, or set the share to 0"
        )
    return train, held


class EvenStatistics(Callback):
    """Where several processes train, their running statistics become the mean of all, before they are used or kept."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))

    on_train_epoch_end = on_validation_epoch_start


class Keeper(Callback):
    """After each epoch: one line in the log, the best weights so far (or, without validation, those there are), the
    curve, and the state to resume from."""

    def __init__(self, out: Path, contract: Contract, metric: str, title: str) -> None:
        self.out = out
        self.contract = contract
        self.metric, self.title = metric, title
        self.validates = bool(contract.provenance.validated_on)
        self.kept = out / (BEST if self.validates else FINAL)
        self.rows: list[dict[str, Any]] = []
        self.best = -1.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.best = state["rows"], state["best"]

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        self._note(trainer, module)
        if not trainer.is_global_zero:
            # Gathering the state is a joint act of all processes; only the first one writes.
            trainer.save_checkpoint(self.out / LAST, weights_only=False)
            return
        self._write_log()
        with files.replacing(self.out / LAST) as temporary:
            trainer.save_checkpoint(temporary, weights_only=False)

    def _note(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        stage, _ = module.recipe.stage_at(trainer.current_epoch)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if (trainer.current_epoch + 1) % module.recipe.validate_every:
            metrics = {name: value for name, value in metrics.items() if name.startswith("loss")}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch + 1, "updates": module.updates, "crop": stage.crop, "lr": rate, **metrics}
        self.rows.append(row)
        if self.validates and metrics.get(module.chosen_by, -1.0) <= self.best:
            return
        self.best = metrics.get(module.chosen_by, self.best)
        if trainer.is_global_zero:
            save_checkpoint(self.kept, module.trained, self._contract(module, metrics, trainer.current_epoch + 1))

    def _contract(self, module: TrainingModule, metrics: dict[str, float], epochs: int) -> Contract:
        measured = [
            Metric(
                name=title,
                value=metrics[f"{name}/{note.name}"],
                data=f"{note.name}:{note.split}",
                frames=note.frames,
                protocol=module.protocol,
            )
            for note in self.contract.provenance.validated_on
            for name, title in module.titles.items()
        ]
        output = self.contract.output.model_copy(update={"score_threshold": module.score_threshold})
        contract = self.contract.model_copy(update={"output": output})
        return contract.with_provenance(epochs=epochs, metrics=measured)

    def _write_log(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with files.replacing(self.out / LOG) as temporary, open(temporary, "w", newline="") as handle:
            writer = csv.DictWriter(handle, names, restval="")
            writer.writeheader()
            writer.writerows(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in self.rows
            )
        draw_curve(self.rows, self.out / CURVE, self.metric, self.title)


def draw_curve(rows: Sequence[dict[str, Any]], path: Path, metric: str, title: str) -> None:
    """Loss and a validation metric of each source over updates, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    upper.plot([row["updates"] for row in rows], [row.get("loss") for row in rows], color="black")
    upper.set_ylabel("loss")
    for name in dict.fromkeys(key for row in rows for key in row if key.startswith(f"{metric}/")):
        points = [(row["updates"], row[name]) for row in rows if name in row]
        lower.plot(*zip(*points, strict=True), marker=".", label=name.removeprefix(f"{metric}/"))
    lower.set_ylabel(f"validation {title}")
    lower.set_xlabel("updates")
    if lower.get_legend_handles_labels()[0]:
        lower.legend()
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot.close(figure)
