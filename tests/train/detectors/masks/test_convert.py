"""Published weights of ACM and ALCNet, in the files they come in, become checkpoints of ours; nothing in them runs."""

from __future__ import annotations

import pickle
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from irforge.errors import ArtifactError, InputError
from irforge.train.checkpoint import load_deployable
from irforge.train.detectors.acm.convert import convert
from irforge.train.detectors.acm.network import acm
from irforge.train.detectors.acm.published import read_mxnet, read_published
from irforge.train.detectors.alcnet.network import ALCNet

FRAMES = torch.randint(0, 256, (1, 1, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def published_shapes(blocks: int = 4) -> dict[str, tuple[int, ...]]:
    """Names and shapes of ACM-FPN as its PyTorch port writes it."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def conv(name: str, width: int, source: int, side: int, bias: bool) -> None:
        shapes[f"{name}.weight"] = (width, source, side, side)
        if bias:
            shapes[f"{name}.bias"] = (width,)

    norm("stem.0", 3)
    for place, width, source in ((1, 8, 3), (4, 8, 8), (7, 16, 8)):
        conv(f"stem.{place}", width, source, 3, False)
        norm(f"stem.{place + 1}", width)
    for layer, source, width in ((1, 16, 16), (2, 16, 32), (3, 32, 64)):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            conv(f"{name}.body.0", width, source if block == 0 else width, 3, False)
            norm(f"{name}.body.1", width)
            conv(f"{name}.body.3", width, width, 3, False)
            norm(f"{name}.body.4", width)
            if block == 0 and layer > 1:
                conv(f"{name}.downsample.0", width, source, 1, False)
                norm(f"{name}.downsample.1", width)
    for name, high, width in (("fuse23", 64, 32), ("fuse12", 32, 16)):
        conv(f"{name}.feature_high.0", width, high, 1, True)
        norm(f"{name}.feature_high.1", width)
        for gate, first in (("topdown", 1), ("bottomup", 0)):
            conv(f"{name}.{gate}.{first}", width // 4, width, 1, True)
            norm(f"{name}.{gate}.{first + 1}", width // 4)
            conv(f"{name}.{gate}.{first + 3}", width, width // 4, 1, True)
            norm(f"{name}.{gate}.{first + 4}", width)
        conv(f"{name}.post.0", width, width, 3, True)
        norm(f"{name}.post.1", width)
    conv("head.block.0", 4, 16, 3, False)
    norm("head.block.1", 4)
    conv("head.block.4", 1, 4, 1, True)
    return shapes


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {
        name: torch.tensor(7) if not shape else torch.rand(shape) * 0.2 + (0.5 if "running_var" in name else 0.01)
        for name, shape in shapes.items()
    }


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[nn.Module]:
    """A module of classes that are gone once it is saved, with ACM-FPN's names in it."""
    weights = filled(published_shapes())
    code = types.ModuleType("research_code")
    made: dict[str, type[nn.Module]] = {}
    for name in ("Network", "Part"):
        made[name] = type(name, (nn.Module,), {"__module__": "research_code"})
        setattr(code, name, made[name])
    sys.modules["research_code"] = code
    root = made["Network"]()
    for name, tensor in weights.items():
        *parents, leaf = name.split(".")
        place = root
        for parent in parents:
            if parent not in place._modules:
                place.add_module(parent, made["Part"]())
            place = place._modules[parent]  # type: ignore[assignment]
        if leaf in ("weight", "bias"):
            place.register_parameter(leaf, nn.Parameter(tensor))
        else:
            place.register_buffer(leaf, tensor)
    yield root
    sys.modules.pop("research_code", None)


def test_the_published_names_and_shapes_are_the_networks_own() -> None:
    shapes = published_shapes()
    assert {name: tuple(tensor.shape) for name, tensor in acm().state_dict().items()} == shapes


@pytest.mark.parametrize("container", ["archive", "sequence"])
def test_a_pickled_module_is_read_without_its_code(foreign: nn.Module, tmp_path: Path, container: str) -> None:
    path, out = tmp_path / "Epoch-184.pkl", tmp_path / "acm.safetensors"
    expected = {name: tensor.clone() for name, tensor in foreign.state_dict().items()}
    torch.save(foreign, path, _use_new_zipfile_serialization=container == "archive")
    del sys.modules["research_code"]
    with pytest.raises(ArtifactError, match="--trust"):
        convert(path, out)
    convert(path, out, trust=True)
    deployable, contract = load_deployable(out)
    found = deployable.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert contract.provenance.network["decoder"] == "fpn" and not contract.provenance.network["align_corners"]
    assert contract.input.size == (512, 512) and contract.output.score_threshold == 0.5
    with torch.no_grad():
        assert deployable(FRAMES).shape == (1, 1, 80, 80)


def test_a_state_dict_is_read_too_and_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save(filled(published_shapes()), tmp_path / "weights.pth")
    convert(tmp_path / "weights.pth", tmp_path / "out.safetensors", trust=True)
    assert load_deployable(tmp_path / "out.safetensors")[1].provenance.detector == "acm"
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ArtifactError, match="neither ACM's nor ALCNet's"):
        convert(tmp_path / "other.pth", tmp_path / "other.safetensors", trust=True)
    with pytest.raises(InputError, match="do not exist"):
        convert(tmp_path / "none.pth", tmp_path / "other.safetensors", trust=True)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, archive: bool) -> None:
    path, sprung = tmp_path / "trap.pkl", tmp_path / "sprung"
    torch.save(Trap(str(sprung)), path, _use_new_zipfile_serialization=archive)
    with pytest.raises(ArtifactError, match="no weights"):
        read_published(path, trust=True)
    torch.save({"state_dict": {"conv.weight": Trap(str(sprung))}}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(ArtifactError, match="no weights"):
        read_published(path, trust=True)
    path.write_bytes(pickle.dumps(Trap(str(sprung))))
    with pytest.raises(ArtifactError):
        read_published(path, trust=True)
    assert not sprung.exists()


@pytest.mark.parametrize("keep", [0, 10, 200, -100])
@pytest.mark.parametrize("archive", [True, False])
def test_a_module_cut_short_is_refused(foreign: nn.Module, tmp_path: Path, archive: bool, keep: int) -> None:
    path = tmp_path / "cut.pkl"
    torch.save(foreign, path, _use_new_zipfile_serialization=archive)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError):
        read_published(path, trust=True)


def mxnet_file(path: Path, weights: dict[str, Tensor]) -> Path:
    """As Gluon's `save_parameters` writes it."""
    arrays: list[bytes] = []
    names: list[bytes] = []
    for name, tensor in weights.items():
        if "num_batches" in name:
            continue
        layer, _, part = name.rpartition(".")
        is_norm = f"{layer}.running_mean" in weights
        own = {"weight": "gamma", "bias": "beta"}.get(part, part) if is_norm else part
        shape = struct.pack(f"<I{tensor.ndim}q", tensor.ndim, *tensor.shape)
        head = struct.pack("<Ii", 0xF993FAC9, 0) + shape + struct.pack("<iii", 1, 0, 0)
        arrays.append(head + tensor.numpy().astype("<f4").tobytes())
        text = f"{layer}.{own}".encode()
        names.append(struct.pack("<Q", len(text)) + text)
    count = struct.pack("<Q", len(arrays))
    path.write_bytes(struct.pack("<QQ", 0x112, 0) + count + b"".join(arrays) + count + b"".join(names))
    return path


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (lambda: ALCNet(), {"in_channels": 3, "blocks": 4}),
        (lambda: acm("unet", tiny=True, reduce=False), {"decoder": "unet", "tiny": True, "reduce": False}),
    ],
)
def test_the_authors_mxnet_files_load(network: Any, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = network().eval().state_dict()
    path, out = mxnet_file(tmp_path / "best.params", expected), tmp_path / "out.safetensors"
    convert(path, out)
    deployable, contract = load_deployable(out)
    assert options.items() <= contract.provenance.network.items() and contract.provenance.network["align_corners"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in deployable.network.state_dict().items())
    content = path.read_bytes()
    for wrong in (content[:-3], content[:2000], b"", b"PK" + content, content.replace(b"\xc9\xfa\x93\xf9", b"abcd")):
        path.write_bytes(wrong)
        with pytest.raises(ArtifactError, match="no MXNet parameter file"):
            read_mxnet(path)
    assert np.isfinite(deployable(FRAMES).detach().numpy()).all()
