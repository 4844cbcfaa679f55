"""Torch datasets of frames with target masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from irforge.train.data.augment import change_levels, random_crop, turn
from irforge.train.data.frames import Planes
from irforge.train.data.sampling import sampling_plan
from irforge.train.recipe import Augment


def target_centres(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Centre of each 8-connected target: float32 [n, 2], row and column."""
    count, _, _, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return centroids[1:count, ::-1].astype(np.float32)


class CropDataset(Dataset[tuple[Tensor, Tensor]]):
    """Random crops: (levels float32 1 x crop x crop, mask float32 1 x crop x crop).

    Sample i of an epoch depends on (seed, epoch, i) alone, so a run that was interrupted goes on exactly, with any
    number of workers. Each source gives its share of the samples; its frames come in an order shuffled for each epoch
    and are used up before any repeats.
    """

    def __init__(
        self,
        sources: Sequence[Planes],
        shares: Sequence[float],
        samples: int,
        crop: int,
        augment: Augment,
        seed: int,
        epoch: int,
    ) -> None:
        self.sources = sources
        self.crop = crop
        self.augment = augment
        self.key = (seed, epoch)
        self.samples = samples or sum(len(source) for source in sources)
        self.centres = [[target_centres(mask) for mask in source.masks] for source in sources]
        self.plan = sampling_plan([len(source) for source in sources], shares, self.samples, self.key)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self.samples:
            raise IndexError(index)
        rng = np.random.default_rng((*self.key, index + 1))
        source, frame = self.plan[index]
        planes = self.sources[source]
        levels, mask = random_crop(
            planes.levels[frame], planes.masks[frame], self.crop, self.centres[source][frame], self.augment, rng
        )
        levels, mask = turn(change_levels(levels, self.augment, rng), mask, self.augment, rng)
        return torch.from_numpy(levels).unsqueeze(0), torch.from_numpy(mask).float().unsqueeze(0)


class WholeFrames(Dataset[tuple[Tensor, Tensor, int]]):
    """Unchanged frames for validation: (levels float32 1 x H x W, mask float32 1 x H x W, index of the source)."""

    def __init__(self, sources: Sequence[Planes]) -> None:
        self.sources = sources
        self.where = [(index, frame) for index, source in enumerate(sources) for frame in range(len(source))]

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        source, frame = self.where[index]
        planes = self.sources[source]
        levels = torch.from_numpy(planes.levels[frame].astype(np.float32)).unsqueeze(0)
        return levels, torch.from_numpy(planes.masks[frame]).float().unsqueeze(0), source
