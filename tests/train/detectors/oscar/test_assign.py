"""Which cells learn a box: the rule's worked example and its corners."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from irforge.datasets import open_dataset
from irforge.frames import frame_size
from irforge.train.detectors.oscar.assign import (
    COARSE_SIDE,
    REFINE_SIDE,
    assign_coarse,
    assign_refine,
    positive_cells,
    pseudo_boxes,
)

SMALL = torch.tensor([[100.0, 100, 106, 105]])


def by_the_book(boxes: Tensor, height: int, width: int, stride: int, side: float) -> dict[tuple[int, int], int]:
    """(row, column) of the positive cells -> index of their box, cell by cell and box by box."""
    chosen: dict[tuple[int, int], int] = {}
    for row in range(height):
        for column in range(width):
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            best = float("inf")
            for index, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
                area = (x1 - x0) * (y1 - y0)
                region = (x0, y0, x1, y1)
                if area <= side**2:
                    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
                    region = (cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2)
                if min(x - region[0], y - region[1], region[2] - x, region[3] - y) > 0 and area < best:
                    best, chosen[row, column] = area, index
    return chosen


def test_the_worked_example() -> None:
    coarse, refine = assign_coarse([SMALL], 32, 32), assign_refine([SMALL], 64, 64)
    assert coarse.cells.tolist() == [12 * 32 + 12]
    assert coarse.boxes.tolist() == [[99, 98.5, 107, 106.5]]
    assert (coarse.boxes - 100).abs().tolist() == [[1, 1.5, 7, 6.5]]
    assert pseudo_boxes(SMALL, REFINE_SIDE).tolist() == [[100, 99.5, 106, 105.5]]
    assert refine.cells.tolist() == [25 * 64 + 25]
    assert refine.boxes.tolist() == SMALL.tolist()
    assert ((refine.boxes - coarse.boxes) / 4).tolist() == [[0.25, 0.375, -0.25, -0.375]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("stride", "side"), [(8, COARSE_SIDE), (4, REFINE_SIDE)])
def test_cells_and_owners_are_those_of_the_plain_rule(seed: int, stride: int, side: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(12, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 1 + torch.rand(12, 2, generator=generator) * 14], dim=1)
    boxes[6:] = boxes[6:].round()
    cells = 64 // stride
    found, owner = positive_cells(boxes, pseudo_boxes(boxes, side), cells, cells, stride)
    expected = by_the_book(boxes, cells, cells, stride, side)
    assert {(int(c) // cells, int(c) % cells): int(o) for c, o in zip(found, owner, strict=True)} == expected
    assert len(expected) > 5


def test_of_several_boxes_the_smallest_owns_a_cell_and_the_first_of_equal_ones() -> None:
    large, small = [0.0, 0, 32, 32], [8.0, 8, 24, 24]
    owners = {}
    for name, boxes in {"nested": [large, small], "equal": [small, small]}.items():
        true = torch.tensor(boxes)
        cells, owner = positive_cells(true, pseudo_boxes(true, COARSE_SIDE), 4, 4, 8)
        owners[name] = dict(zip(cells.tolist(), owner.tolist(), strict=True))
    assert {cell for cell, owner in owners["nested"].items() if owner == 1} == {5, 6, 9, 10}
    assert len(owners["nested"]) == 16
    assert set(owners["equal"].values()) == {0}


def test_points_on_the_edge_of_a_region_are_outside() -> None:
    assert not len(assign_coarse([torch.tensor([[12.0, 12, 20, 20]])], 4, 4).cells), "the region spans points 12 and 20"
    assert len(assign_coarse([torch.tensor([[12.0, 12, 20.1, 20]])], 4, 4).cells) == 0, "y is still on the edge"
    assert assign_coarse([torch.tensor([[11.9, 11.9, 20.1, 20.1]])], 4, 4).cells.tolist() == [5, 6, 9, 10]


def test_it_is_the_area_that_decides_so_a_thin_box_is_not_widened() -> None:
    thin = torch.tensor([[0.0, 5, 30, 8]])
    assert torch.equal(pseudo_boxes(thin, COARSE_SIDE), thin)
    assert not len(assign_coarse([thin], 4, 4).cells)
    assert len(assign_refine([thin], 8, 8).cells)


def test_an_area_equal_to_the_squares_becomes_the_square() -> None:
    assert pseudo_boxes(torch.tensor([[0.0, 0, 16, 4]]), COARSE_SIDE).tolist() == [[4, -2, 12, 6]]


def test_cells_of_a_batch_are_counted_through_and_empty_samples_have_none() -> None:
    nothing = torch.zeros(0, 4)
    batch = assign_coarse([nothing, SMALL, nothing, SMALL], 32, 32)
    assert batch.cells.tolist() == [32 * 32 + 12 * 33, 3 * 32 * 32 + 12 * 33]
    assert assign_refine([nothing, nothing], 8, 8).cells.shape == (0,)
    assert assign_refine([nothing, nothing], 8, 8).boxes.shape == (0, 4)


@pytest.mark.skipif("IRFORGE_DATA" not in os.environ, reason="IRFORGE_DATA does not name the folder of data sets")
@pytest.mark.parametrize(
    ("split", "thin"),
    [
        ("trainval_full", {"Misc_178", "Misc_287", "Misc_360", "Misc_371", "S20210527_S7_84"}),
        ("test_full", {"Misc_170", "Misc_254", "S20210422_S5_248", "S20210422_S6_258"}),
    ],
)
def test_on_real_targets_only_the_known_thin_boxes_have_no_coarse_cell(split: str, thin: set[str]) -> None:
    """At the published frame size, at most 1000 x 600. The set may lack frames; of those there are, all must agree."""
    without = set()
    targets = 0
    for sample in open_dataset(f"SIRST-V2:{split}"):
        truth = sample.boxes()
        if truth is None or not len(truth):
            continue
        height, width = frame_size(sample.frame_path)
        factor = min(1000 / max(height, width), 600 / min(height, width))
        across, down = int(width * factor + 0.5) / width, int(height * factor + 0.5) / height
        rows, columns = (-(-int(side * factor + 0.5) // 32) * 4 for side in (height, width))
        for box in torch.from_numpy(truth.boxes) * torch.tensor([across, down, across, down]):
            targets += 1
            if not len(assign_coarse([box[None]], rows, columns).cells):
                without.add(sample.id)
            assert len(assign_refine([box[None]], 2 * rows, 2 * columns).cells)
    assert targets > 100
    assert without <= thin
    assert len(without) >= 3
