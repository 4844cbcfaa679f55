"""ITD as its authors' code runs it, in eager torch: what speed-ups of its export are stated against."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from irforge.contract import Contract, Provenance
from irforge.export.reference import TorchSession
from irforge.train.checkpoint import load_deployable, save_checkpoint
from irforge.train.detectors.base import Deployable
from irforge.train.detectors.itd.decode import decode
from irforge.train.detectors.itd.deploy import ITD, ItdDeployable
from irforge.train.detectors.itd.network import ITDNet
from irforge.train.detectors.registry import find_detector

FIRST_KERNEL = "backbone.stem.entry.0.weight"


class EagerItd(nn.Module):
    """Gray frames N x 1 x H x W -> boxes, scores and classes, by a network of three channels that evaluates every path
    as often as the published code does; the frames are copied to three channels and normalised outside.

    Args:
        deployable: whose values it computes; one trained on one channel gets a first layer for three.
    """

    def __init__(self, deployable: Deployable) -> None:
        super().__init__()
        assert isinstance(deployable, ItdDeployable)
        trained = deployable.network
        weights = dict(trained.state_dict())
        weights[FIRST_KERNEL] = weights[FIRST_KERNEL].repeat(1, 3 // trained.in_channels, 1, 1) / (
            3 // trained.in_channels
        )
        fuse = next(module.fuse for module in trained.modules() if hasattr(module, "fuse"))
        self.network = ITDNet(3, fuse, shared_paths=False)
        self.network.load_state_dict(weights)
        self.detections = deployable.detections
        self.mean: Tensor
        self.std: Tensor
        for name in ("mean", "std"):
            value: Tensor = getattr(deployable.normalise, name).detach()
            self.register_buffer(name, value.expand(1, 3, 1, 1).clone(), persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = (frames.float().repeat(1, 3, 1, 1) - self.mean) / self.std
        return decode(self.network(x), self.detections)


class EagerItdSession(TorchSession):
    """`EagerItd` of a checkpoint behind the Session protocol, on one thread.

    Args:
        size: (height, width) of the frames.
    """

    def __init__(self, checkpoint: Path, size: tuple[int, int]) -> None:
        super().__init__(checkpoint, threads=1, size=size)
        self._module = EagerItd(load_deployable(checkpoint)[0]).eval()


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
