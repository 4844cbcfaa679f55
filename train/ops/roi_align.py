"""RoIAlign (He et al., "Mask R-CNN", ICCV 2017) in its aligned form: a bin is the mean of bilinear samples of a map.

A box in pixels of the frame lies at `box * scale - 0.5` of the map, whose sample (i, j) stands at the centre of a cell.
There are two forms. `pool_boxes` is for training: differentiable, any number of boxes an image, and by default as many
samples a bin as it has cells, as detectron2 and the published detectors do. `torch.ops.irforge.roi_align` is for
deployment: a fixed number of boxes an image and of samples a bin, one node of the exported graph.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1 << 26
"""Elements of the intermediate product that `pool_boxes` holds at once."""


def pool_boxes(x: Tensor, boxes: Tensor, bins: int, scale: float, sampling: int = 0) -> Tensor:
    """R x C x bins x bins from one map, differentiable in the map.

    Bilinear samples on a grid make a bin a product of two vectors, one along each axis, and all boxes two matrix
    products: the cost does not depend on the number of samples.

    Args:
        x: C x H x W.
        boxes: R x 4, xyxy in pixels of the frame.
        bins: a side of the result.
        scale: cells a pixel, 1 / stride.
        sampling: samples of a bin along each axis; 0 means as many as the bin has cells, rounded up.
    """
    channels, height, width = x.shape
    boxes = boxes.detach().float()
    down = _axis_weights(boxes[:, 1], boxes[:, 3], bins, scale, height, sampling).to(x.dtype)
    across = _axis_weights(boxes[:, 0], boxes[:, 2], bins, scale, width, sampling).to(x.dtype)
    rows = x.transpose(0, 1).reshape(height, channels * width)
    chunk = max(CHUNK // (bins * channels * width), 1)
    pooled = []
    for some_down, some_across in zip(down.split(chunk), across.split(chunk), strict=True):
        banded = (some_down.flatten(0, 1) @ rows).view(len(some_down), bins * channels, width)
        pooled.append((banded @ some_across.transpose(1, 2)).view(-1, bins, channels, bins).transpose(1, 2))
    return torch.cat(pooled) if pooled else x.new_zeros(0, channels, bins, bins)


def _axis_weights(low: Tensor, high: Tensor, bins: int, scale: float, length: int, sampling: int) -> Tensor:
    """R x bins x length: how much each cell of an axis counts in each bin."""
    size = (high - low) * scale / bins
    count = size.ceil().clamp_min(0) if sampling == 0 else torch.full_like(size, sampling)
    most = int(count.max()) if len(count) else 0
    number = torch.arange(most, device=low.device)
    within = (number + 0.5) / count.clamp_min(1)[:, None]
    offset = torch.arange(bins, device=low.device)[:, None] + within[:, None]
    place = (low * scale - 0.5)[:, None, None] + size[:, None, None] * offset
    counted = (number < count[:, None])[:, None] & (place >= -1) & (place <= length)
    weight = counted / count.clamp_min(1)[:, None, None]
    place = place.clamp(0, length - 1)
    before = place.long()
    after = (before + 1).clamp_max(length - 1)
    share = place - before
    weights = low.new_zeros(len(low), bins, length)
    weights.scatter_add_(2, before, weight * (1 - share))
    return weights.scatter_add_(2, after, weight * share)


def roi_align(x: Tensor, boxes: Tensor, scale: float, bins: int, every: int = 1, sampling: int = 2) -> Tensor:
    """(N * K) x C x B x B of K boxes in each map of a batch: only bins 0, `every`, 2 `every`, ... of `bins` a side.

    What lies outside the map is taken from its border, which boxes inside the frame reach by half a cell at most.
    Arithmetic is in float32, whatever the map is. Not differentiable: see `pool_boxes`.

    Args:
        x: N x C x H x W.
        boxes: N x K x 4, float32, xyxy in pixels of the frame.
        scale: cells a pixel, 1 / stride.
        bins: a side of the whole result.
        every: 2 leaves out what a convolution of kernel 1 and stride 2 would not read.
        sampling: samples of a bin along each axis.

    Raises:
        ValueError: the shapes do not go together, or a number is not positive.
        TypeError: boxes that are not float32.
    """
    aligned: Tensor = torch.ops.irforge.roi_align.default(x, boxes, scale, bins, every, sampling)
    return aligned


def _empty_result(x: Tensor, boxes: Tensor, scale: float, bins: int, every: int, sampling: int) -> Tensor:
    if boxes.dtype != torch.float32:
        raise TypeError(f"roi_align takes boxes in float32, whose steps are fine enough for pixels, not {boxes.dtype}")
    if x.dim() != 4 or boxes.dim() != 3 or boxes.shape[2] != 4:
        raise ValueError(f"roi_align takes N x C x H x W and N x K x 4, not {tuple(x.shape)} and {tuple(boxes.shape)}")
    if min(bins, every, sampling) < 1 or scale <= 0:
        raise ValueError(f"roi_align takes positive numbers, not {bins=}, {every=}, {sampling=}, {scale=}")
    side = -(-bins // every)
    return x.new_empty(boxes.shape[0] * boxes.shape[1], x.shape[1], side, side)


def _align(x: Tensor, boxes: Tensor, scale: float, bins: int, every: int, sampling: int) -> Tensor:
    empty = _empty_result(x, boxes, scale, bins, every, sampling)
    _, channels, height, width = x.shape
    side = empty.shape[-1]
    low, high = boxes[..., :2, None], boxes[..., 2:, None]
    samples = (torch.arange(sampling, device=x.device) + 0.5) / sampling
    offset = (torch.arange(0, bins, every, device=x.device)[:, None] + samples).flatten()
    place = low * scale + (high - low) * (scale / bins) * offset
    # Grid coordinates: -1 and 1 are the outer edges of the map, whose cells stand half a cell inside.
    across, down = (place / place.new_tensor([[width], [height]]) * 2 - 1).unbind(2)
    grid = torch.stack(torch.broadcast_tensors(across[:, :, None], down[..., None]), dim=-1)
    sampled = F.grid_sample(x.float(), grid.flatten(1, 2), padding_mode="border", align_corners=False)
    means = sampled.view(len(x), channels, -1, side, sampling, side, sampling).mean(dim=(4, 6))
    return means.transpose(1, 2).reshape(empty.shape).to(x.dtype)


_OP = "irforge::roi_align"
torch.library.define(
    _OP,
    "(Tensor x, Tensor boxes, float scale, int bins, int every, int sampling) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.impl(_OP, "CompositeExplicitAutograd", _align)
torch.library.register_fake(_OP, _empty_result)
