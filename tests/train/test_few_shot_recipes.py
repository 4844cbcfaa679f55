"""The recipes of the few-shot family have the schedules, rates and decays that were published, and can be built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from irforge.datasets.classes import COCO, COCO_THERMAL, GROUPS, IFSOD, VOC_NOVEL, published_novel
from irforge.train.decay import decay_groups
from irforge.train.detectors.base import BoxDetector
from irforge.train.detectors.registry import find_detector
from irforge.train.module import TrainingModule
from irforge.train.recipe import Optimizer, Recipe, read_recipe
from irforge.train.run import input_spec

FOLDER = Path(__file__).parents[2] / "train" / "detectors"
RECIPES = sorted(path for name in ("glmd", "risf", "twostage") for path in (FOLDER / name).glob("*.yaml"))


def recipe_of(name: str, shots: int | None = None) -> Recipe:
    return read_recipe(FOLDER / f"{name}.yaml").with_shots(shots)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_names_options_that_its_detector_has(path: Path) -> None:
    recipe = read_recipe(path)
    detector = cast(BoxDetector, find_detector(recipe.detector))
    options = {**recipe.network}
    if options["classes"] == "data":
        options["classes"] = ["car", "kite"]
    with torch.device("meta"):
        detector.build(**options)
    detector.loss(**recipe.loss)
    assert input_spec(recipe).size == (recipe.input.height, recipe.input.width)
    for shots in recipe.shots or (None,):
        assert all(stage.batch <= stage.samples or not stage.samples for stage in recipe.with_shots(shots).stages)


# (recipe, K, images an update, updates at which the rate falls to a tenth, updates in all, first rate)
SCHEDULES = [
    ("glmd/base", None, 4, [85000, 100000], 110000, 0.02),
    ("glmd/novel", 1, 8, [900], 1500, 0.01),
    ("glmd/novel", 2, 8, [1000], 2000, 0.01),
    ("glmd/novel", 3, 8, [1500], 2500, 0.01),
    ("glmd/novel", 5, 8, [2000], 3000, 0.01),
    ("glmd/novel", 10, 8, [3000], 4000, 0.01),
    ("risf/coco_base", None, 16, [85000, 100000], 110000, 0.02),
    ("risf/voc_base", None, 16, [10000, 13300], 15000, 0.02),
    ("risf/coco_novel", 1, 16, [800], 1000, 0.01),
    ("risf/coco_novel", 10, 16, [2000], 2500, 0.01),
    ("risf/coco_novel", 30, 16, [3200], 4000, 0.01),
    ("risf/coco_all", 1, 16, [2560], 3200, 0.01),
    ("risf/coco_all", 10, 16, [4800], 6000, 0.01),
    ("risf/coco_all", 30, 16, [9600], 12000, 0.01),
    ("risf/voc_novel", 1, 16, [640], 800, 0.01),
    ("risf/voc_novel", 10, 16, [3200], 4000, 0.01),
    ("risf/voc_all", 3, 16, [1600], 2000, 0.01),
    ("risf/voc_all", 10, 16, [3200], 4000, 0.01),
]


@pytest.mark.parametrize(("name", "shots", "batch", "falls", "total", "rate"), SCHEDULES)
def test_updates_and_rates_are_the_published_ones(
    name: str, shots: int | None, batch: int, falls: list[int], total: int, rate: float
) -> None:
    stages = recipe_of(name, shots).stages
    ends, done = [], 0
    for stage in stages:
        assert stage.batch == batch and stage.samples % batch == 0
        done += stage.epochs * stage.samples // batch
        ends.append(done)
    assert ends == [*falls, total]
    for step, stage in enumerate(stages):
        assert stage.lr == pytest.approx((rate / 10**step,) * 2)


def rate_at(recipe: Recipe, update: int) -> float:
    """The rate of an update, counted from 0, as training sets it."""
    epoch, left = 0, update
    while left >= (steps := recipe.stage_at(epoch)[0].samples // recipe.stage_at(epoch)[0].batch):
        epoch, left = epoch + 1, left - steps
    group = {"lr": 0.0}
    trainer = SimpleNamespace(num_training_batches=steps, optimizers=[SimpleNamespace(param_groups=[group])])
    module: Any = SimpleNamespace(recipe=recipe, current_epoch=epoch, updates=update, trainer=trainer)
    TrainingModule.on_train_batch_start(module, None, left)
    return group["lr"]


@pytest.mark.parametrize(
    ("name", "shots", "rates"),
    [
        ("glmd/base", None, {0: 2e-5, 500: 0.01001, 1000: 0.02, 85000: 0.002, 100000: 0.0002}),
        ("glmd/novel", 10, {0: 1e-5, 50: 0.005005, 100: 0.01, 3000: 0.001}),
        ("risf/coco_base", None, {0: 2e-5, 500: 0.01001, 1000: 0.02, 85000: 0.002, 100000: 0.0002}),
        ("risf/coco_novel", 10, {0: 0.01, 2000: 0.001}),
    ],
)
def test_the_warm_up_is_the_published_one(name: str, shots: int | None, rates: dict[int, float]) -> None:
    recipe = recipe_of(name, shots)
    assert {update: rate_at(recipe, update) for update in rates} == pytest.approx(rates, rel=1e-6)


def test_decays_go_by_name_and_by_module() -> None:
    options = {"depth": 18, "pyramid": False, "neck": True, "affine": True, "norm": "batch", "freeze_at": 0}
    with torch.device("meta"):
        network = find_detector("glmd-ca").build(**options, stride_in_1x1=False, freeze_res5=False)
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    wanted = recipe_of("glmd/base").optimizer
    decay = {
        name_of[id(parameter)]: group["weight_decay"]
        for group in decay_groups(network, wanted)
        for parameter in group["params"]
    }
    assert set(decay) == set(name_of.values())
    layer = "glmd_network.global_module.tfEncoder.layers.0"
    expected = {
        f"{layer}.self_attn.in_proj_weight": 5e-5,
        f"{layer}.self_attn.in_proj_bias": 5e-5,
        f"{layer}.linear1.bias": 1e-4,
        f"{layer}.norm1.weight": 0.0,
        f"{layer}.norm1.bias": 0.0,
        "backbone.stem.conv1.norm.weight": 0.0,
        "affine_rpn.bias": 1e-4,
        "affine_rpn.weight": 5e-5,
        "roi_heads.box_predictor.cls_score.bias": 1e-4,
    }
    assert {name: decay[name] for name in expected} == expected
    (one,) = decay_groups(network, Optimizer(name="sgd", weight_decay=5e-5))
    assert len(one["params"]) == len(decay) and "weight_decay" not in one


def test_groups_of_published_splits_have_their_sizes_and_their_novel_classes() -> None:
    assert len(GROUPS["gcoco"]) == 72 and not set(GROUPS["gcoco"]) & set(COCO_THERMAL)
    assert published_novel(GROUPS["voc-all2"]) == published_novel(VOC_NOVEL[2]) == VOC_NOVEL[2]
    assert published_novel(IFSOD) == IFSOD
    # Plain COCO is no few-shot split by itself.
    assert published_novel(COCO) == published_novel(("target",)) == ()
