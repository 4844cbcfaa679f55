"""The zoo's page says what recipes, weights, cards and comparisons say, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.zoo import zoo
from irforge.compare import compare_models
from irforge.contract import Metric
from irforge.runtime.comparison.schema import Comparison, write_comparison
from tests.box_model import write_box_data, write_box_model


@pytest.fixture
def compared(tmp_path: Path) -> tuple[Path, Comparison]:
    data = write_box_data(tmp_path / "set", {"a": [(10, 10)], "b": []})
    found = compare_models(
        [write_box_model(tmp_path / "boxes.onnx")],
        str(data),
        folder=tmp_path / "kept",
        schedule=(0, 1, 0),
        command="it",
    )
    write_comparison(found, tmp_path / "c.json")
    return tmp_path / "c.json", found


@pytest.fixture
def repository(tmp_path: Path, untrained: Path) -> Path:
    """One detector with two recipes, of which one has weights; a log and a report of its training."""
    from irforge.train.checkpoint import load_deployable, save_checkpoint

    root = tmp_path / "root"
    for folder in ("train/detectors/mshnet", "train/detectors/risf", "docs/training", "weights"):
        (root / folder).mkdir(parents=True)
    (root / "train/detectors/mshnet/recipe.yaml").write_text("detector: mshnet\ndata: [{data: NUDT-SIRST:train}]\n")
    (root / "train/detectors/mshnet/recipe_small.yaml").write_text("detector: mshnet\ndata: []\n")
    (root / "train/detectors/risf/novel.yaml").write_text("detector: risf\ndata: [{data: 'x:trainval_{K}shot'}]\n")
    for name in ("mshnet.md", "mshnet.csv", "mshnet_longer.csv", "itd.csv"):
        (root / "docs/training" / name).touch()
    deployable, contract = load_deployable(untrained)
    measured = {"IoU": 0.75, "Fa": 34e-6}
    metrics = [Metric(name=n, value=v, data="x:test", frames=9, protocol="squash, test") for n, v in measured.items()]
    metrics.append(Metric(name="IoU", value=0.99, data="x:held", frames=4, protocol="squash, validation"))
    contract = contract.with_provenance(recipe="recipe_small.yaml", metrics=metrics)
    save_checkpoint(root / "weights/m.safetensors", deployable.network, contract)
    return root


def test_the_page_lists_configs_weights_and_figures(repository: Path, compared: tuple[Path, Comparison]) -> None:
    lines = zoo(repository, repository / "docs/zoo.md", [compared]).splitlines()
    folder = "../train/detectors"
    assert (
        f"| mshnet published | [recipe.yaml]({folder}/mshnet/recipe.yaml) | none yet |"
        " `irforge fit train/detectors/mshnet/recipe.yaml` |"
    ) in lines
    assert (
        f"| mshnet small | [recipe_small.yaml]({folder}/mshnet/recipe_small.yaml) |"
        " [m.safetensors](../weights/m.safetensors) ([card](../weights/m.md)) |"
        " `irforge fit train/detectors/mshnet/recipe_small.yaml` |"
    ) in lines
    assert any(line.endswith("`irforge fit train/detectors/risf/novel.yaml --shots K` |") for line in lines)
    assert (
        "How it was trained: [mshnet.md](training/mshnet.md). Logs: [mshnet.csv](training/mshnet.csv),"
        " [mshnet_longer.csv](training/mshnet_longer.csv)."
    ) in lines
    # Of validation frames, by which the weights were chosen, no figure is shown.
    assert "| x:test | squash, test | 9 | 0.7500 | 34.00e-6 |" in lines and not any("0.99" in line for line in lines)
    assert any("`irforge classical mpcm -o mpcm.safetensors`" in line for line in lines)
    assert "## set:all, 2 frames, 1 target" in lines and "it" in lines
    (row,) = [line for line in lines if line.startswith("| boxes.onnx |")]
    assert row.startswith("| boxes.onnx | squashed to 64 × 64 | – | – | 1.000 |") and row.endswith("| – | – |")


def test_tables_have_as_many_cells_as_columns(repository: Path, compared: tuple[Path, Comparison]) -> None:
    widths: dict[int, int] = {}
    table = 0
    for line in zoo(repository, repository / "docs/zoo.md", [compared]).splitlines():
        if not line.startswith("|"):
            table += 1
            continue
        assert widths.setdefault(table, line.count("|")) == line.count("|"), line
    assert len(widths) > 3
