"""CenterNet: its size, targets and losses, frames in and boxes out, and the exported graph."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from irforge.contract import Contract, InputSpec, Letterbox, Normalization, Provenance
from irforge.train import run
from irforge.train.checkpoint import load_deployable, save_checkpoint
from irforge.train.detectors.base import BoxBatch, output_of
from irforge.train.detectors.centernet import deploy
from irforge.train.detectors.centernet.assign import assign, radius_of
from irforge.train.detectors.centernet.deploy import CENTERNET, CenterNetDeployable, decode
from irforge.train.detectors.centernet.loss import CenterNetLoss, centre_focal_loss
from irforge.train.detectors.centernet.network import CenterMaps, CenterNet
from irforge.train.detectors.registry import find_detector
from irforge.train.recipe import read_recipe
from tests.train.detectors.box_parity import frames_of, held_equal, passes_the_compiler_in_fp32_and_fp16

SIZE = (64, 96)
NAMES = ["car", "person", "deer"]
SMALL: dict[str, Any] = {"in_channels": 1, "channels": 16}


def lively(seed: int = 0, **options: Any) -> CenterNet:
    """Random weights with the statistics of noise, whose heads say something."""
    torch.manual_seed(seed)
    network = CenterNet(**{**SMALL, "classes": NAMES, **options}).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        features = network.backbone(torch.randn(2, network.in_channels, *SIZE))
        for head, mean, spread in ((network.heat, -1.0, 1.5), (network.size, 4.0, 2.0), (network.offset, 0.5, 0.2)):
            last = head[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.zeros_(last.bias)
            last.weight.mul_(spread / head(features).std())
            nn.init.constant_(last.bias, mean)
    return network.eval()


def contract_of(options: dict[str, Any], size: tuple[int, int] = SIZE) -> Contract:
    spec = InputSpec(height=size[0], width=size[1], fit=Letterbox(), normalization=Normalization(mean=128.0, std=74.0))
    return Contract(
        input=spec,
        output=output_of(CENTERNET, 0.1, options),
        provenance=Provenance(detector="centernet", network=options),
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"trunk": "itd"}, 1_097_557), ({"class_count": 80}, 14_219_092), ({}, 14_213_957)],
    ids=["as in ITTD's table", "COCO", "one class"],
)
def test_parameters(options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in CenterNet(**options).parameters()) == expected


@pytest.mark.parametrize(("trunk", "side", "stride"), [("resnet", 4, 32), ("itd", 2, 16)])
def test_cells_have_the_size_that_the_trunk_says(trunk: Any, side: int, stride: int) -> None:
    network = CenterNet(trunk=trunk, in_channels=1, class_count=2)
    assert (network.reduction, network.stride) == (side, stride)
    with torch.no_grad():
        maps = network(torch.randn(2, 1, *SIZE))
    assert [tuple(m.shape) for m in maps] == [(2, c, SIZE[0] // side, SIZE[1] // side) for c in (2, 2, 2)]
    assert torch.sigmoid(maps.heat).mean() == pytest.approx(0.1, abs=0.08)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    shared = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


@pytest.mark.parametrize("overlap", [0.3, 0.7])
def test_corners_that_move_by_the_radius_keep_the_overlap_and_no_larger_radius_does(overlap: float) -> None:
    for width, height in ((12.0, 7.0), (30.0, 30.0), (4.0, 90.0)):
        radius = float(radius_of(torch.tensor([[width, height]], dtype=torch.float64), overlap))
        box = np.array([0, 0, width, height])
        worst = min(iou(box, box + radius * np.array(signs)) for signs in itertools.product((-1, 1), repeat=4))
        assert worst == pytest.approx(overlap, abs=1e-6)


@pytest.mark.parametrize("pixels", [(3, 2), (4, 3), (6, 4), (8, 4), (10, 5), (24, 14)])
def test_tiny_targets_have_a_single_cell_of_heat(pixels: tuple[int, int]) -> None:
    """At stride 2; the degraded supervision that ITD's heat answers."""
    box = torch.tensor([[10.0, 10, 10 + pixels[0], 10 + pixels[1]]])
    assert float(radius_of((box[:, 2:] - box[:, :2]) / 2).floor()) == 0
    heat = assign(box, torch.tensor([0]), (32, 32), 2, 1).heat
    assert int((heat > 0).sum()) == 1 and float(heat.max()) == 1


def test_a_box_becomes_a_bell_a_size_and_a_place() -> None:
    # 80 x 48 pixels: 20 x 12 cells, radius 1, standard deviation 0.5.
    box = torch.tensor([[11.0, 18, 91, 66], [120, 8, 124, 12], [200, 10, 220, 20], [5, 5, 5, 9]])
    target = assign(box, torch.tensor([1, 0, 1, 1]), (32, 40), 4, 2)
    assert target.cells.tolist() == [10 * 40 + 12, 2 * 40 + 30], "outside, and no width"
    assert target.size.tolist() == [[20, 12], [1, 1]]
    assert target.offset.tolist() == [[0.75, 0.5], [0.5, 0.5]]
    expected = torch.zeros(32, 40)
    side, corner = np.exp(-2), np.exp(-4)
    expected[9:12, 11:14] = torch.tensor([[corner, side, corner], [side, 1, side], [corner, side, corner]])
    assert torch.allclose(target.heat[1], expected) and float(target.heat[1].max()) == 1
    assert torch.nonzero(target.heat[0]).tolist() == [[2, 30]]


def test_where_bells_meet_the_larger_value_counts() -> None:
    boxes = torch.tensor([[11.0, 18, 91, 66], [19, 18, 99, 66]])
    kinds = torch.tensor([0, 0])
    both = assign(boxes, kinds, (32, 40), 4, 1).heat
    single = [assign(boxes[i : i + 1], kinds[:1], (32, 40), 4, 1).heat for i in (0, 1)]
    assert torch.equal(both, torch.maximum(*single)) and int((both == 1).sum()) == 2


@pytest.mark.parametrize(
    ("heat", "p", "expected"),
    [
        (1.0, 0.9, 0.00105360516),
        (1.0, 0.1, 1.86509392),
        (0.0, 0.1, 0.00105360516),
        (0.0, 0.9, 1.86509392),
        (0.5, 0.9, 1.86509392 / 16),
    ],
)
def test_focal_loss_values(heat: float, p: float, expected: float) -> None:
    logit = torch.tensor(p, dtype=torch.float64).logit()
    assert float(centre_focal_loss(logit, torch.tensor(heat, dtype=torch.float64))) == pytest.approx(expected, rel=1e-6)


def test_focal_loss_stays_finite_where_probabilities_underflow() -> None:
    logits = torch.tensor([-200.0, 200.0], requires_grad=True)
    loss = centre_focal_loss(logits, torch.tensor([1.0, 0.0]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(400) and torch.isfinite(logits.grad).all()


def test_size_and_place_cost_their_mean_error_and_two_boxes_of_one_cell_both_count() -> None:
    maps = CenterMaps(torch.zeros(1, 1, 16, 16), torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 16, 16))
    boxes = torch.tensor([[8.0, 8, 16, 12], [8, 6, 16, 14]])
    terms = CenterNetLoss().terms(maps, BoxBatch([boxes], [torch.zeros(2, dtype=torch.int64)], {}), 4)
    # Sizes (2, 1) and (2, 2), places (0, 0.5) in one cell.
    assert float(terms["size"]) == pytest.approx(0.1 * 7 / 4) and float(terms["offset"]) == pytest.approx(1.0 / 4)


def test_a_batch_without_targets_has_a_finite_loss() -> None:
    truth = BoxBatch([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2, {})
    terms = CenterNetLoss()(CenterNet(**SMALL), torch.randn(2, 1, *SIZE), truth, 0)
    values = {name: float(term.detach()) for name, term in terms.items()}
    assert values["size"] == values["offset"] == 0 and values["heat"] > 0


@pytest.mark.parametrize("trunk", ["resnet", "itd"])
def test_steps_lower_the_loss_on_two_frames(trunk: Any) -> None:
    torch.manual_seed(0)
    network = CenterNet(trunk=trunk, in_channels=1, class_count=2).train()
    boxes = [torch.tensor([[20.0, 20, 26, 25]]), torch.tensor([[60.0, 30, 72, 50], [10, 10, 14, 14]])]
    frames = torch.randn(2, 1, *SIZE) * 0.1
    for frame, some in zip(frames, boxes, strict=True):
        for x0, y0, x1, y1 in some.int().tolist():
            frame[0, y0:y1, x0:x1] += 3
    truth = BoxBatch(boxes, [torch.tensor([0]), torch.tensor([1, 0])], {})
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = torch.stack(list(CenterNetLoss()(network, frames, truth, 0).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_what_assignment_wrote_decoding_reads() -> None:
    boxes = torch.tensor([[8.5, 9, 20, 30], [60, 12, 91, 41], [30, 44, 33, 46]])
    kinds = torch.tensor([2, 0, 1])
    target = assign(boxes, kinds, (16, 24), 4, 3)
    planes = torch.zeros(2, 2, 16 * 24)
    planes[0][:, target.cells], planes[1][:, target.cells] = target.size.T, target.offset.T
    size, offset = planes.view(2, 1, 2, 16, 24)
    found, scores, classes = decode(CenterMaps(target.heat[None].clamp(1e-6, 1 - 1e-6).logit(), size, offset), 3, 4)
    order = classes[0].argsort()
    assert classes[0][order].tolist() == [0, 1, 2] and (scores > 0.999).all()
    assert torch.allclose(found[0][order], boxes[kinds.argsort()], atol=1e-4)


def published_decoding(maps: CenterMaps, side: int) -> list[tuple[float, int, list[float]]]:
    """(score, class, box) of one frame: every cell that equals its class's 3x3 maximum, best first."""
    heat, size, offset = (m[0].double() for m in maps)
    peaks = heat == nn.functional.max_pool2d(heat, 3, 1, 1)
    rows = []
    for kind, i, j in torch.nonzero(peaks).tolist():
        x, y = j + float(offset[0, i, j]), i + float(offset[1, i, j])
        w, h = (max(float(v), 0.0) / 2 for v in size[:, i, j])
        rows.append((float(heat[kind, i, j].sigmoid()), kind, [v * side for v in (x - w, y - h, x + w, y + h)]))
    return sorted(rows, key=lambda row: -row[0])[:100]


@pytest.mark.parametrize("names", [NAMES, ["target"]], ids=["three classes", "one class"])
def test_detections_are_those_of_the_published_decoding(names: list[str]) -> None:
    network = lively(classes=names)
    with torch.no_grad():
        maps = network(torch.randn(2, 1, *SIZE))
    boxes, scores, classes = decode(maps, 100, network.reduction)
    for sample in (0, 1):
        expected = published_decoding(CenterMaps(*(m[sample : sample + 1] for m in maps)), network.reduction)
        n = len(expected)
        assert n > 10
        assert scores[sample, :n].tolist() == pytest.approx([row[0] for row in expected], rel=1e-5)
        assert classes[sample, :n].tolist() == [row[1] for row in expected]
        assert torch.allclose(boxes[sample, :n], torch.tensor([row[2] for row in expected]), atol=1e-3)
        assert not scores[sample, n:].any() and not boxes[sample, n:].any() and not classes[sample, n:].any()


@pytest.mark.parametrize("options", [{}, {"trunk": "itd", "channels": 40}], ids=["resnet", "itd"])
def test_own_weights_are_recognised_and_carry_their_classes(tmp_path: Path, options: dict[str, Any]) -> None:
    network = lively(**options)
    full = {**SMALL, "classes": NAMES, **options}
    found = CENTERNET.options_of(network.state_dict())
    expected = {"class_count": 3, "in_channels": 1, "channels": full["channels"], "trunk": full.get("trunk", "resnet")}
    assert found is not None and expected.items() <= found.items()
    save_checkpoint(tmp_path / "c.safetensors", network, contract_of(full))
    deployable, contract = load_deployable(tmp_path / "c.safetensors")
    assert contract.output.classes == NAMES and isinstance(deployable, CenterNetDeployable)
    frames = torch.from_numpy(frames_of(SIZE))
    with torch.no_grad():
        for ours, theirs in zip(CENTERNET.deployable(network, contract.input)(frames), deployable(frames), strict=True):
            assert torch.equal(ours, theirs)
    for other in ("itd", "fcos-rfla", "faster-rcnn"):
        assert find_detector(other).options_of(network.state_dict()) is None


def test_bad_options_are_refused() -> None:
    for options in ({"trunk": "dla"}, {"depth": 20}, {"norm": "group"}, {"prior": 0.0}, {"channels": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            CenterNet(**options)
    with pytest.raises(ValueError, match="overlap"):
        CenterNetLoss(overlap=1.0)


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe_small.yaml"])
def test_the_recipes_make_the_detector(name: str) -> None:
    recipe = read_recipe(Path(deploy.__file__).with_name(name))
    assert find_detector(recipe.detector) is CENTERNET
    with torch.device("meta"):
        assert isinstance(CENTERNET.build(**recipe.network), CenterNet)
    CENTERNET.loss(**recipe.loss)


def test_the_graph_finds_the_same_boxes_and_nvidias_compiler_takes_it(tmp_path: Path) -> None:
    contract = contract_of({**SMALL, "classes": NAMES})
    passes_the_compiler_in_fp32_and_fp16(held_equal(CENTERNET.deployable(lively(), contract.input), contract, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"depth": 50, "in_channels": 3, "channels": 64, "norm": "frozen"}, {"trunk": "itd", "channels": 40}],
    ids=["resnet-50", "itd"],
)
def test_so_it_does_in_its_other_forms(tmp_path: Path, options: dict[str, Any]) -> None:
    contract = contract_of({**SMALL, "classes": ["target"], **options})
    network = lively(classes=["target"], **options)
    passes_the_compiler_in_fp32_and_fp16(held_equal(CENTERNET.deployable(network, contract.input), contract, tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_it_trains_by_the_command_that_all_share(small_box_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_box_recipe).model_copy(update={"detector": "centernet", "network": SMALL})
    best = run.run_training(recipe, "recipe.yaml", tmp_path / "out")
    with open(tmp_path / "out" / run.LOG, newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 2
    for term in ("loss", "loss/heat", "loss/size", "loss/offset", "ap50", "threshold"):
        assert np.isfinite(float(rows[1][term])), term
    boxes, scores, classes = load_deployable(best)[0](torch.zeros(2, 1, 32, 64, dtype=torch.uint8))
    assert boxes.shape == (2, 100, 4) and scores.shape == classes.shape == (2, 100)
