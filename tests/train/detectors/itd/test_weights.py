"""The weights that ship: whole, small, and trained."""

from __future__ import annotations

from irforge.datasets import open_dataset
from irforge.samples import FRAMES
from irforge.train.checkpoint import load_deployable
from irforge.train.evaluation import evaluate

WEIGHTS = FRAMES.parent / "itd.safetensors"


def test_the_shipped_weights_find_targets_on_the_sample_frames() -> None:
    deployable, contract = load_deployable(WEIGHTS)
    found = evaluate(deployable, contract, open_dataset(FRAMES, split="test"), "native")
    # Measured: 0.67 and 0.69; the frames are hard, and untrained weights find nothing.
    assert found.named["Pd at 3 px"] > 0.6
    assert found.named["F1 at 3 px"] > 0.6


def test_the_shipped_weights_say_what_they_were_trained_on_and_measured_with() -> None:
    assert WEIGHTS.stat().st_size < 5e6
    provenance = load_deployable(WEIGHTS)[1].provenance
    assert provenance.detector == "itd" and provenance.recipe == "recipe_small.yaml"
    assert not any("test" in note.split for note in (*provenance.trained_on, *provenance.validated_on))
    (f1,) = (m for m in provenance.metrics if m.name == "F1 at IoU 0.5" and m.protocol == "native, test")
    assert f1.frames == 160 and f1.value > 0.8
