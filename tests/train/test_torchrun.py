"""Several processes under torchrun train one network: they share the samples of each update and average gradients."""

from __future__ import annotations

import csv
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml

from irforge.errors import UsageError
from irforge.train import run
from irforge.train.recipe import Recipe, read_recipe
from tests.train.few_shot_data import base_recipe, write_kinds

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[2]


def recipe_of(root: Path, batch: int, validation: float) -> dict[str, Any]:
    """Two epochs of two updates of two samples, at a constant rate."""
    stage = {"epochs": 2, "crop": 64, "batch": batch, "samples": 4, "lr": [1e-2, 1e-2]}
    optimizer = {"name": "sgd", "betas": [0.9, 0.0]}
    return base_recipe(root) | {"stages": [stage], "optimizer": optimizer, "validation_share": validation}


def losses(out: Path) -> list[float]:
    with open(out / run.LOG, newline="") as handle:
        return [float(row["loss"]) for row in csv.DictReader(handle)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_the_network_that_one_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_kinds(tmp_path / "kinds")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(root, 2, 0.1)))
    together = tmp_path / "together"
    together.mkdir()
    script = Path(__file__).with_name("watched_fit.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WATCHED": str(together), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(path), "--out", str(together)], capture_output=True, text=True, env=environment, timeout=850
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best weights so far") == 1

    for epoch in (0, 1):
        ours, theirs = (
            torch.load(together / f"epoch{epoch}-process{number}.pt", weights_only=True) for number in (0, 1)
        )
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    kept = torch.load(together / run.LAST, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, ours[name]) for name, tensor in kept.items())

    # One process that sees one sample at a time, and moves after two, does what the two did together: another batch
    # norm statistic would tell a batch of two.
    alone = tmp_path / "alone"
    with monkeypatch.context() as patch:
        patch.setattr(run.pl, "Trainer", functools.partial(pl.Trainer, accumulate_grad_batches=2))
        run.run_training(Recipe.model_validate(recipe_of(root, 1, 0.1)), "recipe.yaml", alone)
    single = torch.load(alone / run.LAST, weights_only=True)["state_dict"]
    learnt = [name for name in single if "running_" not in name and "num_batches" not in name]
    for name in learnt:
        torch.testing.assert_close(kept[name], single[name], rtol=1e-3, atol=1e-5, msg=name)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-3)


@pytest.mark.parametrize(
    ("batch", "held", "words"),
    [(3, 0, "batch 3 of stage 1 cannot be shared by 2 processes"), (2, 1, "1 frames for validation cannot be shared")],
)
def test_what_processes_cannot_share_is_refused(tmp_path: Path, batch: int, held: int, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_of(tmp_path, batch, 0.0)))
    with pytest.raises(UsageError, match=words):
        run.require_full_batches(read_recipe(path), frames=12, held=held, processes=2)


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert run.launched() == (1, max(torch.cuda.device_count(), 1))
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "6"), ("LOCAL_WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    assert run.launched() == (2, 3)
