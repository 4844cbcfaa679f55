"""Published weights load by name: detectron2's, Caffe2's and torchvision's; what does not fit is named.

Where detectron2 is, its own models and its own reading of Caffe2's names are what ours is held to."""

from __future__ import annotations

import importlib.util
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
from irforge.train.detectors.twostage.deploy import FASTER_RCNN
from irforge.train.detectors.twostage.network import TwoStage
from irforge.train.detectors.twostage.published import fill, is_pyramid, levels_of, read_arrays, renamed

Make = Callable[..., TwoStage]
State = dict[str, Tensor]

needs_detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None,
    reason="detectron2 is not installed; docs/detectron2.md says how to build it",
)


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
    """A detector's weights as Detectron's pickles have them: norms are a scale and a shift, the background is first."""
    branches = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    of_rpn = "_fpn2" if is_pyramid(state) else ""
    others = {
        "proposal_generator.rpn_head.conv": f"conv_rpn{of_rpn}",
        "proposal_generator.rpn_head.objectness_logits": f"rpn_cls_logits{of_rpn}",
        "proposal_generator.rpn_head.anchor_deltas": f"rpn_bbox_pred{of_rpn}",
        "roi_heads.box_head.fc1": "fc6",
        "roi_heads.box_head.fc2": "fc7",
        "roi_heads.box_predictor.cls_score": "cls_score",
        "roi_heads.box_predictor.bbox_pred": "bbox_pred",
        "backbone.fpn_lateral5": "fpn_inner_res5_2_sum",
    }
    for stage, last in ((2, 2), (3, 3), (4, 5), (5, 2)):
        others.setdefault(f"backbone.fpn_lateral{stage}", f"fpn_inner_res{stage}_{last}_sum_lateral")
        others[f"backbone.fpn_output{stage}"] = f"fpn_res{stage}_{last}_sum"
    named = {"fc1000_w": np.zeros((2, 2), np.float32), "conv1_w_momentum": np.zeros(1, np.float32)}
    named["conv1_b"] = np.zeros(64, np.float32)
    pattern = r"(?:backbone|backbone\.bottom_up|roi_heads)\.(stem|res\d)\.(?:(\d+)\.)?(\w+)\.(norm\.)?(weight|bias)"
    for name, value in state.items():
        base, _, kind = name.rpartition(".")
        if base in others:
            if base.endswith("cls_score"):
                value = torch.cat([value[-1:], value[:-1]])
            elif base.endswith("bbox_pred"):
                value = torch.cat([torch.full_like(value[:4], 9.0), value])
            named[f"{others[base]}_{kind[0]}"] = value.numpy()
        elif parts := re.fullmatch(pattern, name):
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
    assert fill(ours, renamed(to_torchvision(state), True), "tv.pth", body_only=False) == []
    assert equal(ours, state)


@pytest.mark.parametrize("pyramid", [False, True])
def test_a_bare_resnet_of_torchvision_starts_a_detector(lively: Make, pyramid: bool) -> None:
    ours, other = lively(pyramid=pyramid), lively(seed=1, pyramid=True)
    theirs = to_torchvision(other.state_dict())
    bare = {n.removeprefix("backbone.body."): v for n, v in theirs.items() if n.startswith("backbone.body.")}
    bare |= {"fc.weight": torch.zeros(3, 512), "bn1.num_batches_tracked": torch.tensor(5)}
    left = fill(ours, renamed(bare, pyramid), "r18.pth", body_only=True)
    body = "backbone.bottom_up.res5" if pyramid else "roi_heads.res5"
    assert torch.equal(ours.get_submodule(body)[1].conv2.weight, other.backbone.bottom_up.res5[1].conv2.weight)
    assert left and not any("res" in name.split(".")[1] for name in left)


def test_msras_pickle_of_arrays_starts_a_c4_detector(lively: Make, tmp_path: Path) -> None:
    ours, other = lively(depth=50), TwoStage(depth=50, pyramid=False)
    for module in other.modules():
        if hasattr(module, "running_var"):
            module.weight.uniform_(0.5, 1.0)
            module.bias.uniform_(-0.1, 0.1)
    body = {name: value for name, value in to_caffe2(other.state_dict()).items() if re.match("conv1_|res|fc1000", name)}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": body}, protocol=2))
    weights = read_arrays(tmp_path / "R-50.pkl", trust=True)
    left = fill(ours, renamed(weights, pyramid=False), "R-50.pkl", body_only=True)
    assert {name.split(".")[0] for name in left} == {"proposal_generator", "roi_heads"}
    assert levels_of(weights) == (113.899, 1.0)
    x = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.allclose(ours.eval().backbone(x)[-1], other.eval().backbone(x)[-1], atol=1e-5)


@pytest.mark.parametrize("pyramid", [False, True])
def test_detectrons_detectors_load_with_their_background_moved(lively: Make, pyramid: bool) -> None:
    ours, other = TwoStage(depth=50, pyramid=pyramid, class_count=3), lively(depth=50, pyramid=pyramid)
    weights = {name: torch.from_numpy(value) for name, value in to_caffe2(other.state_dict()).items()}
    assert is_pyramid(weights) == pyramid
    assert fill(ours, renamed(weights, pyramid), "R-50.pkl", body_only=False) == []
    state = other.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items() if "running_" not in name)


def test_a_resnet_that_detectron2_took_from_torchvision_starts_a_detector(lively: Make) -> None:
    ours, other = lively(), lively(seed=1, pyramid=True)
    bare = {n.removeprefix("backbone.bottom_up."): v for n, v in other.state_dict().items() if "bottom_up." in n}
    bare |= {"stem.fc.weight": torch.zeros(3, 512), "stem.conv1.norm.num_batches_tracked": torch.tensor(5)}
    fill(ours, renamed(bare, pyramid=False), "r18.pkl", body_only=True)
    assert torch.equal(ours.backbone.stem.conv1.norm.running_var, other.backbone.bottom_up.stem.conv1.norm.running_var)
    assert torch.equal(ours.roi_heads.res5[1].conv2.weight, other.backbone.bottom_up.res5[1].conv2.weight)


def test_detectron2s_names_are_ours(lively: Make, tmp_path: Path) -> None:
    state = {name: value.numpy() for name, value in lively(seed=1).state_dict().items()}
    state |= {
        "pixel_mean": np.zeros((3, 1, 1)),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((15, 4)),
    }
    (tmp_path / "d2.pkl").write_bytes(pickle.dumps(OrderedDict(model=state, __author__="d2"), protocol=2))
    ours = lively()
    fill(ours, renamed(read_arrays(tmp_path / "d2.pkl", trust=True), pyramid=False), "d2.pkl", body_only=False)
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
        fill(network, renamed(state, pyramid=False), "x.pth", body_only=False)


def test_a_pickle_builds_arrays_alone_and_only_if_trusted(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": np.zeros(2)}, "hook": re.compile("x")}))
    with pytest.raises(ArtifactError, match="--trust"):
        read_arrays(path, trust=False)
    with pytest.raises(ArtifactError, match="is no array"):
        read_arrays(path, trust=True)


def run_convert(*arguments: str) -> str:
    import typer

    app = typer.Typer()
    app.command()(convert)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_sees_options_and_writes_a_checkpoint_that_explains_itself(lively: Make, tmp_path: Path) -> None:
    """All but the anchors, of which only the number shows."""
    content = lively().state_dict() | {"pixel_mean": torch.tensor([100.0, 110, 120]), "pixel_std": torch.ones(3)}
    torch.save({"model": content, "iteration": 0}, tmp_path / "model.pth")
    out = tmp_path / "out.safetensors"
    said = run_convert(
        *(str(tmp_path / "model.pth"), "-o", str(out), "--trust", "--classes", "car, person, deer"),
        *("--option", "anchor_sizes=[8,16,32,48,64]"),
    )
    assert "ResNet-18, stride in the 3x3 convolution, C4, 7x7 bins, 3 classes, levels (x - 110) / 1" in said
    deployable, contract = load_deployable(out)
    assert contract.output.classes == ["car", "person", "deer"]
    assert (contract.input.normalization.mean, contract.input.normalization.std) == (110, 1)
    assert contract.input.pad_level == 110
    assert equal(deployable.network, lively().state_dict())


def test_levels_are_the_users_before_the_files(lively: Make, tmp_path: Path) -> None:
    torch.save(to_torchvision(lively(pyramid=True).state_dict()), tmp_path / "tv.pth")
    levels = {"(x - 114.495) / 57.63": (), "(x - 90) / 20": ("--mean", "90", "--std", "20")}
    for said, options in levels.items():
        arguments = (str(tmp_path / "tv.pth"), "-o", str(tmp_path / "out.safetensors"), "--trust", *options)
        assert said in run_convert(*arguments)


@needs_detectron2
@pytest.mark.parametrize(
    ("name", "bins", "suffix"),
    [("R_50_C4_3x", 14, ".pkl"), ("R_50_FPN_3x", 7, ".pth"), ("R_101_C4_3x", 14, ".pkl")],
)
def test_models_of_detectron2s_zoo_load_here_and_ours_load_there(
    name: str, bins: int, suffix: str, tmp_path: Path
) -> None:
    from detectron2 import model_zoo
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model
    from detectron2.solver import build_lr_scheduler, build_optimizer

    cfg = model_zoo.get_config(f"COCO-Detection/faster_rcnn_{name}.yaml")
    cfg.MODEL.DEVICE = "cpu"
    theirs = build_model(cfg)
    assert bins == cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
    state = {key: torch.full_like(value, index % 97) for index, (key, value) in enumerate(theirs.state_dict().items())}
    theirs.load_state_dict(state)
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        optimizer = build_optimizer(cfg, theirs)
        rest = {"optimizer": optimizer, "scheduler": build_lr_scheduler(cfg, optimizer)}
        DetectionCheckpointer(theirs, str(tmp_path), **rest).save("model", iteration=1)
    else:
        content = {"model": {key: value.numpy() for key, value in state.items()}, "__author__": "Detectron2 Model Zoo"}
        path.write_bytes(pickle.dumps(content, protocol=2))

    weights = renamed(read_arrays(path, trust=True), is_pyramid(state))
    assert set(weights) == set(state)
    options = FASTER_RCNN.options_of(weights)
    assert options is not None and options["class_count"] == 80
    ours = FASTER_RCNN.build(**options, bins=bins, stride_in_1x1=True)
    assert fill(ours, weights, path.name, body_only=False) == []
    assert equal(ours, state)

    back = {key: value + 1 for key, value in ours.state_dict().items()}
    torch.save({"model": back}, tmp_path / "ours.pth")
    DetectionCheckpointer(theirs).load(str(tmp_path / "ours.pth"))
    loaded = theirs.state_dict()
    assert set(loaded) == set(back) and all(torch.equal(loaded[key], back[key]) for key in back)


@needs_detectron2
@pytest.mark.parametrize("pyramid", [False, True])
def test_caffe2s_names_are_read_as_detectron2_reads_them(lively: Make, pyramid: bool) -> None:
    from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts

    state = lively(depth=50, pyramid=pyramid).state_dict()
    weights = {name: torch.from_numpy(value) for name, value in to_caffe2(state).items()}
    without = {name: value for name, value in weights.items() if not name.endswith("_momentum")}
    expected = align_and_update_state_dicts(state, without)
    ours = renamed(weights, pyramid)
    assert set(expected) - set(state) == {"fc1000.weight", "stem.conv1.bias"}
    matched = set(expected) & set(state)
    assert {name for name in set(ours) - matched if "running_" not in name} == set()
    assert all(torch.equal(ours[name], expected[name]) for name in matched)
