"""One training run: data, trainer, checkpoints, log and curve."""

from __future__ import annotations

import csv
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

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
LOG = "log.csv"
CURVE = "curve.png"


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
    """Train by a recipe; returns the best checkpoint, `out`/best.safetensors.

    `out`/last.ckpt is written after every epoch, and `resume` goes on from it exactly. With `weights`, a checkpoint of
    the same detector, the network starts from those instead of at random; nothing else is taken over.

    Raises:
        UsageError: no data named, unknown detector or options, or `out` already holds a run.
        ArtifactError: `weights` cannot be read, or are of another detector or size.
        KeyboardInterrupt: Ctrl-C; the last checkpoint is whole and can be resumed.
    """
    last = out / LAST
    if resume and not last.is_file():
        raise UsageError(f"there is no '{last}' to resume from", "Leave --resume out, or give the --out of that run")
    if not resume and last.is_file():
        raise UsageError(f"'{out}' already holds a run", "Add --resume to go on with it, or choose another --out")
    detector = find_detector(recipe.detector)
    spec = input_spec(recipe)
    train, held = open_sources(recipe.data, recipe.validation_share, data_root)
    pl.seed_everything(recipe.seed, verbose=False)
    try:
        module, data = prepared(recipe, detector, spec, train, held, workers)
    except (TypeError, ValueError) as error:
        raise UsageError(f"recipe '{recipe_name}' does not suit {detector.title}: {error}") from None
    ancestor = None if weights is None else start_from(weights, recipe.detector, module)
    base = Contract(
        input=spec,
        output=output_of(detector, 0.5, recipe.network),
        provenance=Provenance(
            detector=recipe.detector,
            network=recipe.network,
            recipe=recipe_name,
            recipe_sha256=files.sha256_of_json(recipe.model_dump(mode="json")),
            trained_on=[licensed(part.note(), source) for part, source in zip(train, recipe.data, strict=True)],
            validated_on=[part.note() for part in held],
            seed=recipe.seed,
            irforge_version=irforge.__version__,
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
        devices="auto",
        gradient_clip_val=recipe.optimizer.clip or None,
        check_val_every_n_epoch=recipe.validate_every,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
        callbacks=[keeper, TQDMProgressBar(refresh_rate=10)],
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
    return out / BEST


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
    return boxes, box_data(recipe, box_frames(train, spec, stride), held_frames, boxes, workers)


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
        UsageError: none named, a test split named, or nothing left for training or validation.
    """
    if not sources:
        raise UsageError("no training data", "Give --data NAME:SPLIT, or name it in the recipe under 'data'")
    train, held = [], []
    for source in sources:
        dataset = open_dataset(source.data, data_root, split=None)
        if source.validation:
            dataset, validation = split_validation(dataset, share)
            if len(validation):
                held.append(validation)
        if not len(dataset):
            raise UsageError(f"'{source.data}' leaves no frame to train on", "Lower 'validation_share'")
        train.append(dataset)
    if not held:
        raise UsageError("no frame is left for validation", "Raise 'validation_share', or name more data")
    return train, held


class Keeper(Callback):
    """After each epoch: one line in the log, the best weights so far, the curve, and the state to resume from."""

    def __init__(self, out: Path, contract: Contract, metric: str, title: str) -> None:
        self.out = out
        self.contract = contract
        self.metric, self.title = metric, title
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
        if metrics.get(module.chosen_by, -1.0) > self.best:
            self.best = metrics[module.chosen_by]
            if trainer.is_global_zero:
                save_checkpoint(
                    self.out / BEST, module.trained, self._contract(module, metrics, trainer.current_epoch + 1)
                )

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
