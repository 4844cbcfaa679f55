"""Published weights load by name: detectron2's, Caffe2's and torchvision's; what does not fit is named."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from irforge.errors import ArtifactError
from irforge.train.checkpoint import load_deployable
from irforge.train.detectors.twostage.convert import convert
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.published import fill, read_arrays, renamed

Make = Callable[..., TwoStage]
State = dict[str, Tensor]


def to_torchvision(state: State) -> State:
    """A pyramid detector's weights as torchvision 0.13 and later name and order them."""
    named: State = {}
    for name, value in state.items():
        name = name.replace("backbone.bottom_up.stem.", "backbone.body.")
        name = re.sub(r"backbone\.bottom_up\.res(\d)", lambda m: f"backbone.body.layer{int(m[1]) - 1}", name)
        if name.startswith("backbone.body."):
            name = re.sub(r"\bconv(\d)\.norm\.", r"bn\1.", name)
            name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
        name = re.sub(r"backbone\.fpn_lateral(\d)", lambda m: f"backbone.fpn.inner_blocks.{int(m[1]) - 2}.0", name)
        name = re.sub(r"backbone\.fpn_output(\d)", lambda m: f"backbone.fpn.layer_blocks.{int(m[1]) - 2}.0", name)
        name = name.replace("proposal_generator.rpn_head.conv.", "rpn.head.conv.0.0.")
        name = name.replace("proposal_generator.rpn_head.objectness_logits", "rpn.head.cls_logits")
        name = name.replace("proposal_generator.rpn_head.anchor_deltas", "rpn.head.bbox_pred")
        name = name.replace("box_head.fc1", "box_head.fc6").replace("box_head.fc2", "box_head.fc7")
        if "cls_score" in name:
            value = torch.cat([value[-1:], value[:-1]])
        elif "box_predictor.bbox_pred" in name:
            value = torch.cat([torch.full_like(value[:4], 9.0), value])
        named[name] = value
    return named


def to_caffe2(state: State) -> dict[str, np.ndarray]:
    """A C4 detector's ResNet as MSRA's pickles have it: norms are a scale and a shift."""
    branches = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    named = {"fc1000_w": np.zeros((2, 2), np.float32), "conv1_w_momentum": np.zeros(1, np.float32)}
    for name, value in state.items():
        parts = re.fullmatch(r"(?:backbone|roi_heads)\.(stem|res\d)\.(?:(\d+)\.)?(\w+)\.(norm\.)?(weight|bias)", name)
        if parts is None:
            continue
        stage, block, conv, norm, kind = parts.groups()
        base = f"{stage}_{block}_{branches[conv]}" if block else ("res_conv1" if norm else "conv1")
        suffix = ("_bn_s" if kind == "weight" else "_bn_b") if norm else "_w"
        named[base + suffix] = value.numpy()
    return named


def equal(network: TwoStage, state: State) -> bool:
    return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_torchvisions_detector_loads_with_its_background_moved(lively: Make) -> None:
    ours, other = lively(pyramid=True), lively(seed=1, pyramid=True)
    state = other.state_dict()
    assert fill(ours, renamed(to_torchvision(state), ours.state_dict()), "tv.pth", body_only=False) == []
    assert equal(ours, state)


@pytest.mark.parametrize("pyramid", [False, True])
def test_a_bare_resnet_of_torchvision_starts_a_detector(lively: Make, pyramid: bool) -> None:
    ours, other = lively(pyramid=pyramid), lively(seed=1, pyramid=True)
    theirs = to_torchvision(other.state_dict())
    bare = {n.removeprefix("backbone.body."): v for n, v in theirs.items() if n.startswith("backbone.body.")}
    bare |= {"fc.weight": torch.zeros(3, 512), "bn1.num_batches_tracked": torch.tensor(5)}
    left = fill(ours, renamed(bare, ours.state_dict()), "r18.pth", body_only=True)
    body = "backbone.bottom_up.res5" if pyramid else "roi_heads.res5"
    assert torch.equal(ours.get_submodule(body)[1].conv2.weight, other.backbone.bottom_up.res5[1].conv2.weight)
    assert left and not any("res" in name.split(".")[1] for name in left)


def test_msras_pickle_of_arrays_starts_a_c4_detector(lively: Make, tmp_path: Path) -> None:
    ours, other = lively(depth=50), TwoStage(depth=50, pyramid=False)
    for module in other.modules():
        if hasattr(module, "running_var"):
            module.weight.uniform_(0.5, 1.0)
            module.bias.uniform_(-0.1, 0.1)
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": to_caffe2(other.state_dict())}, protocol=2))
    weights = read_arrays(tmp_path / "R-50.pkl", trust=True)
    fill(ours, renamed(weights, ours.state_dict()), "R-50.pkl", body_only=True)
    x = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.allclose(ours.eval().backbone(x)[-1], other.eval().backbone(x)[-1], atol=1e-5)


def test_detectron2s_names_are_ours(lively: Make, tmp_path: Path) -> None:
    state = {name: value.numpy() for name, value in lively(seed=1).state_dict().items()}
    state |= {
        "pixel_mean": np.zeros((3, 1, 1)),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((15, 4)),
    }
    (tmp_path / "d2.pkl").write_bytes(pickle.dumps(OrderedDict(model=state, __author__="d2"), protocol=2))
    ours = lively()
    fill(ours, renamed(read_arrays(tmp_path / "d2.pkl", trust=True), ours.state_dict()), "d2.pkl", body_only=False)
    assert equal(ours, lively(seed=1).state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("backbone.res3.0.conv1.weight"), "lacks 'backbone.res3.0.conv1.weight'"),
        (lambda s: s.update({"affine_rpn.weight": torch.ones(1)}), "has 'affine_rpn.weight', which the network lacks"),
        (
            lambda s: s.update({"roi_heads.box_predictor.cls_score.bias": torch.ones(9)}),
            r"'roi_heads.box_predictor.cls_score.bias' of 'x.pth' is \(9,\), the network's \(4,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(lively: Make, change: Callable[[State], Any], words: str) -> None:
    network = lively()
    state = dict(network.state_dict())
    change(state)
    with pytest.raises(ArtifactError, match=words):
        fill(network, renamed(state, network.state_dict()), "x.pth", body_only=False)


def test_a_pickle_builds_arrays_alone_and_only_if_trusted(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": np.zeros(2)}, "hook": re.compile("x")}))
    with pytest.raises(ArtifactError, match="--trust"):
        read_arrays(path, trust=False)
    with pytest.raises(ArtifactError, match="is no array"):
        read_arrays(path, trust=True)


def test_the_command_writes_a_checkpoint_that_explains_itself(lively: Make, tmp_path: Path) -> None:
    import typer

    torch.save({"model": lively().state_dict(), "iteration": 0}, tmp_path / "model.pth")
    app = typer.Typer()
    app.command()(convert)
    options = ["pyramid=false", "depth=18", "anchor_sizes=[8,16,32,48,64]"]
    arguments = [
        str(tmp_path / "model.pth"),
        "-o",
        str(tmp_path / "out.safetensors"),
        "--trust",
        "--classes",
        "car, person, deer",
    ]
    done = CliRunner().invoke(app, [*arguments, *(part for one in options for part in ("--option", one))])
    assert done.exit_code == 0, done.output
    deployable, contract = load_deployable(tmp_path / "out.safetensors")
    assert contract.output.classes == ["car", "person", "deer"]
    assert equal(deployable.network, lively().state_dict())
