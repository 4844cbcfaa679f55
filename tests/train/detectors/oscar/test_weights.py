"""The weights of OSCAR-128: whole, and trained."""

from __future__ import annotations

from pathlib import Path

from irforge.datasets import open_dataset
from irforge.samples import FRAMES
from irforge.train.checkpoint import load_deployable
from irforge.train.evaluation import evaluate

WEIGHTS = Path(__file__).parents[4] / "weights/oscar-128.safetensors"


def test_the_weights_find_targets_on_the_sample_frames() -> None:
    deployable, contract = load_deployable(WEIGHTS)
    found = evaluate(deployable, contract, open_dataset(FRAMES, split="test"), "squash")
    # Measured: 0.25; these frames are harder than those that it was trained on, and untrained weights find nothing.
    assert found.named["Pd at 3 px"] > 0.2


def test_the_weights_say_what_they_were_trained_on_and_measured_with() -> None:
    assert WEIGHTS.stat().st_size < 26e6
    provenance = load_deployable(WEIGHTS)[1].provenance
    assert provenance.detector == "oscar" and provenance.recipe == "recipe_small.yaml"
    assert not any("test" in note.split for note in (*provenance.trained_on, *provenance.validated_on))
    (legacy,) = (m for m in provenance.metrics if m.name == "mNoCoAP legacy" and m.protocol == "squash, test")
    assert legacy.frames == 202 and legacy.value > 0.6
