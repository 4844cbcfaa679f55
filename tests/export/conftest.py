"""A whole MSHNet with random weights, as a checkpoint and as its export: made once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from irforge.contract import Contract, InputSpec, Normalization, Provenance, Squash
from irforge.export.summary import Summary
from irforge.export.to_onnx import export_checkpoint
from irforge.train.checkpoint import save_checkpoint
from irforge.train.detectors.registry import find_detector


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Batch-norm statistics and the last layer are drawn so that the mask spans the probabilities."""
    torch.manual_seed(0)
    detector = find_detector("mshnet")
    network = detector.build(in_channels=1).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.uniform_(-0.1, 0.1)
    network.final.weight.data *= 20
    spec = InputSpec(height=32, width=48, fit=Squash(), normalization=Normalization(mean=114.5, std=57.6))
    provenance = Provenance(detector="mshnet", network={"in_channels": 1}, seed=0)
    path = tmp_path_factory.mktemp("export") / "random.safetensors"
    save_checkpoint(path, network, Contract(input=spec, output=detector.output(0.4), provenance=provenance))
    return path


@pytest.fixture(scope="session")
def exported(checkpoint: Path) -> tuple[Path, Summary]:
    path = checkpoint.with_suffix(".onnx")
    return path, export_checkpoint(checkpoint, path)
