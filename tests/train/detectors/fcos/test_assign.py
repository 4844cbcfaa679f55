"""RFLA: golden values of its measure, the rule cell by cell, and no sample that depends on its place in the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from irforge.train.detectors.fcos.assign import FIELD_SIDES, Assignment, Rule, assign, divergence, owners, similarity
from irforge.train.detectors.fcos.decode import for_each_cell, points_of
from irforge.train.detectors.fcos.network import STRIDES, FcosMaps


def square(side: float, x: float = 5.0, y: float = 5.0) -> Tensor:
    return torch.tensor([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]])


BOX = square(10)


@pytest.mark.parametrize(
    ("field", "kl", "expected"),
    [
        (square(45.5), 16.67224, 0.0565859),
        (square(45.5, 9, 9), None, 0.0546083),
        (square(0.9 * 45.5), None, 0.0716872),
        (torch.tensor([[-2.0, -5, 18, 15]]), 1.793705, 0.3579476),
        (BOX, 0.0, 1.0),
    ],
    ids=["same middle", "4 px off", "shrunk", "20 px", "equal"],
)
def test_golden_values(field: Tensor, kl: float | None, expected: float) -> None:
    if kl is not None:
        assert float(divergence(BOX, field)) == pytest.approx(kl, rel=1e-6, abs=1e-6)
    assert float(similarity(BOX, field)) == pytest.approx(expected, rel=2e-6)


def test_the_divergence_is_that_of_two_normal_distributions() -> None:
    box, field = torch.tensor([[3.0, 4, 15, 9]]), torch.tensor([[1.0, 2, 31, 42]])
    normals = [
        torch.distributions.MultivariateNormal((b[:2] + b[2:]) / 2, torch.diag(((b[2:] - b[:2]) / 2).square()))
        for b in (field[0], box[0])
    ]
    expected = torch.distributions.kl_divergence(*normals)
    assert float(divergence(box, field)) == pytest.approx(float(expected), rel=1e-5)


def maps_of(height: int, width: int) -> FcosMaps:
    sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    return FcosMaps(*([torch.zeros(1, c, *size) for size in sizes] for c in (1, 4, 1)))


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    maps = maps_of(height, width)
    return torch.cat(points_of(maps)), for_each_cell(FIELD_SIDES, maps)


def test_fields_stand_in_the_middle_of_each_levels_cells() -> None:
    points, sides = grid(64, 96)
    assert len(points) == len(sides) == 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1
    assert points[0].tolist() == [4, 4] and points[13].tolist() == [12, 12] and sides[0] == 45.5
    assert points[96].tolist() == [8, 8] and sides[96] == 133.5
    assert points[-1].tolist() == [64, 64] and sides[-1] == 405.5


def by_the_book(boxes: Tensor, points: Tensor, sides: Tensor, rule: Rule) -> list[int]:
    """Cell by cell: owners of the first stage, then the second's for the cells left over."""
    owner = [-1] * len(points)
    for count, factor in ((rule.first, 1.0), (rule.second, rule.shrink)):
        stage = [-1] * len(points)
        for number in range(len(boxes)):
            half = (sides * factor / 2)[:, None]
            similar = similarity(boxes[number : number + 1], torch.cat([points - half, points + half], dim=1))[0]
            best = set(similar.sort(descending=True).values[:count].tolist())
            for cell, value in enumerate(similar.tolist()):
                if value in best:
                    stage[cell] = number
        owner = [old if old >= 0 else new for old, new in zip(owner, stage, strict=True)]
    return owner


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", [Rule(), Rule(first=2, second=3, shrink=0.4)], ids=["published", "other"])
def test_owners_are_those_of_the_plain_rule(seed: int, rule: Rule) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(5, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 2 + torch.rand(5, 2, generator=generator) * 40], dim=1)
    points, sides = grid(96, 128)
    found = owners(boxes, points, sides, rule).tolist()
    assert found == by_the_book(boxes, points, sides, rule)
    assert set(found) == {-1, 0, 1, 2, 3, 4}


def test_cells_as_similar_as_the_last_chosen_are_chosen_too() -> None:
    points, sides = grid(64, 64)
    # On a corner of four cells the four nearest are equal, and so are the eight around them.
    owner = owners(square(4, 32, 32), points, sides, Rule(first=6, second=0))
    assert int((owner == 0).sum()) == 12


def test_the_smallest_target_has_cells_and_the_last_of_rivals_gets_them() -> None:
    points, sides = grid(64, 64)
    one = square(1, 30, 30)
    assert int((owners(one, points, sides, Rule()) == 0).sum()) >= 6
    both = owners(torch.cat([one, one]), points, sides, Rule())
    assert set(both.tolist()) == {-1, 1}


def test_the_second_stage_gives_cells_only_to_those_that_have_none() -> None:
    points, sides = grid(128, 128)
    small, large = square(6, 20, 20), square(119, 64, 64)
    first = owners(torch.cat([small, large]), points, sides, Rule(second=0))
    both = owners(torch.cat([small, large]), points, sides, Rule(second=20))
    assert torch.equal(both[first >= 0], first[first >= 0])
    assert ((both >= 0) & (first < 0)).any()


def test_a_samples_cells_do_not_depend_on_its_place_in_the_batch() -> None:
    points, sides = grid(96, 128)
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(6, 2, generator=generator) * 60
    every = torch.cat([corner, corner + 20 + torch.rand(6, 2, generator=generator) * 60], dim=1).split(2)
    kinds = [torch.zeros(2, dtype=torch.int64)] * 3

    def alone(rule: Rule, order: tuple[int, ...]) -> list[set[tuple[int, tuple[float, ...]]]]:
        found = assign([every[i] for i in order], kinds, points, sides, rule)
        return [_of_sample(found, order.index(i), len(points)) for i in range(3)]

    assert alone(Rule(), (0, 1, 2)) == alone(Rule(), (2, 0, 1))
    legacy = Rule(shrink=0.6, legacy_shrink=True)
    assert alone(legacy, (0, 1, 2)) != alone(legacy, (2, 0, 1)), "what the authors' code does, exaggerated"
    first = assign(every[:1], kinds[:1], points, sides, Rule())
    assert torch.equal(first.cells, assign(every[:1], kinds[:1], points, sides, Rule(legacy_shrink=True)).cells)


def _of_sample(found: Assignment, sample: int, count: int) -> set[tuple[int, tuple[float, ...]]]:
    mine = found.cells // count == sample
    return {
        (cell % count, tuple(box))
        for cell, box in zip(found.cells[mine].tolist(), found.boxes[mine].tolist(), strict=True)
    }


def test_empty_samples_have_no_cells() -> None:
    points, sides = grid(64, 64)
    nothing, none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    found = assign([nothing, BOX + 20, nothing], [none, torch.tensor([3]), none], points, sides, Rule())
    assert set((found.cells // len(points)).tolist()) == {1} and set(found.classes.tolist()) == {3}
    empty = assign([nothing], [none], points, sides, Rule())
    assert empty.cells.shape == (0,) and empty.boxes.shape == (0, 4)
