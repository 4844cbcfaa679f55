"""Anchors, and boxes as shifts of others: the arithmetic of Faster R-CNN (Ren et al., NeurIPS 2015), in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LARGEST_LOG_RATIO = math.log(1000 / 16)
"""No box is decoded to more than 62.5 times its anchor's side."""

PROPOSAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
DETECTION_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@lru_cache(maxsize=64)
def anchor_grid(
    height: int, width: int, stride: int, sizes: tuple[float, ...], ratios: tuple[float, ...]
) -> npt.NDArray[np.float32]:
    """Anchors float32 [height * width * A, 4], xyxy in pixels, in the order (row, column, size, ratio).

    Their centres are (stride * column, stride * row); `ratios` are height / width, and an anchor's area is size^2.
    """
    half = [(size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2) for size in sizes for ratio in ratios]
    cell = np.array([(-w, -h, w, h) for w, h in half], np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32) * stride
    centres = np.stack([x, y, x, y], axis=-1)
    return np.asarray((centres[:, :, None] + cell).reshape(-1, 4), np.float32)


def encode_boxes(boxes: Tensor, origins: Tensor, weights: Sequence[float]) -> Tensor:
    """The shifts (dx, dy, dw, dh), each times its weight, that take `origins` [n, 4] to `boxes` [n, 4]."""
    centre, size = _centres_and_sizes(origins)
    to_centre, to_size = _centres_and_sizes(boxes)
    shifts = torch.cat([(to_centre - centre) / size, torch.log(to_size / size)], dim=-1)
    return shifts * shifts.new_tensor(weights)


def decode_boxes(deltas: Tensor, origins: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes [..., 4] that shifts [..., 4] make of `origins`, which broadcast against them; not clipped."""
    centre, size = _centres_and_sizes(origins)
    shifts = deltas.float() / torch.tensor(weights, device=deltas.device)
    middle = centre + shifts[..., :2] * size
    half = size * torch.exp(shifts[..., 2:].clamp_max(LARGEST_LOG_RATIO)) / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + size / 2, size


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes [..., 4] cut off at the frame's edges."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)], dim=-1)


def have_area(boxes: Tensor) -> Tensor:
    """bool [...]: which boxes [..., 4] have two positive sides."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def iou_of(ones: Tensor, others: Tensor) -> Tensor:
    """IoU [n, m] of boxes [n, 4] with boxes [m, 4]; 0 where they do not meet."""
    low = torch.maximum(ones[:, None, :2], others[:, :2])
    high = torch.minimum(ones[:, None, 2:], others[:, 2:])
    shared = (high - low).clamp_min(0).prod(dim=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=1) for boxes in (ones, others)]
    union = areas[0][:, None] + areas[1] - shared
    return shared / union.clamp_min(torch.finfo(union.dtype).tiny)
