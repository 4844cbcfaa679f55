"""Detectors that give boxes train, resume and are judged by the same commands as those that give masks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irforge.contract import Contract, Provenance
from irforge.datasets import open_dataset
from irforge.errors import InputError
from irforge.train import run
from irforge.train.box_evaluation import evaluate_boxes
from irforge.train.checkpoint import load_deployable, read_contract
from irforge.train.detectors.base import Deployable, Normalise
from irforge.train.detectors.itd.deploy import ITD
from irforge.train.evaluate import evaluate
from irforge.train.publish import publish
from irforge.train.recipe import read_recipe

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / run.LOG, newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    small_box_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(small_box_recipe)
    run.run_training(recipe, "recipe.yaml", tmp_path / "whole")
    after_epoch = run.Keeper.on_train_epoch_end

    def stop_after_one(self: run.Keeper, trainer: Any, module: Any) -> None:
        after_epoch(self, trainer, module)
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(run.Keeper, "on_train_epoch_end", stop_after_one)
        run.run_training(recipe, "recipe.yaml", tmp_path / "cut")
    run.run_training(recipe, "recipe.yaml", tmp_path / "cut", resume=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    whole, cut = (torch.load(tmp_path / name / run.LAST, weights_only=True)["state_dict"] for name in ("whole", "cut"))
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())


def test_log_and_contract_hold_the_terms_the_metrics_and_the_chosen_threshold(
    small_box_recipe: Path, tmp_path: Path
) -> None:
    best = run.run_training(read_recipe(small_box_recipe), "recipe.yaml", tmp_path / "out")
    logged = rows(tmp_path / "out")
    for name in ("loss", "loss/heat", "loss/ltrb", "loss/offset", "ap50", "f1", "ap50/small", "threshold"):
        assert np.isfinite(float(logged[0][name])), name
    contract = read_contract(best)
    chosen = max(logged, key=lambda row: float(row["ap50"]))
    assert contract.output.kind == "boxes"
    assert contract.output.score_threshold == pytest.approx(float(chosen["threshold"]), rel=1e-5)
    assert {metric.name for metric in contract.provenance.metrics} == {"AP50", "F1 at IoU 0.5"}
    boxes, scores, classes = load_deployable(best)[0](torch.zeros(2, 1, 32, 48, dtype=torch.uint8))
    assert boxes.shape == (2, 100, 4) and scores.shape == classes.shape == (2, 100)


class Oracle(Deployable):
    """One box at each 3x3 block of levels above 150, which is how the small frames are drawn; nothing is learned."""

    stride = 16

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise((0.0,), (1.0,))
        self.network = nn.Identity()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bright = frames[0, 0] > 150
        rows, columns = torch.nonzero(bright, as_tuple=True)
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        return box.view(1, 1, 4), torch.full((1, 1), 0.9), torch.zeros(1, 1, dtype=torch.int64)


def oracle_contract(small_box_recipe: Path) -> Contract:
    spec = run.input_spec(read_recipe(small_box_recipe))
    return Contract(input=spec, output=ITD.output(0.5), provenance=Provenance(detector="itd"))


def test_true_boxes_score_one_by_either_protocol(small_box_recipe: Path, small_data: Path) -> None:
    contract = oracle_contract(small_box_recipe)
    for protocol in ("squash", "native"):
        found = evaluate_boxes(Oracle(), contract, open_dataset(f"{small_data}:train"), protocol, 0.5)
        assert found.frames == 12
        assert found.named["AP"] == found.named["F1 at IoU 0.5"] == found.named["F1 at 3 px"] == 1.0
        assert found.named["false boxes a frame"] == 0.0
        assert found.named["centre error p95, px"] == 0.0
        assert 0 < found.named["mNoCoAP"] <= 1.0


def test_frames_without_truth_cannot_be_scored(small_box_recipe: Path, small_data: Path) -> None:
    with pytest.raises(InputError, match="has no boxes"):
        evaluate_boxes(Oracle(), oracle_contract(small_box_recipe), open_dataset(small_data / "images"), "native", 0.5)


def test_evaluate_and_publish_speak_of_boxes(
    small_box_recipe: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = run.run_training(read_recipe(small_box_recipe), "recipe.yaml", tmp_path / "out")
    capsys.readouterr()
    evaluate(best, [f"{small_data}:train"], json=tmp_path / "out.json")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[3:] == ["AP", "AP50", "F1@.5", "F1@.3", "F1@3px", "Pd@3px", "NoCoAP", "legacy"]
    assert len(lines) == 2
    written = json.loads((tmp_path / "out.json").read_text())["results"]
    assert written[0]["iou50"]["tp"] + written[0]["iou50"]["fn"] == 12
    publish(best, tmp_path / "itd.safetensors", [f"{small_data}:train"])
    card = (tmp_path / "itd.md").read_text()
    for part in ("ITD", "boxes", "F1 at IoU 0.5", "mNoCoAP", "score >"):
        assert part in card, part
    assert "probability for each pixel" not in card
