"""The SLS study changes the loss alone, goes on where it stopped, and claims what its intervals support."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.sls import RECIPES, sls
from benchmarks.sls_study import Step, Study, markdown, summary
from irforge.errors import UsageError
from irforge.train.detectors.registry import find_detector
from irforge.train.recipe import Recipe, read_recipe

pytestmark = pytest.mark.filterwarnings("ignore")


def frames(root: Path) -> Path:
    """Eight frames of 32 x 32 with a target each; all are in both lists."""
    rng = np.random.default_rng(5)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(8):
        mask = np.zeros((32, 32), np.uint8)
        row, column = rng.integers(2, 26, 2)
        mask[row : row + 4, column : column + 4] = 255
        frame = (rng.normal(100, 5, (32, 32)) + mask / 3).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{index}.png"), frame)
        cv2.imwrite(str(root / "masks" / f"{index}.png"), mask)
    for split in ("train", "test"):
        (root / f"{split}.txt").write_text("\n".join(map(str, range(8))))
    return root


def recipe(root: Path) -> dict[str, Any]:
    return {
        "detector": "acm",
        "network": {"in_channels": 1, "blocks": 1},
        "input": {"height": 32, "width": 32, "mean": 100, "std": 30},
        "data": [{"data": f"{root}:train"}],
        "validation_share": 0.0,
        "stages": [{"epochs": 2, "crop": 32, "batch": 4, "samples": 8, "lr": [1e-3, 1e-4]}],
        "optimizer": {"name": "adamw"},
    }


def study_of(out: Path, root: Path, **changes: Any) -> Study:
    settings: dict[str, Any] = {"test": f"{root}:test", "every": 2, "seeds": 2}
    return Study(out, {"acm": Recipe.model_validate(recipe(root))}, **(settings | changes))


def test_arms_differ_in_their_loss_and_in_nothing_else(tmp_path: Path) -> None:
    study = study_of(tmp_path, tmp_path)
    assert [step.name for step in study.steps] == [f"acm-{a}-seed{s}" for s in (0, 1) for a in ("published", "sls")]
    plain, ours = (study.recipe(Step("acm", arm, 1)) for arm in (False, True))
    assert plain.loss == {"name": "soft-iou"} and ours.loss == {"name": "sls", "warm_epochs": 1}
    assert ours.model_copy(update={"loss": plain.loss}) == plain
    assert plain.seed == study.recipe(Step("acm", False, 0)).seed + 1


@pytest.mark.parametrize("name", ["acm", "dna-net"])
def test_the_study_has_whole_networks_and_their_published_losses(name: str) -> None:
    written = read_recipe(RECIPES / f"{name}.yaml")
    assert written.detector == name and written.validation_share == 0
    published = read_recipe(RECIPES.parents[1] / "train" / "detectors" / name.replace("-", "") / "recipe.yaml")
    assert written.network | {"in_channels": 3} == published.network
    study = Study(Path(), {name: written}, "sky:test", 4, 1)
    assert study.recipe(Step(name, False, 0)).loss == published.loss
    find_detector(name).loss(**study.recipe(Step(name, True, 0)).loss)  # type: ignore[attr-defined]


def test_a_study_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = frames(tmp_path / "data"), tmp_path / "study"
    (tmp_path / "acm.yaml").write_text(yaml.safe_dump(recipe(root)))
    settings: dict[str, Any] = {"test": f"{root}:test", "every": 2, "seeds": 2, "networks": "acm"}
    settings |= {"recipes": tmp_path, "jobs": 1, "threads": 1}
    whole = Study.run

    def cut(self: Study, step: Step, say: Any) -> None:
        if step.sls:
            raise KeyboardInterrupt
        whole(self, step, say)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Study, "run", cut)
        sls(out, **settings)
    first = (out / "steps" / "acm-published-seed0.json").read_text()
    sls(out, **settings)
    assert (out / "steps" / "acm-published-seed0.json").read_text() == first
    assert len(list((out / "steps").glob("*.json"))) == 4
    record = json.loads((out / "steps" / "acm-sls-seed1.json").read_text())
    assert record["frames"] == 4 and 0 <= record["figures"]["IoU"] <= 1
    shown = capsys.readouterr().out
    assert (out / "table.md").read_text() in shown
    assert "| acm | soft-iou | 2 |" in shown and "| acm | sls | 2 |" in shown and "every 2. frame: 4 frames" in shown
    with pytest.raises(UsageError, match="another recipe or for other data"):
        sls(out, **(settings | {"every": 4, "table": True}))


def test_unknown_networks_are_refused(tmp_path: Path) -> None:
    for wrong in ("acm,acm", "unet", ""):
        with pytest.raises(UsageError, match="Networks: acm, dna-net"):
            sls(tmp_path, networks=wrong)


def test_a_gain_is_claimed_only_where_the_interval_has_no_zero(tmp_path: Path) -> None:
    study = study_of(tmp_path, tmp_path, seeds=3)
    (tmp_path / "steps").mkdir()
    pairs = [(0.50, 0.56), (0.60, 0.65), (0.40, 0.47)]
    for seed, values in enumerate(pairs):
        for arm, iou in zip((False, True), values, strict=True):
            step = Step("acm", arm, seed)
            pd = 0.9 if arm else 0.8 + 0.1 * seed
            record = {"key": study.key(step), "frames": 4, "figures": {"IoU": iou, "Pd": pd, "Fa": 2e-6}}
            (tmp_path / "steps" / f"{step.name}.json").write_text(json.dumps(record))
    found = summary(study)
    plain, ours, gain = found["rows"]
    assert plain["IoU"]["mean"] == pytest.approx(0.5) and ours["IoU"]["mean"] == pytest.approx(0.56)
    assert gain["IoU"]["mean"] == pytest.approx(0.06) and gain["verdict"] == "gain"
    assert gain["Pd"]["mean"] == pytest.approx(0) and gain["Pd"]["half"] > 0.1
    assert "| acm | difference | 3 | +0.060 ± 0.025 | - |" in markdown(found)
    (tmp_path / "steps" / "acm-sls-seed2.json").unlink()
    (tmp_path / "steps" / "acm-sls-seed1.json").unlink()
    *_, alone = summary(study)["rows"]
    assert alone["seeds"] == 1 and alone["verdict"] == "one seed shows nothing"
