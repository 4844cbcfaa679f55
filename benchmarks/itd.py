"""ITD for the benchmark: its authors' form behind the Session protocol, and weights where none are given."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from irforge.contract import Contract, Provenance
from irforge.export.reference import TorchSession
from irforge.train.checkpoint import load_deployable, save_checkpoint
from irforge.train.detectors.itd.deploy import ITD, ItdDeployable
from irforge.train.detectors.itd.reference import ItdReference
from irforge.train.detectors.registry import find_detector


class EagerItdSession(TorchSession):
    """`ItdReference` of a checkpoint behind the Session protocol, on one thread.

    Args:
        size: (height, width) of the frames.
    """

    def __init__(self, checkpoint: Path, size: tuple[int, int]) -> None:
        super().__init__(checkpoint, threads=1, size=size)
        deployable, _ = load_deployable(checkpoint)
        assert isinstance(deployable, ItdDeployable)
        self._module = ItdReference(deployable)


def random_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write an ITD of one channel with random weights whose batch-norm statistics are those of noise: as fast as a
    trained one, and its maps as large.
    """
    torch.manual_seed(seed)
    network = find_detector("itd").build(in_channels=1, init="kaiming")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        # None: the mean over all batches.
        norm.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(2, 1, 64, 64))
    contract = Contract(
        input=ITD.published_input({}),
        output=ITD.output(score_threshold=0.5),
        provenance=Provenance(detector="itd", network={"in_channels": 1}, seed=seed),
    )
    save_checkpoint(path, network.eval(), contract)
    return path
