"""Promises of model surgery: what is kept is kept bit by bit, rows go by the names of their classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from irforge.contract import (
    METADATA_KEY,
    Contract,
    InputSpec,
    Metric,
    Normalization,
    OutputSpec,
    Provenance,
    Squash,
    TensorSpec,
)
from irforge.datasets.classes import COCO, GROUPS
from irforge.errors import ArtifactError, UsageError
from irforge.train.checkpoint import load_deployable, read_contract, save_checkpoint
from irforge.train.detectors.base import output_of
from irforge.train.detectors.registry import find_detector
from irforge.train.predictors import (
    CLASSIFIER,
    PREDICTORS,
    REGRESSOR,
    remove_predictors,
    starting_weights,
    widen_predictors,
)
from irforge.train.surgery import surgery

BASE = GROUPS["coco-base"]


def weights_of(classes: int, width: int = 6) -> dict[str, Tensor]:
    """Predictors of so many classes between other tensors; every value is different."""
    shapes = {
        "backbone.res4.0.conv1.weight": (4, 3, 1, 1),
        f"{CLASSIFIER}.weight": (classes + 1, width),
        f"{CLASSIFIER}.bias": (classes + 1,),
        f"{REGRESSOR}.weight": (4 * classes, width),
        f"{REGRESSOR}.bias": (4 * classes,),
        "affine_rcnn.weight": (1, 3, 1, 1),
    }
    generator = torch.Generator().manual_seed(1)
    return {name: 100 + torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def checkpoint(path: Path, weights: dict[str, Tensor], classes: tuple[str, ...]) -> Path:
    spec = InputSpec(height=64, width=64, fit=Squash(), normalization=Normalization(mean=100, std=35))
    tensors = [TensorSpec(name="scores", dtype="float32", shape=["N", 100], meaning="scores")]
    output = OutputSpec(kind="boxes", classes=list(classes), score_threshold=0.05, tensors=tensors)
    metric = Metric(name="AP50", value=0.5, data="gcoco:val", frames=9, protocol="native")
    provenance = Provenance(detector="glmd", network={"depth": 18}, metrics=[metric])
    contract = Contract(input=spec, output=output, provenance=provenance)
    save_file(weights, path, {METADATA_KEY: contract.to_json()})
    return path


# ---------------------------------------------------------------- golden values


def test_exactly_four_tensors_disappear_and_the_rest_is_bit_identical() -> None:
    weights = weights_of(60)
    done = remove_predictors(weights, BASE)
    assert set(weights) - set(done.weights) == set(PREDICTORS) and len(PREDICTORS) == 4
    assert all(torch.equal(tensor, weights[name]) for name, tensor in done.weights.items())
    assert [row.fate for row in done.rows] == ["kept", *["dropped"] * 4, "kept"]


def test_coco_rows_go_to_the_places_of_their_names() -> None:
    weights = weights_of(60)
    done = widen_predictors(weights, BASE, COCO).weights
    before, after = weights[f"{CLASSIFIER}.weight"], done[f"{CLASSIFIER}.weight"]
    assert BASE[0] == "truck" and COCO[7] == "truck" and COCO[79] == "toothbrush"
    assert (
        torch.equal(after[7], before[0]) and torch.equal(after[79], before[59]) and torch.equal(after[80], before[60])
    )
    boxes_before, boxes_after = weights[f"{REGRESSOR}.weight"], done[f"{REGRESSOR}.weight"]
    assert torch.equal(boxes_after[28:32], boxes_before[:4]) and torch.equal(boxes_after[316:320], boxes_before[236:])
    for layer, rows in ((CLASSIFIER, 81), (REGRESSOR, 320)):
        assert done[f"{layer}.weight"].shape == (rows, 6) and done[f"{layer}.bias"].shape == (rows,)
    biases = done[f"{CLASSIFIER}.bias"]
    assert biases[7] == weights[f"{CLASSIFIER}.bias"][0] and biases[80] == weights[f"{CLASSIFIER}.bias"][60]


@pytest.mark.parametrize("split", [1, 2, 3])
def test_voc_base_rows_stay_and_the_background_goes_from_15_to_20(split: int) -> None:
    base, every = GROUPS[f"voc-base{split}"], GROUPS[f"voc-all{split}"]
    weights = weights_of(15)
    done = widen_predictors(weights, base, every).weights
    for kind in ("weight", "bias"):
        before, after = weights[f"{CLASSIFIER}.{kind}"], done[f"{CLASSIFIER}.{kind}"]
        assert torch.equal(after[:15], before[:15]) and torch.equal(after[20], before[15]) and len(after) == 21
        assert torch.equal(done[f"{REGRESSOR}.{kind}"][:60], weights[f"{REGRESSOR}.{kind}"])


def test_new_rows_are_small_random_numbers_of_a_seed_and_new_biases_are_0() -> None:
    weights = weights_of(15, width=2048)
    base, every = GROUPS["voc-base1"], GROUPS["voc-all1"]
    first, again, other = (widen_predictors(weights, base, every, seed).weights for seed in (0, 0, 1))
    for layer, rows in ((CLASSIFIER, slice(15, 20)), (REGRESSOR, slice(60, 80))):
        new = first[f"{layer}.weight"][rows]
        assert abs(new.std().item() - 0.01) < 5e-4 and abs(new.mean().item()) < 5e-4
        assert torch.equal(new, again[f"{layer}.weight"][rows]) and not torch.equal(new, other[f"{layer}.weight"][rows])
        assert not first[f"{layer}.bias"][rows].any()
    rest = set(weights) - set(PREDICTORS)
    assert list(first) == list(weights) and all(first[name] is weights[name] for name in rest)


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("weights", "old", "new", "error", "words"),
    [
        (weights_of(60), BASE[:59], COCO, ArtifactError, "has 61 rows, and 59 classes make 60"),
        ({"a": torch.zeros(1)}, BASE, COCO, ArtifactError, f"have no '{CLASSIFIER}.weight'"),
        (weights_of(2), ("a", "b"), ("c", "d"), UsageError, "none of the new classes is known"),
        (weights_of(2), ("a", "b"), ("a", "c", "c"), UsageError, "named twice"),
    ],
)
def test_what_does_not_fit_is_one_line(weights: Any, old: Any, new: Any, error: Any, words: str) -> None:
    with pytest.raises(error) as caught:
        widen_predictors(weights, old, new)
    assert words in caught.value.line and "\n" not in caught.value.line


# ---------------------------------------------------------------- the command


def test_the_command_writes_a_checkpoint_that_says_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = checkpoint(tmp_path / "base.safetensors", weights_of(2), ("bird", "kite"))
    out = tmp_path / "novel.safetensors"
    surgery("randinit", base, out, classes=["kite", "drone", "bird"], seed=4)
    contract = read_contract(out)
    assert contract.output.classes == ["kite", "drone", "bird"] and contract.provenance.metrics == []
    (step,) = contract.provenance.history
    assert step["tool"] == "surgery" and step["how"] == "randinit" and step["seed"] == 4
    assert step["classes_before"] == ["bird", "kite"] and set(step["created"]) == set(PREDICTORS)
    weights, before = load_file(out), load_file(base)
    assert torch.equal(weights[f"{CLASSIFIER}.bias"][[0, 2, 3]], before[f"{CLASSIFIER}.bias"][[1, 0, 2]])
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown for name in weights)
    lines = shown.splitlines()
    assert f"kept     affine_rcnn.weight{' ' * 24}1x3x1x1" in lines
    assert "2 tensors kept, 4 tensors dropped, 4 tensors created" in shown
    assert "2 classes kept, 1 new, 0 gone; background 2 -> 3" in shown


def test_removed_predictors_leave_the_rest_and_the_new_classes(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors", weights_of(2), ("bird", "kite"))
    out = tmp_path / "novel.safetensors"
    surgery("remove", base, out, classes=["drone"])
    assert not set(load_file(out)) & set(PREDICTORS)
    contract = read_contract(out)
    assert contract.output.classes == ["drone"] and "seed" not in contract.provenance.history[-1]
    assert set(contract.provenance.history[-1]["dropped"]) == set(PREDICTORS)


def test_the_new_classes_are_named_once(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base.safetensors", weights_of(2), ("bird", "kite"))
    for arguments in ({}, {"data": "x", "classes": ["drone"]}):
        with pytest.raises(UsageError, match="named once"):
            surgery("remove", base, tmp_path / "out.safetensors", **arguments)
    with pytest.raises(UsageError, match="no surgery 'cut'"):
        surgery("cut", base, tmp_path / "out.safetensors", classes=["drone"])
    assert not (tmp_path / "out.safetensors").exists()


# ---------------------------------------------------------------- before and after it: real checkpoints

OPTIONS = {"depth": 18, "pyramid": False, "in_channels": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Faster R-CNN of two classes, untrained."""
    detector = find_detector("faster-rcnn")
    options = {**OPTIONS, "classes": ["bird", "kite"]}
    spec = InputSpec(height=64, width=64, fit=Squash(), normalization=Normalization(mean=100, std=35))
    contract = Contract(
        input=spec,
        output=output_of(detector, 0.05, options),
        provenance=Provenance(detector="faster-rcnn", network=options),
    )
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_checkpoint(path, detector.build(**options), contract)
    return path


def test_a_widened_checkpoint_is_a_detector_of_the_new_classes(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "novel.safetensors"
    new = ["bird", "kite", "drone"]
    surgery("randinit", base, out, classes=new)
    deployable, contract = load_deployable(out)
    assert contract.output.classes == contract.provenance.network["classes"] == new
    weights, before = deployable.network.state_dict(), load_file(base)
    assert len(weights[f"{CLASSIFIER}.weight"]) == 4 and len(weights[f"{REGRESSOR}.weight"]) == 12
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items() if name not in PREDICTORS)


def test_training_goes_on_from_removed_predictors_with_fresh_ones(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "novel.safetensors"
    surgery("remove", base, out, classes=["drone"])
    network = find_detector("faster-rcnn").build(**OPTIONS, classes=["drone"])
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights, contract = starting_weights(out, fresh, ["drone"])
    network.load_state_dict(weights)
    before = load_file(base)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in PREDICTORS else before[name]), name
    assert contract.provenance.history[-1]["how"] == "remove"


def test_training_on_other_classes_without_surgery_is_refused(base: Path, tmp_path: Path) -> None:
    network = find_detector("faster-rcnn").build(**OPTIONS, classes=["kite", "bird"])
    with pytest.raises(ArtifactError, match=r"for the classes bird, kite, the recipe for kite, bird. 'irforge"):
        starting_weights(base, network.state_dict(), ["kite", "bird"])
    assert len(starting_weights(base, network.state_dict(), None)[0]) == len(network.state_dict())
