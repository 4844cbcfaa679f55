"""FCOS-RFLA: its size, its losses, frames in and boxes out, and the exported graph."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irforge.contract import Contract, InputSpec, Letterbox, Normalization, Provenance
from irforge.errors import ArtifactError, UsageError
from irforge.train import run
from irforge.train.checkpoint import load_deployable, save_checkpoint
from irforge.train.detectors.base import BoxBatch, output_of
from irforge.train.detectors.fcos import deploy
from irforge.train.detectors.fcos.convert import convert
from irforge.train.detectors.fcos.decode import cells_of, detections
from irforge.train.detectors.fcos.deploy import FCOS_RFLA, FcosDeployable
from irforge.train.detectors.fcos.loss import FcosLoss, centreness_of
from irforge.train.detectors.fcos.network import STRIDES, Fcos, FcosMaps
from irforge.train.detectors.registry import find_detector
from irforge.train.ops.dense import focal_loss
from irforge.train.recipe import read_recipe
from tests.train.detectors.box_parity import frames_of, held_equal, passes_the_compiler_in_fp32_and_fp16

SIZE = (64, 96)
SMALL: dict[str, Any] = {"depth": 18, "in_channels": 1, "channels": 32, "norm": "batch", "freeze_at": 0}
NAMES = ["car", "person", "deer"]


def lively(seed: int = 0, **options: Any) -> Fcos:
    """Random weights whose predictors are strong enough for classes, boxes and scores to differ between cells."""
    torch.manual_seed(seed)
    network = Fcos(**{**SMALL, "classes": NAMES, **options}).eval()
    with torch.no_grad():
        for tower in (network.head.class_tower, network.head.box_tower):
            for conv in tower:
                if isinstance(conv, nn.Conv2d):
                    nn.init.kaiming_normal_(conv.weight)
        nn.init.constant_(network.head.logits.bias, -2.0)
        nn.init.constant_(network.head.reach.bias, 1.0)
        features = network.backbone(torch.randn(1, network.in_channels, *SIZE))[0]
        for name, tower, spread in (("logits", "class_tower", 1.0), ("reach", "box_tower", 0.7)):
            predictor = network.head.get_submodule(name)
            plain = nn.functional.conv2d(network.head.get_submodule(tower)(features), predictor.weight, padding=1)
            predictor.weight.mul_(spread / plain.std())
    return network


def contract_of(options: dict[str, Any], size: tuple[int, int] = SIZE) -> Contract:
    spec = InputSpec(height=size[0], width=size[1], fit=Letterbox(), normalization=Normalization(mean=128.0, std=74.0))
    return Contract(
        input=spec,
        output=output_of(FCOS_RFLA, 0.1, options),
        provenance=Provenance(detector="fcos-rfla", network=options),
    )


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        learnt = Fcos(class_count=18, norm="batch", freeze_at=0)
        frozen = Fcos(class_count=18)
    assert sum(p.numel() for p in learnt.parameters()) == 32_150_364
    # The published count has the norms' factors and shifts, which are constants here.
    assert sum(p.numel() for p in frozen.parameters()) == 32_150_364 - 53_120
    assert not any(p.requires_grad for name, p in frozen.named_parameters() if ".stem." in name or ".res2." in name)


def test_maps_have_the_sides_of_their_levels_and_distances_are_not_negative() -> None:
    with torch.no_grad():
        maps = lively()(torch.randn(2, 1, *SIZE))
    assert [tuple(level.shape) for level in maps.logits] == [
        (2, 3, 8, 12), (2, 3, 4, 6), (2, 3, 2, 3), (2, 3, 1, 2), (2, 3, 1, 1)
    ]  # fmt: skip
    assert all((level >= 0).all() and level.shape[1] == 4 for level in maps.reach)
    assert float(maps.reach[0].min()) == 0 and all(level.shape[1] == 1 for level in maps.centreness)


def test_the_start_believes_in_nothing() -> None:
    with torch.no_grad():
        maps = Fcos(**SMALL)(torch.randn(1, 1, *SIZE))
    assert torch.sigmoid(maps.logits[0]).mean() == pytest.approx(0.01, abs=0.003)


def test_centreness_is_one_in_the_middle_and_small_outside() -> None:
    box = torch.tensor([[10.0, 20, 30, 60]])
    points = torch.tensor([[20.0, 40], [15, 40], [15, 30], [8, 40]])
    central = centreness_of(points, box.expand(4, 4), torch.full((4,), 8.0))
    outside = (0.01 / (22 / 8)) ** 0.5
    assert central.tolist() == pytest.approx([1, (5 / 15) ** 0.5, (5 / 15 * 10 / 30) ** 0.5, outside], rel=1e-5)


@pytest.mark.parametrize(
    ("logit", "positive", "expected"),
    [
        (0.0, 1.0, 0.25 * 0.25 * 0.6931472),
        (0.0, 0.0, 0.75 * 0.25 * 0.6931472),
        (-2, 0.0, 0.75 * 0.0142093 * 0.126928),
    ],
)
def test_the_focal_loss_has_gamma_2(logit: float, positive: float, expected: float) -> None:
    assert float(focal_loss(torch.tensor([float(logit)]), torch.tensor([positive]))) == pytest.approx(
        expected, rel=1e-4
    )


def exact_maps(box: Tensor, classes: int = 3) -> FcosMaps:
    """Maps whose every cell gives the box exactly, and no class."""
    maps = FcosMaps([], [], [])
    for stride in STRIDES:
        height, width = -(-SIZE[0] // stride), -(-SIZE[1] // stride)
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        x0, y0, x1, y1 = box / stride
        maps.reach.append(torch.stack([x - x0, y - y0, x1 - x, y1 - y])[None])
        maps.logits.append(torch.full((1, classes, height, width), -30.0))
        maps.centreness.append(torch.zeros(1, 1, height, width))
    return maps


def test_an_exact_box_costs_nothing_and_a_class_is_wanted_where_the_assignment_says() -> None:
    box = torch.tensor([20.0, 16, 44, 48])
    maps = exact_maps(box)
    found = cells_of(maps).boxes
    assert torch.allclose(found, box.expand_as(found), atol=1e-4)
    truth = BoxBatch([box[None]], [torch.tensor([1])], {})
    terms = FcosLoss().terms(maps, truth)
    assert float(terms["box"]) == pytest.approx(0, abs=1e-5)
    # Each positive cell misses its class by 30 nats.
    assert float(terms["cls"]) == pytest.approx(0.25 * 30, rel=1e-4)
    assert 0 < float(terms["centreness"]) == pytest.approx(0.6931472, rel=1e-5)


def test_a_batch_without_targets_has_a_finite_loss_that_lowers_scores() -> None:
    network = Fcos(**SMALL)
    truth = BoxBatch([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2, {})
    terms = FcosLoss()(network, torch.randn(2, 1, *SIZE), truth, 0)
    values = {name: float(term.detach()) for name, term in terms.items()}
    assert values["box"] == values["centreness"] == 0 and values["cls"] > 0
    sum(terms.values(), torch.tensor(0.0)).backward()
    assert (network.head.logits.bias.grad > 0).all()


def test_steps_lower_the_loss_on_two_frames() -> None:
    torch.manual_seed(0)
    network = Fcos(**SMALL, class_count=2).train()
    boxes = [torch.tensor([[20.0, 20, 26, 25]]), torch.tensor([[60.0, 30, 72, 50], [10, 10, 14, 14]])]
    frames = torch.randn(2, 1, *SIZE) * 0.1
    for frame, some in zip(frames, boxes, strict=True):
        for x0, y0, x1, y1 in some.int().tolist():
            frame[0, y0:y1, x0:x1] += 3
    truth = BoxBatch(boxes, [torch.tensor([0]), torch.tensor([1, 0])], {})
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = torch.stack(list(FcosLoss()(network, frames, truth, 0).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_bad_options_are_refused() -> None:
    for options in ({"depth": 20}, {"norm": "group"}, {"freeze_at": 6}, {"prior": 1.0}, {"channels": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Fcos(**options)
    with pytest.raises(ValueError, match="field_sides"):
        FcosLoss(field_sides=[10, 20])
    with pytest.raises(ValueError, match="at least 100"):
        FcosDeployable(Fcos(**SMALL), candidates=50)


def published_evaluation(maps: FcosMaps, height: int, width: int) -> list[tuple[float, int, list[float]]]:
    """(score, class, box) of one frame, level by level and class by class as the authors' code goes; but degenerate
    boxes are dropped."""
    rows: list[tuple[float, int, np.ndarray]] = []
    for stride, logits, reach, centre in zip(STRIDES, *maps, strict=True):
        p, c = torch.sigmoid(logits[0].double()).numpy(), torch.sigmoid(centre[0, 0].double()).numpy()
        for kind, i, j in np.ndindex(p.shape):
            if p[kind, i, j] > 0.05:
                l, t, r, b = reach[0, :, i, j].double().numpy() * stride
                x, y = j * stride + stride // 2, i * stride + stride // 2
                box = np.clip([x - l, y - t, x + r, y + b], 0, [width, height, width, height])
                if box[2] > box[0] and box[3] > box[1]:
                    rows.append((p[kind, i, j] * c[i, j], kind, box))
    kept: list[tuple[float, int, np.ndarray]] = []
    for score, kind, box in sorted(rows, key=lambda row: -row[0]):
        if all(kind != other or overlap(box, rival) <= 0.5 for _, other, rival in kept):
            kept.append((score, kind, box))
    return [(score, kind, box.tolist()) for score, kind, box in kept[:100]]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    shared = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


@pytest.mark.parametrize("names", [NAMES, ["target"]], ids=["three classes", "one class"])
def test_detections_are_those_of_the_published_evaluation(names: list[str]) -> None:
    with torch.no_grad():
        maps = lively(classes=names)(torch.randn(2, 1, *SIZE))
    boxes, scores, classes = detections(maps, *SIZE)
    assert boxes.shape == (2, 100, 4) and (boxes.dtype, classes.dtype) == (torch.float32, torch.int64)
    for sample in (0, 1):
        expected = published_evaluation(
            FcosMaps(*([level[sample : sample + 1] for level in levels] for levels in maps)), *SIZE
        )
        n = len(expected)
        assert n > 10
        assert scores[sample, :n].tolist() == pytest.approx([row[0] for row in expected], rel=1e-4)
        assert classes[sample, :n].tolist() == [row[1] for row in expected]
        assert torch.allclose(boxes[sample, :n], torch.tensor([row[2] for row in expected]), atol=1e-3)
        assert not scores[sample, n:].any() and not boxes[sample, n:].any() and not classes[sample, n:].any()


def test_own_weights_are_recognised_and_carry_their_classes(tmp_path: Path) -> None:
    network = lively()
    found = FCOS_RFLA.options_of(network.state_dict())
    assert found == {"class_count": 3, "depth": 18, "in_channels": 1, "channels": 32, "norm": "batch"}
    options = {**SMALL, "classes": NAMES}
    save_checkpoint(tmp_path / "fcos.safetensors", network, contract_of(options))
    deployable, contract = load_deployable(tmp_path / "fcos.safetensors")
    assert contract.output.classes == NAMES and isinstance(deployable, FcosDeployable)
    frames = torch.from_numpy(frames_of(SIZE))
    with torch.no_grad():
        for ours, theirs in zip(FCOS_RFLA.deployable(network, contract.input)(frames), deployable(frames), strict=True):
            assert torch.equal(ours, theirs)
    assert find_detector("centernet").options_of(network.state_dict()) is None
    assert FCOS_RFLA.options_of({"head.logits.weight": torch.zeros(1, 1, 3, 3)}) is None


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe_small.yaml"])
def test_the_recipes_make_the_detector(name: str) -> None:
    recipe = read_recipe(Path(deploy.__file__).with_name(name))
    assert find_detector(recipe.detector) is FCOS_RFLA
    with torch.device("meta"):
        assert isinstance(FCOS_RFLA.build(**recipe.network), Fcos)
    FCOS_RFLA.loss(**recipe.loss)


def test_the_published_recipe_has_the_published_rates() -> None:
    recipe = read_recipe(Path(deploy.__file__).with_name("recipe.yaml"))
    steps = [(stage.lr[0], stage.epochs * stage.samples // stage.batch) for stage in recipe.stages]
    assert [n for _, n in steps] == [4616, 384, 1347, 577] and sum(n for _, n in steps) == 6924
    assert [lr for lr, _ in steps] == pytest.approx([5e-3 / 3, 5e-4 / 3, 5e-4, 5e-5], rel=1e-3)


def test_the_graph_finds_the_same_boxes(tmp_path: Path) -> None:
    contract = contract_of({**SMALL, "classes": NAMES})
    held_equal(FCOS_RFLA.deployable(lively(), contract.input), contract, tmp_path)


PUBLISHED = {"depth": 50, "in_channels": 3, "channels": 256, "norm": "frozen", "freeze_at": 2, "classes": ["target"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "size"), [({"classes": NAMES}, SIZE), (PUBLISHED, (128, 160))], ids=["resnet-18", "published"]
)
def test_and_nvidias_compiler_takes_it(tmp_path: Path, options: dict[str, Any], size: tuple[int, int]) -> None:
    contract = contract_of({**SMALL, **options}, size)
    deployable = FCOS_RFLA.deployable(lively(**options), contract.input)
    passes_the_compiler_in_fp32_and_fp16(held_equal(deployable, contract, tmp_path))


def test_a_published_resnet_becomes_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    body = {
        name.removeprefix(deploy.BODY): torch.rand(weight.shape, generator=generator)
        for name, weight in Fcos(depth=18).state_dict().items()
        if name.startswith(deploy.BODY)
    }
    torch.save({_torchvisions(name): weight for name, weight in body.items()}, tmp_path / "resnet18.pth")
    convert(tmp_path / "resnet18.pth", tmp_path / "start.safetensors", depth=18, classes="a,b", trust=True)
    assert f"{len(body)} tensors of the ResNet taken" in capsys.readouterr().out
    deployable, contract = load_deployable(tmp_path / "start.safetensors")
    assert contract.output.classes == ["a", "b"] and contract.provenance.detector == "fcos-rfla"
    found = deployable.network.state_dict()
    assert all(torch.equal(found[f"{deploy.BODY}{name}"], weight) for name, weight in body.items())
    with pytest.raises(ArtifactError, match="lacks"):
        convert(tmp_path / "resnet18.pth", tmp_path / "no.safetensors", depth=34, trust=True)
    with pytest.raises(UsageError, match="depth is one of"):
        convert(tmp_path / "resnet18.pth", tmp_path / "no.safetensors", depth=20, trust=True)
    assert not (tmp_path / "no.safetensors").exists()


def _torchvisions(name: str) -> str:
    for ours, theirs in (("stem.conv1.norm.", "bn1."), ("stem.conv1.", "conv1."), ("shortcut.norm.", "downsample.1."),
                         ("shortcut.", "downsample.0.")):  # fmt: skip
        name = name.replace(ours, theirs)
    for stage in (2, 3, 4, 5):
        name = name.replace(f"res{stage}.", f"layer{stage - 1}.")
    for conv in (1, 2, 3):
        name = name.replace(f".conv{conv}.norm.", f".bn{conv}.")
    return name


@pytest.mark.filterwarnings("ignore")
def test_it_trains_by_the_command_that_all_share(small_box_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_box_recipe).model_copy(
        update={"detector": "fcos-rfla", "network": {**SMALL, "class_count": 1}}
    )
    best = run.run_training(recipe, "recipe.yaml", tmp_path / "out")
    with open(tmp_path / "out" / run.LOG, newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 2
    for term in ("loss", "loss/cls", "loss/box", "loss/centreness", "ap50", "threshold"):
        assert np.isfinite(float(rows[1][term])), term
    boxes, scores, classes = load_deployable(best)[0](torch.zeros(2, 1, 32, 64, dtype=torch.uint8))
    assert boxes.shape == (2, 100, 4) and scores.shape == classes.shape == (2, 100)
