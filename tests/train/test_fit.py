"""A training run can be interrupted, resumed and repeated, and leaves whole files that explain themselves."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from irforge.errors import ArtifactError, InputError, UsageError
from irforge.train import run
from irforge.train.checkpoint import load_deployable, read_contract
from irforge.train.recipe import read_recipe

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / run.LOG, newline="") as handle:
        return list(csv.DictReader(handle))


def state(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(out / run.LAST, weights_only=True)
    return loaded


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(small_recipe)
    run.run_training(recipe, "recipe.yaml", tmp_path / "whole")

    after_epoch = run.Keeper.on_train_epoch_end

    def stop_after_two(self: run.Keeper, trainer: Any, module: Any) -> None:
        after_epoch(self, trainer, module)
        if trainer.current_epoch == 1:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(run.Keeper, "on_train_epoch_end", stop_after_two)
        run.run_training(recipe, "recipe.yaml", tmp_path / "cut")
    assert len(rows(tmp_path / "cut")) == 2
    run.run_training(recipe, "recipe.yaml", tmp_path / "cut", resume=True)

    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    whole, cut = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert whole["epoch"] == cut["epoch"]
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, cut["state_dict"][name]), name


def test_the_best_checkpoint_carries_a_contract_and_runs(small_recipe: Path, tmp_path: Path) -> None:
    best = run.run_training(read_recipe(small_recipe), "recipe.yaml", tmp_path / "out")
    contract = read_contract(best)
    provenance = contract.provenance
    assert provenance.detector == "mshnet"
    assert provenance.seed == 3
    assert provenance.recipe == "recipe.yaml" and len(provenance.recipe_sha256) == 64
    assert {note.split for note in provenance.trained_on} == {"train-train"}
    assert provenance.trained_on[0].frames + provenance.validated_on[0].frames == 12
    assert provenance.metrics[0].name == "IoU" and provenance.metrics[0].frames == provenance.validated_on[0].frames
    deployable, same = load_deployable(best)
    assert same == contract
    mask = deployable(torch.zeros(2, 1, 32, 48, dtype=torch.uint8))
    assert mask.shape == (2, 1, 32, 48) and mask.dtype == torch.float32
    assert not list((tmp_path / "out").glob("*.partial*"))
    assert (tmp_path / "out" / run.CURVE).read_bytes().startswith(b"\x89PNG")


def test_averaged_weights_are_the_ones_that_are_kept(small_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_recipe).model_copy(update={"validate_every": 3})
    best = run.run_training(recipe, "recipe.yaml", tmp_path / "out")
    kept, last = load_file(best), state(tmp_path / "out")["state_dict"]
    assert all(torch.equal(tensor, last[f"averaged.{name}"]) for name, tensor in kept.items())
    assert not all(torch.equal(tensor, last[f"network.{name}"]) for name, tensor in kept.items())


def test_a_run_starts_from_the_weights_of_another_and_says_so(small_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_recipe)
    first = run.run_training(recipe, "first.yaml", tmp_path / "first")
    still = [stage.model_copy(update={"lr": (0.0, 0.0)}) for stage in recipe.stages]
    second = run.run_training(
        recipe.model_copy(update={"stages": still}), "second.yaml", tmp_path / "second", weights=first
    )
    before, after = load_file(first), load_file(second)
    assert all(torch.allclose(before[name], after[name]) for name in before if "running" not in name)
    (step,) = read_contract(second).provenance.history
    assert (step["started_from"], step["recipe"]) == ("best.safetensors", "first.yaml")


def test_weights_of_another_size_are_no_start(small_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_recipe)
    first = run.run_training(recipe, "first.yaml", tmp_path / "first")
    colour = recipe.model_copy(update={"network": {"in_channels": 3}})
    with pytest.raises(ArtifactError, match="network options"):
        run.run_training(colour, "second.yaml", tmp_path / "second", weights=first)
    assert not (tmp_path / "second").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_training_through_torch_compile_takes_the_same_steps(small_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_recipe)
    # One size of crop: each is compiled for minutes.
    recipe = recipe.model_copy(update={"stages": recipe.stages[:1]})
    run.run_training(recipe, "recipe.yaml", tmp_path / "eager")
    run.run_training(recipe.model_copy(update={"compile": True}), "recipe.yaml", tmp_path / "compiled")
    for eager, compiled in zip(rows(tmp_path / "eager"), rows(tmp_path / "compiled"), strict=True):
        assert float(compiled["loss"]) == pytest.approx(float(eager["loss"]), rel=1e-2)


def test_a_run_is_not_overwritten_by_another(small_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / run.LAST).write_bytes(b"")
    with pytest.raises(UsageError, match="already holds a run"):
        run.run_training(read_recipe(small_recipe), "recipe.yaml", tmp_path)


def test_resuming_needs_a_run(small_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resume"):
        run.run_training(read_recipe(small_recipe), "recipe.yaml", tmp_path / "none", resume=True)


def test_the_published_recipe_is_the_papers() -> None:
    recipe = read_recipe(Path(run.__file__).parent / "detectors" / "mshnet" / "recipe.yaml")
    assert recipe.optimizer.name == "adagrad" and recipe.epochs == 400
    assert {stage.lr for stage in recipe.stages} == {(0.05, 0.05)}
    assert {stage.batch for stage in recipe.stages} == {4}
    assert recipe.loss == {"warm_epochs": 6} and recipe.network == {"in_channels": 3}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: many", "'seed'"),
        ("sead: 1", "'sead'"),
        ("stages: []", "'stages'"),
        ("detector: [", "no YAML"),
        ("- 1", "no YAML"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_the_field(
    small_recipe: Path, tmp_path: Path, line: str, message: str
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(f"{small_recipe.read_text()}\n{line}\n")
    with pytest.raises((UsageError, InputError)) as caught:
        read_recipe(wrong)
    assert message in caught.value.line and "\n" not in caught.value.line


def test_an_unknown_loss_option_is_refused_before_any_frame_is_read(small_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_recipe).model_copy(update={"loss": {"focal": 1.0}})
    with pytest.raises(UsageError, match="focal"):
        run.run_training(recipe, "recipe.yaml", tmp_path / "out")


def test_training_runs_in_half_precision_with_its_loss_in_float32(small_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_recipe).model_copy(update={"precision": "bf16-mixed"})
    best = run.run_training(recipe, "recipe.yaml", tmp_path / "out")
    assert all(t.dtype != torch.bfloat16 for t in load_file(best).values())
    assert all(0 < float(row["loss"]) < 5 for row in rows(tmp_path / "out"))


def test_ctrl_c_leaves_whole_files_and_a_run_that_goes_on(small_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    endless = small_recipe.read_text().replace("epochs: 2", "epochs: 5000")
    small_recipe.write_text(endless)
    fit = Path(run.__file__).with_name("fit.py")
    command = [sys.executable, str(fit), str(small_recipe), "--out", str(out)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while not (out / run.LAST).exists() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert errors.splitlines()[-1] == "irforge: interrupted; nothing half-written was left"
    assert not [path for path in out.iterdir() if ".partial" in path.name]
    done = state(out)["epoch"] + 1
    recipe = read_recipe(small_recipe)
    last = recipe.stages[1].model_copy(update={"epochs": done})
    run.run_training(recipe.model_copy(update={"stages": [recipe.stages[0], last]}), "recipe.yaml", out, resume=True)
    assert len(rows(out)) == done + 1
