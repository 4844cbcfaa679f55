"""Published weights, under the names and shapes that mmdetection gave them, become a checkpoint of ours.

The authors' files are not at hand: the names below are those that their training code makes, and their number and sizes
those of its log.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from irforge.contract import Contract, InputSpec, Normalization, Provenance, Squash
from irforge.errors import IrforgeError
from irforge.train.checkpoint import load_deployable, read_contract, save_checkpoint
from irforge.train.detectors.oscar.convert import convert
from irforge.train.detectors.oscar.deploy import OSCAR, without_dead_convolutions
from irforge.train.detectors.oscar.network import Oscar


def published_shapes(channels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes as mmdetection 2.25 writes this model, batch norm's statistics included."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    for place, (source, width) in zip((0, 3, 6), ((3, 32), (32, 32), (32, 64)), strict=True):
        shapes[f"backbone.stem.{place}.weight"] = (width, source, 3, 3)
        norm(f"backbone.stem.{place + 1}", width)
    source = 64
    for layer, width in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"backbone.layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, source, 3, 3)
            norm(f"{name}.bn1", width)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            norm(f"{name}.bn2", width)
            if source != width:
                shapes[f"{name}.downsample.0.weight"] = (width, source, 1, 1)
                norm(f"{name}.downsample.1", width)
            source = width
    for level, width in enumerate((64, 128, 256, 512)):
        shapes[f"neck.lateral_convs.{level}.conv.weight"] = (channels, width, 1, 1)
        shapes[f"neck.lateral_convs.{level}.conv.bias"] = (channels,)
        shapes[f"neck.fpn_convs.{level}.conv.weight"] = (channels, channels, 3, 3)
        shapes[f"neck.fpn_convs.{level}.conv.bias"] = (channels,)
    features = channels // 2
    for tower in ("refine_cls", "coarse_cls", "refine_reg", "coarse_reg", "refine_noco"):
        for depth in range(4):
            source = features if depth else channels + (features if tower == "refine_reg" else 0)
            shapes[f"bbox_head.{tower}_convs.{depth}.conv.weight"] = (features, source, 3, 3)
            shapes[f"bbox_head.{tower}_convs.{depth}.gn.weight"] = (features,)
            shapes[f"bbox_head.{tower}_convs.{depth}.gn.bias"] = (features,)
    for level, parts in (("coarse", ("cls", "reg", "mod")), ("refine", ("cls", "reg", "noco", "mod"))):
        for part in parts:
            width = 4 if part == "reg" else 1
            shapes[f"bbox_head.{level}_conv_{part}.weight"] = (width, features, 3, 3)
            shapes[f"bbox_head.{level}_conv_{part}.bias"] = (width,)
    return shapes | {"bbox_head.scales.0.scale": (), "bbox_head.scales.1.scale": ()}


def published(channels: int = 128) -> OrderedDict[str, Tensor]:
    """Random weights, positive where batch norm keeps variances."""
    torch.manual_seed(channels)
    weights = OrderedDict()
    for name, shape in published_shapes(channels).items():
        count = torch.zeros(shape, dtype=torch.int64)
        weights[name] = count if "num_batches" in name else torch.rand(shape) * 0.05 + 0.001
    return weights


def write(path: Path, weights: OrderedDict[str, Tensor]) -> Path:
    meta: dict[str, Any] = {"epoch": 10, "iter": 5770, "mmdet_version": "2.25.2", "CLASSES": ("Target",), "seed": None}
    torch.save({"meta": meta, "state_dict": weights, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


@pytest.mark.parametrize(("channels", "parameters"), [(128, 12_877_999), (256, 17_656_815)])
def test_the_published_names_are_158_parameters_of_the_published_sizes(channels: int, parameters: int) -> None:
    shapes = published_shapes(channels)
    network = Oscar(channels, dead_convolutions=True)
    assert {name: tuple(weight.shape) for name, weight in network.state_dict().items()} == shapes
    learnt = {name: shape for name, shape in shapes.items() if "running" not in name and "num_batches" not in name}
    assert len(learnt) == 158
    assert sum(torch.Size(shape).numel() for shape in learnt.values()) == parameters


def test_a_published_pickle_loads_as_it_is_with_the_published_preprocessing(tmp_path: Path) -> None:
    weights = published()
    path = write(tmp_path / "epoch_10.pth", weights)
    with pytest.raises(IrforgeError, match="is a pickle"):
        load_deployable(path)
    deployable, contract = load_deployable(path, trust=True)
    assert contract.provenance.detector == "oscar"
    assert contract.provenance.network == {"channels": 128, "in_channels": 3, "dead_convolutions": True}
    assert (contract.input.normalization.mean, contract.input.normalization.std) == (111.89, 27.62)
    assert deployable.normalise.mean.flatten().tolist() == pytest.approx([111.89] * 3)
    loaded = deployable.network.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


def test_conversion_leaves_out_what_is_never_used_and_keeps_every_map(tmp_path: Path) -> None:
    weights = published()
    path, out = write(tmp_path / "epoch_10.pth", weights), tmp_path / "oscar.safetensors"
    import typer

    application = typer.Typer()
    application.command()(convert)
    done = CliRunner().invoke(application, [str(path), "-o", str(out), "--trust"])
    assert done.exit_code == 0, done.output
    assert "12,582,831 parameters" in done.output
    contract = read_contract(out)
    assert contract.provenance.network == {"channels": 128, "in_channels": 3, "dead_convolutions": False}
    assert contract.provenance.history[-1] == {"tool": "convert", "source": "epoch_10.pth"}
    before, _ = load_deployable(path, trust=True)
    after, _ = load_deployable(out)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for expected, found in zip(before.network(x), after.network(x), strict=True):
            assert torch.equal(expected, found)


def test_the_coarse_and_the_fine_predictors_do_not_get_mixed_up(tmp_path: Path) -> None:
    weights = published()
    for name in weights:
        if name.startswith("bbox_head.") and name.endswith("conv_cls.bias"):
            weights[name].fill_(3.0 if "coarse" in name else -3.0)
    weights["bbox_head.scales.0.scale"].fill_(0.0)
    deployable, _ = load_deployable(write(tmp_path / "w.pth", weights), trust=True)
    head = deployable.network.bbox_head
    assert (head.coarse_conv_cls.bias.item(), head.refine_conv_cls.bias.item()) == (3.0, -3.0)
    with torch.no_grad():
        maps = deployable.network(torch.randn(1, 3, 64, 64))
    assert not maps.delta.any(), "the first scale is the fine level's"
    assert maps.ltrb.min() > 1


def test_weights_with_another_models_names_are_not_taken_for_oscar() -> None:
    weights = published()
    assert OSCAR.options_of(weights) is not None
    del weights["bbox_head.refine_conv_noco.bias"]
    assert OSCAR.options_of(weights) is None
    assert OSCAR.options_of({"conv.weight": torch.zeros(1)}) is None


def test_a_checkpoint_of_another_detector_is_refused(tmp_path: Path) -> None:
    from irforge.train.detectors.mshnet.deploy import MSHNET

    spec = InputSpec(height=64, width=64, fit=Squash(), normalization=Normalization(mean=100, std=35))
    contract = Contract(input=spec, output=MSHNET.output(0.5), provenance=Provenance(detector="mshnet"))
    save_checkpoint(tmp_path / "other.safetensors", MSHNET.build(), contract)
    with pytest.raises(IrforgeError, match="are not OSCAR"):
        convert(tmp_path / "other.safetensors", tmp_path / "out.safetensors", True, 0.05)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("dead", [False, True])
def test_stripping_keeps_options_and_mode(dead: bool) -> None:
    network = Oscar(64, in_channels=1, dead_convolutions=dead).eval()
    lean = without_dead_convolutions(network)
    assert not lean.training and len(lean.neck.fpn_convs) == 2
    assert lean.in_channels == 1
    assert torch.equal(lean.bbox_head.coarse_conv_reg.weight, network.bbox_head.coarse_conv_reg.weight)
