"""What a classical method is: a module from levels to a response, with or without a graph behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from irforge.errors import ExportError

Plane = npt.NDArray[np.float64]


class Method(nn.Module):
    """Levels float32 N x 1 x H x W, 1 the brightest possible one -> the method's response, the same shape.

    Attributes:
        floor: responses that do not reach it are those of a plain frame, or rounding.
    """

    floor: float


class HostMethod(Method, ABC):
    """A method that NumPy computes frame by frame: its response is an image of the targets, in levels.

    A subclass says how: `targets` takes and gives one plane, float64 H x W.
    """

    floor = 1e-4

    def forward(self, levels: Tensor) -> Tensor:
        refuse_export(type(self).__name__.upper())
        return plane_by_plane(self.targets, levels)

    @abstractmethod
    def targets(self, levels: Plane) -> Plane: ...


def plane_by_plane(function: Callable[..., Plane], *maps: Tensor) -> Tensor:
    """`function` of the planes, float64 H x W, of each frame of some maps N x 1 x H x W."""
    planes = zip(*(one.detach().cpu().double().numpy()[:, 0] for one in maps), strict=True)
    found = np.stack([function(*group) for group in planes])
    return torch.from_numpy(found).to(maps[0])[:, None]


def refuse_export(method: str) -> None:
    """Raises:
    ExportError: a graph is being traced, and NumPy leaves no trace.
    """
    if torch.compiler.is_exporting():
        raise ExportError(
            f"{method} takes as many steps as a frame needs, which no graph can hold",
            "'irforge evaluate' runs it; LCM, MPCM and WLDM export",
        )
