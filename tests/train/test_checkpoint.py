"""Checkpoints, ours and published ones, load into the same deployable; everything else is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from irforge.contract import Contract, InputSpec, Normalization, Provenance, Squash
from irforge.errors import ArtifactError, InputError, UsageError
from irforge.train.checkpoint import load_deployable, read_contract, save_checkpoint
from irforge.train.detectors.masks import IMAGENET_MEAN, IMAGENET_STD, MaskDeployable
from irforge.train.detectors.mshnet.deploy import MSHNET
from irforge.train.detectors.mshnet.network import MSHNet
from irforge.train.detectors.registry import find_detector


def contract(detector: str = "mshnet") -> Contract:
    spec = InputSpec(height=32, width=32, fit=Squash(), normalization=Normalization(mean=100, std=30))
    return Contract(input=spec, output=MSHNET.output(0.5), provenance=Provenance(detector=detector))


def network(channels: int = 1, kernel: int = 1) -> MSHNet:
    torch.manual_seed(4)
    return MSHNet(channels, kernel).eval()


def frames() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 1, 32, 48), np.uint8))


def test_a_saved_network_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    net = network()
    save_checkpoint(tmp_path / "a.safetensors", net, contract())
    deployable, same = load_deployable(tmp_path / "a.safetensors")
    assert same == contract() == read_contract(tmp_path / "a.safetensors")
    x = frames()
    with torch.no_grad():
        expected = torch.sigmoid(net((x.float() - 100) / 30)[1])
        assert torch.equal(deployable(x), expected)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("container", ["bare", "state_dict", "net", "module."])
def test_published_weights_load_from_both_containers_and_both_head_kernels(
    tmp_path: Path, container: str, kernel: int
) -> None:
    net = network(3, kernel)
    weights = dict(net.state_dict())
    if container == "module.":
        weights = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({container: weights} if container in ("state_dict", "net") else weights, tmp_path / "w.pkl")
    deployable, found = load_deployable(tmp_path / "w.pkl", trust=True)
    assert found.provenance.network == {"in_channels": 3, "head_kernel": kernel}
    x = frames()
    rgb = (x.float() / 255).expand(-1, 3, -1, -1)
    normalised = (rgb - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(deployable(x), torch.sigmoid(net(normalised)[1]), rtol=0, atol=1e-5)


def test_a_pickle_needs_trust(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match="--trust"):
        load_deployable(tmp_path / "w.pth")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_code_in_a_trusted_pickle_still_does_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Trap(str(tmp_path / "sprung"))}, tmp_path / "w.pkl")
    with pytest.raises(ArtifactError, match="more than tensors"):
        load_deployable(tmp_path / "w.pkl", trust=True)
    assert not (tmp_path / "sprung").exists()


def test_another_detectors_weights_are_named_as_such(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "w.pkl")
    with pytest.raises(ArtifactError, match="MSHNet"):
        load_deployable(tmp_path / "w.pkl", trust=True)
    save_checkpoint(tmp_path / "other.safetensors", torch.nn.Conv2d(1, 1, 1), contract())
    with pytest.raises(ArtifactError, match="not MSHNet"):
        load_deployable(tmp_path / "other.safetensors")
    save_checkpoint(tmp_path / "future.safetensors", network(), contract("hypernet"))
    with pytest.raises(ArtifactError, match="'hypernet'"):
        load_deployable(tmp_path / "future.safetensors")


def test_a_wrong_shape_is_one_line_that_names_the_weight(tmp_path: Path) -> None:
    weights = dict(network(3).state_dict())
    weights["final.bias"] = torch.zeros(2)
    torch.save(weights, tmp_path / "w.pkl")
    with pytest.raises(ArtifactError, match=r"final\.bias") as caught:
        load_deployable(tmp_path / "w.pkl", trust=True)
    assert "\n" not in caught.value.line


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
@pytest.mark.parametrize("suffix", [".safetensors", ".pkl"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        load_deployable(path, trust=True)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.pkl"):
        if name.endswith("pkl"):
            torch.save(network().state_dict(), tmp_path / name)
        else:
            save_checkpoint(tmp_path / name, network(), contract())
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ArtifactError):
            load_deployable(tmp_path / name, trust=True)


def test_safetensors_without_a_contract_are_refused(tmp_path: Path) -> None:
    save_file(dict(network().state_dict()), tmp_path / "bare.safetensors")
    with pytest.raises(ArtifactError, match="no contract"):
        load_deployable(tmp_path / "bare.safetensors")


def test_a_missing_checkpoint_and_a_strange_suffix_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_deployable(tmp_path / "none.safetensors")
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="no checkpoint"):
        load_deployable(tmp_path / "w.onnx", trust=True)


def test_an_unknown_detector_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="mshnet"):
        find_detector("hypernet")


def test_raw_counts_give_the_same_mask_whatever_their_range() -> None:
    deployable = MaskDeployable(network(), (100.0,), (30.0,), "min-max").eval()
    counts = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (1, 1, 32, 32))).float()
    counts[0, 0, 0, :2] = torch.tensor([0.0, 255.0])
    with torch.no_grad():
        torch.testing.assert_close(deployable(counts), deployable(counts * 64 + 300), rtol=1e-4, atol=1e-5)
        flat = deployable(torch.full((1, 1, 32, 32), 7000.0))
    assert bool(torch.isfinite(flat).all())


def test_a_gain_control_that_needs_the_host_is_refused_in_the_graph() -> None:
    with pytest.raises(ValueError, match="percentile"):
        MaskDeployable(network(), (100.0,), (30.0,), "percentile")
