"""A two-stage detector of named classes trains, resumes and is exported by the commands that all detectors share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from irforge.errors import UsageError
from irforge.train import run
from irforge.train.checkpoint import load_deployable, read_contract
from irforge.train.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES = ["deer", "car"]


@pytest.fixture
def two_kinds(tmp_path: Path) -> Path:
    """Ten frames of 64x64 with a tall bright target or a wide dark one, in COCO's format."""
    root = tmp_path / "kinds"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(10):
        frame = rng.normal(100, 4, (64, 64))
        kind = number % 2
        width, height = ((8, 18), (20, 8))[kind]
        x, y = (int(v) for v in rng.integers(2, 40, 2))
        frame[y : y + height, x : x + width] += (90, -80)[kind]
        cv2.imwrite(str(root / "images" / f"{number}.png"), frame.clip(0, 255).astype(np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        annotations.append(
            {"id": number, "image_id": number, "category_id": kind + 3, "bbox": [x, y, width, height],
             "area": width * height, "iscrowd": 0}
        )  # fmt: skip
    categories = [{"id": index + 3, "name": name} for index, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    return root


def recipe_of(data: Path, **network: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "detector": "risf",
            "network": {
                "classes": CLASSES,
                "depth": 18,
                "norm": "batch",
                "in_channels": 1,
                "stride_in_1x1": False,
                "freeze_at": 0,
                "freeze_res5": False,
                "anchor_sizes": [8, 16, 32],
                "candidates": 60,
                "proposals": 12,
                "least_score": 0.0,
                **network,
            },
            "input": {"height": 64, "width": 64, "fit": "pad-to-multiple", "mean": 100, "std": 30},
            "data": [{"data": str(data)}],
            "validation_share": 0.3,
            "stages": [{"epochs": 2, "crop": 64, "batch": 2, "samples": 4, "lr": [1e-3, 1e-4]}],
            "loss": {"anchor_batch": 32, "roi_batch": 8, "candidates": 60, "proposals": 20},
            "optimizer": {"name": "sgd", "clip": 5.0},
            "channels_last": False,
            "seed": 3,
        }
    )


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    two_kinds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(two_kinds)
    best = run.run_training(recipe, "recipe.yaml", tmp_path / "whole")
    contract = read_contract(best)
    assert contract.output.classes == CLASSES
    deployable, _ = load_deployable(best)
    boxes, _, classes = deployable(torch.zeros(1, 1, 64, 96, dtype=torch.uint8))
    assert boxes.shape == (1, 100, 4) and int(classes.max()) <= 1
    after_epoch = run.Keeper.on_train_epoch_end

    def stop_after_one(self: run.Keeper, trainer: Any, module: Any) -> None:
        after_epoch(self, trainer, module)
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(run.Keeper, "on_train_epoch_end", stop_after_one)
        run.run_training(recipe, "recipe.yaml", tmp_path / "cut")
    run.run_training(recipe, "recipe.yaml", tmp_path / "cut", resume=True)
    whole, cut = (torch.load(tmp_path / name / run.LAST, weights_only=True)["state_dict"] for name in ("whole", "cut"))
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())


def test_classes_in_another_order_than_the_datas_are_refused(two_kinds: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the recipe's classes are car, deer, those of '.*' deer, car"):
        run.run_training(recipe_of(two_kinds, classes=CLASSES[::-1]), "recipe.yaml", tmp_path / "out")
