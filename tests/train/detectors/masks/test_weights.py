"""The weights of ACM and DNA-Net that ship: whole, small, and trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from irforge.datasets import open_dataset
from irforge.samples import FRAMES
from irforge.train.checkpoint import load_deployable
from irforge.train.evaluation import evaluate

ACM = FRAMES.parent / "acm.safetensors"
DNA_NET = Path(__file__).parents[4] / "weights/dna-net.safetensors"


# Measured: 0.75 and 0.42, for DNA-Net never saw such frames; untrained weights find nothing.
@pytest.mark.parametrize(("weights", "pd", "fa"), [(ACM, 0.7, 4e-4), (DNA_NET, 0.4, 1e-4)], ids=["acm", "dna-net"])
def test_the_shipped_weights_find_targets_on_the_sample_frames(weights: Path, pd: float, fa: float) -> None:
    deployable, contract = load_deployable(weights)
    found = evaluate(deployable, contract, open_dataset(FRAMES, split="test"), "squash")
    assert found.named["Pd"] > pd
    assert found.named["Fa"] < fa


@pytest.mark.parametrize(
    ("weights", "largest", "detector", "recipe", "least_iou"),
    [(ACM, 1.2e6, "acm", "recipe_unet.yaml", 0.5), (DNA_NET, 9.6e6, "dna-net", "recipe_finish.yaml", 0.81)],
    ids=["acm", "dna-net"],
)
def test_the_shipped_weights_say_what_they_were_trained_on_and_measured_with(
    weights: Path, largest: float, detector: str, recipe: str, least_iou: float
) -> None:
    assert weights.stat().st_size < largest
    provenance = load_deployable(weights)[1].provenance
    assert provenance.detector == detector and provenance.recipe == recipe
    assert not any("test" in note.split for note in (*provenance.trained_on, *provenance.validated_on))
    (iou,) = (
        metric
        for metric in provenance.metrics
        if metric.name == "IoU" and metric.protocol == "squash, test" and metric.frames == 531
    )
    assert iou.value > least_iou
