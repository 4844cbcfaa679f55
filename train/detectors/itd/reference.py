"""ITD as its authors' code runs it: the form that speed-ups are stated against."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irforge.train.detectors.itd.deploy import ItdDeployable
from irforge.train.detectors.itd.network import REDUCTION, ITDNet

CHANNELS = 3


class ItdReference(nn.Module):
    """The same detections as a deployable's, with nothing shared, merged or moved.

    The gray frame is copied to three channels, every path of the network is evaluated as often as the authors' code
    does, the sigmoid is taken of the whole map, a peak is what equals its 3x3 maximum, and all cells are sorted. So a
    plateau of equal cells gives as many detections as it has cells, and no slot is empty: behind the peaks come boxes
    of score 0.

    Args:
        deployable: its weights are copied; a network for gray frames becomes one for three channels of the same
            function.
    """

    def __init__(self, deployable: ItdDeployable) -> None:
        super().__init__()
        ours = deployable.network
        weights = {name: tensor.detach().clone() for name, tensor in ours.state_dict().items()}
        first = "backbone.stem.entry.0.weight"
        if ours.in_channels != CHANNELS:
            weights[first] = weights[first].repeat(1, CHANNELS, 1, 1) / CHANNELS
        self.network = ITDNet(CHANNELS, fuse=ours.fuse, shared_paths=False)
        self.network.load_state_dict(weights)
        self.normalise = deployable.normalise
        self.detections = deployable.detections
        self.eval()

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (or float32) N x 1 x H x W -> boxes N x k x 4, scores N x k, classes N x k; see `decode`."""
        logits, ltrb, offset = self.network(self.normalise(frames).expand(-1, CHANNELS, -1, -1).contiguous())
        heat = torch.sigmoid(logits)
        heat = heat * (F.max_pool2d(heat, 3, 1, 1) == heat)
        scores, cells = heat.flatten(1).topk(self.detections)
        width = heat.shape[-1]
        picked = torch.cat([ltrb, offset], dim=1).flatten(2).transpose(1, 2)
        picked = picked.gather(1, cells.unsqueeze(2).expand(-1, -1, 6))
        left, top, right, bottom, dx, dy = picked.unbind(2)
        x, y = cells % width + dx, cells // width + dy
        boxes = torch.stack([x - left, y - top, x + right, y + bottom], dim=2) * REDUCTION
        return boxes, scores, torch.zeros_like(cells)
