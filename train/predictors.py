"""The predictors of a two-stage detector, when its classes change: taken out, or widened by rows for new classes.

Both work on a state dict and lists of class names alone. The classifier has a row for each class and one for the
background, which is the last; the regressor has four rows for each class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from irforge.contract import Contract
from irforge.errors import ArtifactError, UsageError
from irforge.train.checkpoint import load_deployable, read_contract

CLASSIFIER = "roi_heads.box_predictor.cls_score"
REGRESSOR = "roi_heads.box_predictor.bbox_pred"
PREDICTORS = tuple(f"{layer}.{kind}" for layer in (CLASSIFIER, REGRESSOR) for kind in ("weight", "bias"))

_COUNTER = ".num_batches_tracked"
_STD = 0.01
"""Standard deviation of new weights: TFA's (Wang et al., ICML 2020), for both layers; new biases are 0."""


class Row(NamedTuple):
    """What became of one tensor; `shape` is its new one, or that of what is gone."""

    name: str
    shape: tuple[int, ...]
    fate: Literal["kept", "dropped", "created"]
    note: str = ""


class Surgery(NamedTuple):
    """New weights, and a row for each tensor there was or is."""

    weights: dict[str, Tensor]
    rows: list[Row]


def remove_predictors(weights: Mapping[str, Tensor], classes: Sequence[str]) -> Surgery:
    """Drop the four tensors of the predictors; all others stay as they are.

    Args:
        classes: those the weights were trained for, without the background.

    Raises:
        ArtifactError: the weights have no predictors, or predictors of another number of classes.
    """
    _check(weights, classes)
    kept = {name: tensor for name, tensor in weights.items() if name not in PREDICTORS}
    rows = [Row(n, tuple(t.shape), "kept" if n in kept else "dropped") for n, t in weights.items()]
    return Surgery(kept, rows)


def widen_predictors(weights: Mapping[str, Tensor], old: Sequence[str], new: Sequence[str], seed: int = 0) -> Surgery:
    """Make predictors of the classes `new`: rows of classes that are in `old` too are kept, by name, and so is the
    background's, which moves to the end; the others are drawn at random.

    Raises:
        ArtifactError: the weights have no predictors, or predictors of another number of classes than `old`.
        UsageError: a class in `new` twice, or no class in both lists.
    """
    _check(weights, old)
    if len(set(new)) < len(new):
        raise UsageError("a new class is named twice", "Name every class once")
    shared = [name for name in new if name in old]
    if not shared:
        raise UsageError(
            f"none of the new classes is known to the weights; they know {', '.join(old)}",
            "Take the predictors out instead ('remove')",
        )
    stays, goes = [old.index(name) for name in shared], [new.index(name) for name in shared]
    generator = torch.Generator().manual_seed(seed)
    note = f"{len(shared)} classes kept, {len(new) - len(shared)} new, {len(old) - len(shared)} gone"
    changed: dict[str, Tensor] = {}
    notes: dict[str, str] = {}
    for layer, group, before, after in (
        (CLASSIFIER, 1, [*stays, len(old)], [*goes, len(new)]),
        (REGRESSOR, 4, stays, goes),
    ):
        for kind in ("weight", "bias"):
            name = f"{layer}.{kind}"
            source = weights[name].unflatten(0, (-1, group))
            shape = (len(new) + (layer == CLASSIFIER), *source.shape[1:])
            made = torch.zeros(shape) if kind == "bias" else torch.randn(shape, generator=generator) * _STD
            made = made.to(source.dtype)
            made[after] = source[before]
            changed[name] = made.flatten(0, 1)
            notes[name] = f"{note}; background {len(old)} -> {len(new)}" if layer == CLASSIFIER else note
    rows: list[Row] = []
    for name, tensor in weights.items():
        if name in changed:
            rows.append(Row(name, tuple(tensor.shape), "dropped"))
            rows.append(Row(name, tuple(changed[name].shape), "created", notes[name]))
        else:
            rows.append(Row(name, tuple(tensor.shape), "kept"))
    return Surgery({name: changed.get(name, tensor) for name, tensor in weights.items()}, rows)


def starting_weights(
    path: Path, fresh: Mapping[str, Tensor], classes: Sequence[str] | None
) -> tuple[dict[str, Tensor], Contract]:
    """What training goes on from: a checkpoint's weights and its contract.

    Args:
        fresh: the state of the network to train; where surgery took the predictors out, its own are used.
        classes: what the network is to tell apart; None where the detector leaves no choice.

    Raises:
        InputError, ArtifactError: as `load_deployable`.
        ArtifactError: the checkpoint is for other classes, or for these in another order.
    """
    contract = read_contract(path) if path.suffix == ".safetensors" else None
    if contract is not None and _last_step(contract) == ("surgery", "remove"):
        from safetensors.torch import load_file

        kept = {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
        weights = {**kept, **{name: fresh[name] for name in PREDICTORS if name in fresh}}
    else:
        deployable, contract = load_deployable(path)
        weights = dict(deployable.network.state_dict())
    # How many batches norms have seen is no weight: frozen norms, which do not count, start from learnt ones.
    weights = {name: t for name, t in weights.items() if name in fresh or not name.endswith(_COUNTER)}
    weights |= {name: t for name, t in fresh.items() if name.endswith(_COUNTER) and name not in weights}
    known = contract.output.classes
    if classes and "classes" in contract.provenance.network and list(classes) != known:
        raise ArtifactError(
            f"checkpoint '{path}' is for the classes {', '.join(known)}, the recipe for {', '.join(classes)}",
            "'irforge surgery' gives it predictors for other classes",
        )
    return weights, contract


def _last_step(contract: Contract) -> tuple[str | None, str | None]:
    last = contract.provenance.history[-1] if contract.provenance.history else {}
    return last.get("tool"), last.get("how")


def _check(weights: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    missing = [name for name in PREDICTORS if name not in weights]
    if missing:
        raise ArtifactError(
            f"the weights have no '{missing[0]}'", "Surgery is for two-stage detectors that still have their predictors"
        )
    for layer, rows in ((CLASSIFIER, len(classes) + 1), (REGRESSOR, 4 * len(classes))):
        for kind in ("weight", "bias"):
            found = len(weights[f"{layer}.{kind}"])
            if found != rows:
                raise ArtifactError(
                    f"'{layer}.{kind}' has {found} rows, and {len(classes)} classes make {rows}",
                    "The weights do not belong to their contract: use the checkpoint as it was written",
                )
