"""Published weights are small, are what was measured, and say where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from irforge.contract import Contract, DataNote, InputSpec, Metric, Normalization, Provenance, Squash
from irforge.datasets import open_dataset
from irforge.errors import UsageError
from irforge.train.card import model_card
from irforge.train.checkpoint import load_deployable, read_contract, save_checkpoint
from irforge.train.detectors.mshnet.deploy import MSHNET
from irforge.train.detectors.mshnet.network import MSHNet
from irforge.train.evaluation import evaluate
from irforge.train.publish import publish


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    spec = InputSpec(height=32, width=32, fit=Squash(), normalization=Normalization(mean=100, std=30))
    provenance = Provenance(
        detector="mshnet",
        network={"in_channels": 1},
        recipe="r.yaml",
        recipe_sha256="ab" * 32,
        trained_on=[DataNote(name="small", split="train-train", frames=9, licence="CC0 1.0")],
        validated_on=[DataNote(name="small", split="train-val", frames=3, licence="CC0 1.0")],
        metrics=[Metric(name="IoU", value=0.5, data="small:train-val", frames=3, protocol="squash 32x32")],
        seed=3,
        epochs=7,
    )
    contract = Contract(input=spec, output=MSHNET.output(0.5), provenance=provenance)
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, MSHNet(1), contract)
    return path


def test_kernels_are_halved_and_norms_are_kept(checkpoint: Path, small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mshnet.safetensors"
    publish(checkpoint, out, [f"{small_data}:train"])
    weights = load_file(out)
    assert {t.dtype for name, t in weights.items() if t.ndim > 1} == {torch.float16}
    assert {t.dtype for name, t in weights.items() if t.ndim == 1} == {torch.float32}
    assert out.stat().st_size < 9e6


@pytest.mark.parametrize("name", ["best.safetensors", "mshnet.md"])
def test_neither_the_checkpoint_nor_the_card_is_written_over(checkpoint: Path, tmp_path: Path, name: str) -> None:
    before = checkpoint.read_bytes()
    with pytest.raises(UsageError, match=r"destroy it|written twice"):
        publish(checkpoint, tmp_path / name, [])
    assert checkpoint.read_bytes() == before and list(tmp_path.iterdir()) == [checkpoint]


def test_the_figures_in_the_contract_are_those_of_the_published_file(
    checkpoint: Path, small_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mshnet.safetensors"
    publish(checkpoint, out, [f"{small_data}:train"])
    contract = read_contract(out)
    deployable, _ = load_deployable(out)
    expected = evaluate(deployable, contract, open_dataset(f"{small_data}:train"), "native").named
    found = {m.name: m.value for m in contract.provenance.metrics if m.protocol == "native, test"}
    assert found == expected and found
    assert {m.frames for m in contract.provenance.metrics if "test" in m.protocol} == {12}


def test_the_card_states_data_licence_recipe_and_figures(checkpoint: Path, small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mshnet.safetensors"
    publish(checkpoint, out, [f"{small_data}:train"], note="Trained on a kettle.")
    card = (tmp_path / "mshnet.md").read_text()
    for part in ("r.yaml", "seed 3", "7 epochs", "CC0 1.0", "| 12 |", "squash", "native", "on a kettle", "0.5000"):
        assert part in card


def test_the_card_names_the_weights_that_a_run_started_from(checkpoint: Path) -> None:
    contract = read_contract(checkpoint).with_step(
        "fit",
        started_from="best.safetensors",
        weights_sha256="cd" * 32,
        recipe="a.yaml",
        recipe_sha256="ef" * 32,
        epochs=9,
    )
    card = model_card(contract, "mshnet.safetensors")
    assert (
        f"- Started from the weights of `a.yaml` (recipe sha256 `{'ef' * 8}`, weights `{'cd' * 8}`) after 9 epochs."
        in card
    )
