"""The loss is a field of the recipe: every mask network trains by every one, each of its outputs held to the mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from irforge.errors import UsageError
from irforge.files import sha256_of_json
from irforge.train.detectors.masks import MaskEntry
from irforge.train.detectors.registry import find_detector
from irforge.train.mask_module import MaskModule
from irforge.train.ops.mask_losses import TERMS, batch_iou_loss, mixed_loss, sls_loss, soft_iou_loss, weights_of
from irforge.train.recipe import read_recipe
from irforge.train.run import input_spec, run_training

DETECTORS = Path(__file__).parents[4] / "train" / "detectors"
NETWORKS: dict[str, dict[str, Any]] = {
    "mshnet": {"in_channels": 1},
    "acm": {"in_channels": 1, "blocks": 1},
    "alcnet": {"in_channels": 1, "blocks": 1},
    "dna-net": {"in_channels": 1, "backbone": "resnet-10"},
}


def entry(name: str) -> MaskEntry:
    found = find_detector(name)
    assert isinstance(found, MaskEntry)
    return found


def smallest(network: str, side: int) -> int:
    """The side, or what ALCNet takes at least."""
    return 72 if network == "alcnet" else side


def two_frames(side: int = 48) -> tuple[Tensor, Tensor]:
    """float32 2 x 1 x side x side, with a target each; and their masks."""
    frames = torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(1)) / 4
    mask = torch.zeros_like(frames)
    for index, (row, column) in enumerate(((10, 20), (30, 37))):
        mask[index, :, row : row + 6, column : column + 6] = 1
    return frames + 3 * mask, mask


@pytest.mark.parametrize("name", [*TERMS, "dice+bce"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns_by_every_loss(network: str, name: str) -> None:
    torch.manual_seed(0)
    detector = entry(network)
    net = detector.build(**NETWORKS[network])
    loss = detector.loss(name=name)
    frames, mask = two_frames(smallest(network, 48))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    values = []
    for _ in range(3):
        value = loss(net, frames, mask, 0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]
    assert all(p.grad is not None for p in net.parameters()), "an output without a loss"


def test_each_network_has_its_published_loss_by_default() -> None:
    for network, expected in (
        ("mshnet", "sls"),
        ("acm", "soft-iou"),
        ("alcnet", "batch-iou"),
        ("dna-net", "batch-iou"),
    ):
        detector = entry(network)
        net = detector.build(**NETWORKS[network]).eval()
        frames, mask = two_frames(smallest(network, 48))
        with torch.no_grad():
            assert torch.equal(
                detector.loss()(net, frames, mask, 9), detector.loss(name=expected)(net, frames, mask, 9)
            )


@torch.no_grad()
def test_the_loss_of_dna_net_is_the_mean_over_its_four_outputs() -> None:
    detector = entry("dna-net")
    net = detector.build(**NETWORKS["dna-net"]).eval()
    frames, mask = two_frames()
    heads, final = net(frames)
    expected = torch.stack([batch_iou_loss(logits, mask) for logits in (*heads, final)]).mean()
    torch.testing.assert_close(detector.loss()(net, frames, mask, 0), expected)
    assert torch.equal(detector.logits(net, frames, 0), final)


@torch.no_grad()
def test_sls_warms_up_by_plain_iou_whatever_the_network() -> None:
    detector = entry("acm")
    net = detector.build(**NETWORKS["acm"]).eval()
    frames, mask = two_frames()
    loss = detector.loss(name="sls", warm_epochs=2)
    _, final = net(frames)
    for epoch, warm in ((1, True), (2, False)):
        torch.testing.assert_close(loss(net, frames, mask, epoch), sls_loss(final, mask, warm))


def test_a_name_is_the_sum_of_its_terms_and_options_come_on_top() -> None:
    logits, mask = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.8).float()
    found = mixed_loss(logits, mask, warm=False, **weights_of("soft-iou + sls"))
    torch.testing.assert_close(found, soft_iou_loss(logits, mask) + sls_loss(logits, mask, False))
    assert weights_of("dice+bce") == {"sls": 0, "soft_iou": 0, "batch_iou": 0, "dice": 1, "bce": 1}
    for wrong in ("focal", "dice+dice", "", "dice+"):
        with pytest.raises(ValueError, match="losses: sls, soft-iou, batch-iou, dice, bce"):
            weights_of(wrong)
    with pytest.raises(ValueError, match="no loss 'iou'"):
        entry("acm").loss(name="iou")
    with pytest.raises(TypeError, match="gamma"):
        entry("acm").loss(gamma=2)


@pytest.mark.parametrize("written", ["dice+bce", {"name": "dice+bce"}])
def test_a_recipe_names_its_loss_with_or_without_options(small_recipe: Path, written: Any) -> None:
    raw = yaml.safe_load(small_recipe.read_text())
    small_recipe.write_text(yaml.safe_dump(raw | {"loss": written}))
    recipe = read_recipe(small_recipe)
    assert recipe.loss == {"name": "dice+bce"}
    module = MaskModule(recipe, entry("mshnet"), input_spec(recipe), [])
    frames, mask = two_frames()
    with torch.no_grad():
        expected = entry("mshnet").loss(name="dice+bce")(module.network.eval(), frames, mask, 0)
        assert torch.equal(module.criterion(module.network, frames, mask, 0), expected)


def test_a_loss_that_there_is_not_is_refused_before_any_frame_is_read(small_recipe: Path, tmp_path: Path) -> None:
    recipe = read_recipe(small_recipe).model_copy(update={"loss": {"name": "focal"}})
    with pytest.raises(UsageError, match=r"does not suit MSHNet.*there is no loss 'focal'"):
        run_training(recipe, "recipe.yaml", tmp_path / "out")


@pytest.mark.parametrize(
    ("recipe", "digest"),
    [
        ("recipe.yaml", "9e09b1d26d28eb05b374c7c2382c825f3cf4872d67c7cadcfec83c7b6fb9e586"),
        ("recipe_small.yaml", "223c0d7b4649220abb1fbc5e85e4d01d7eca520d56e297e4e5ef19edc1a7e2be"),
        ("recipe_longer.yaml", "f2edc874b7d0eaa3ae04672a940cd7f905a406a3bfaa4cff51df194d0180b80a"),
    ],
)
def test_the_recipes_of_mshnet_are_what_its_weights_were_made_by(recipe: str, digest: str) -> None:
    """Their hashes, which the contracts of trained weights hold, as they were before losses had names."""
    found = read_recipe(DETECTORS / "mshnet" / recipe)
    assert sha256_of_json(found.model_dump(mode="json")) == digest


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", ["acm", "alcnet", "dnanet"])
def test_recipes_train_as_they_are_written(folder: str, small_data: Path, tmp_path: Path) -> None:
    """Both recipes are of options that exist; the small one trains, on smaller crops of other frames."""
    for name in ("recipe.yaml", "recipe_small.yaml"):
        recipe = read_recipe(DETECTORS / folder / name)
        detector = entry(recipe.detector)
        detector.loss(**recipe.loss)
        detector.build(**recipe.network)
    side = smallest(folder, 32)
    small = {"crop": side, "batch": 2, "samples": 2, "epochs": 1}
    changes = {
        "data": [recipe.data[0].model_copy(update={"data": f"{small_data}:train"})],
        "stages": [stage.model_copy(update=small) for stage in recipe.stages[:2]],
        "input": recipe.input.model_copy(update={"height": side, "width": side}),
        "validation_share": 0.3,
    }
    kept = run_training(recipe.model_copy(update=changes), name, tmp_path / "out")
    assert kept.name == "best.safetensors" and kept.is_file()
