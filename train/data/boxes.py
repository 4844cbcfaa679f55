"""Torch datasets of frames with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from irforge.train.data.augment import change_levels, random_turn, random_window
from irforge.train.data.frames import BoxFrames
from irforge.train.data.sampling import sampling_plan
from irforge.train.detectors.base import BoxBatch, BoxLoss
from irforge.train.recipe import Augment


class BoxSample(NamedTuple):
    """levels float32 1 x crop x crop; boxes float32 [n, 4] and classes int64 [n]; the loss's maps [c, h, w]."""

    levels: Tensor
    boxes: Tensor
    classes: Tensor
    maps: dict[str, Tensor]


class BoxCrops(Dataset[BoxSample]):
    """Random crops with their boxes. As with `CropDataset`, sample i depends on (seed, epoch, i) alone.

    A box belongs to a crop if its centre does; what sticks out is cut off.
    """

    def __init__(
        self,
        sources: Sequence[BoxFrames],
        shares: Sequence[float],
        samples: int,
        crop: int,
        augment: Augment,
        seed: int,
        epoch: int,
        criterion: BoxLoss,
    ) -> None:
        self.sources = sources
        self.crop = crop
        self.augment = augment
        self.key = (seed, epoch)
        self.criterion = criterion
        self.samples = samples or sum(len(source) for source in sources)
        self.plan = sampling_plan([len(source) for source in sources], shares, self.samples, self.key)

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> BoxSample:
        if not 0 <= index < self.samples:
            raise IndexError(index)
        rng = np.random.default_rng((*self.key, index + 1))
        source, number = self.plan[index]
        frame = self.sources[source].frames[number]
        size = (frame.levels.shape[0], frame.levels.shape[1])
        centres = np.float32(0.5) * (frame.boxes[:, :2] + frame.boxes[:, 2:])[:, ::-1]
        window = random_window(size, self.crop, centres, self.augment, rng)
        levels = change_levels(window.cut(frame.levels, self.crop), self.augment, rng)
        boxes, rows = window.cut_boxes(frame.boxes, size)
        turn = random_turn(self.augment, rng)
        levels, boxes, classes = turn.plane(levels), turn.boxes(boxes, self.crop), frame.classes[rows]
        maps = self.criterion.encode(levels, boxes, classes)
        return BoxSample(
            torch.from_numpy(levels).unsqueeze(0),
            torch.from_numpy(boxes),
            torch.from_numpy(classes),
            {name: torch.from_numpy(plane) for name, plane in maps.items()},
        )


def collate(samples: Sequence[BoxSample]) -> tuple[Tensor, BoxBatch]:
    """A batch: levels float32 N x 1 x crop x crop, and the truth."""
    names = samples[0].maps
    return torch.stack([sample.levels for sample in samples]), BoxBatch(
        [sample.boxes for sample in samples],
        [sample.classes for sample in samples],
        {name: torch.stack([sample.maps[name] for sample in samples]) for name in names},
    )


class WholeBoxFrames(Dataset[tuple[Tensor, int, int]]):
    """Unchanged frames for validation: (levels 1 x 1 x H x W of the door's dtype, source, frame), one at a time."""

    def __init__(self, sources: Sequence[BoxFrames]) -> None:
        self.sources = sources
        self.where = [(index, frame) for index, source in enumerate(sources) for frame in range(len(source))]

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        source, frame = self.where[index]
        levels = self.sources[source].frames[frame].levels
        return torch.from_numpy(np.ascontiguousarray(levels))[None, None], source, frame
