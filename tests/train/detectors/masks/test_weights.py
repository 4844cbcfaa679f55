"""The ACM weights that ship: whole, small, and trained."""

from __future__ import annotations

from irforge.datasets import open_dataset
from irforge.samples import FRAMES
from irforge.train.checkpoint import load_deployable
from irforge.train.evaluation import evaluate

WEIGHTS = FRAMES.parent / "acm.safetensors"


def test_the_shipped_weights_find_targets_on_the_sample_frames() -> None:
    deployable, contract = load_deployable(WEIGHTS)
    found = evaluate(deployable, contract, open_dataset(FRAMES, split="test"), "squash")
    # Measured: 0.75, with many false pixels; untrained weights find nothing.
    assert found.named["Pd"] > 0.7
    assert found.named["Fa"] < 4e-4


def test_the_shipped_weights_say_what_they_were_trained_on_and_measured_with() -> None:
    assert WEIGHTS.stat().st_size < 1.2e6
    provenance = load_deployable(WEIGHTS)[1].provenance
    assert provenance.detector == "acm" and provenance.recipe == "recipe_unet.yaml"
    assert not any("test" in note.split for note in (*provenance.trained_on, *provenance.validated_on))
    (iou,) = (
        metric
        for metric in provenance.metrics
        if metric.name == "IoU" and metric.protocol == "squash, test" and metric.frames == 531
    )
    assert iou.value > 0.5
