"""Published weights of two-stage detectors by our names.

Three families are known. detectron2's, with DeFRCN's, RISF's and GLMD-CA's: the names are the network's own. Caffe2's,
with `res2_0_branch2a_w`: MSRA's ResNets and the detectors of Detectron. torchvision's ResNets and
`fasterrcnn_resnet50_fpn`, whose RoIAlign is not aligned and whose anchors are rounded to pixels: half a pixel off until
fine-tuned. The background of the last two is the first class.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irforge.errors import ArtifactError, InputError
from irforge.train.checkpoint import weights_of_container

Weights = dict[str, Tensor]

NOT_WEIGHTS = re.compile(
    r"(^|\.)(pixel_mean|pixel_std|cell_anchors\.\d+)$|_momentum$|^(lr|conv1_b|fc1000_[wb]|pred_[wb])$"
    r"|^((stem\.)?fc|linear)\.(weight|bias)$"
)
"""What checkpoints hold beside weights, or beside a detector's. `conv1_b` stands before a norm; detectron2 has no place
for it either."""

_CAFFE2_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CAFFE2 = (
    (r"^(res_)?conv1_", "stem.conv1_"),
    (r"^res(\d)_(\d+)_branch(1|2[abc])_", lambda m: f"res{m[1]}.{m[2]}.{_CAFFE2_BRANCHES[m[3]]}_"),
    (r"^fpn_inner_res(\d)_\d+_sum(_lateral)?_", r"backbone.fpn_lateral\1_"),
    (r"^fpn_res(\d)_\d+_sum_", r"backbone.fpn_output\1_"),
    (r"^conv_rpn(_fpn2)?_", "proposal_generator.rpn_head.conv_"),
    (r"^rpn_cls_logits(_fpn2)?_", "proposal_generator.rpn_head.objectness_logits_"),
    (r"^rpn_bbox_pred(_fpn2)?_", "proposal_generator.rpn_head.anchor_deltas_"),
    (r"^fc([67])_", lambda m: f"roi_heads.box_head.fc{int(m[1]) - 5}_"),
    (r"^(cls_score|bbox_pred)_", r"roi_heads.box_predictor.\1_"),
    (r"_bn_s$", ".norm.weight"),
    (r"_bn_b$", ".norm.bias"),
    (r"_w$", ".weight"),
    (r"_b$", ".bias"),
)
_TORCHVISION = (
    (r"^backbone\.fpn\.inner_blocks\.(\d)(?:\.0)?\.", lambda m: f"backbone.fpn_lateral{int(m[1]) + 2}."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)(?:\.0)?\.", lambda m: f"backbone.fpn_output{int(m[1]) + 2}."),
    (r"^rpn\.head\.conv(?:\.0\.0)?\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.head\.cls_logits\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^rpn\.head\.bbox_pred\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "roi_heads.box_head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_heads.box_head.fc2."),
)
_TORCHVISION_BODY = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"^layer(\d)\.", lambda m: f"res{int(m[1]) + 1}."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"\bdownsample\.0\.", "shortcut."),
    (r"\bdownsample\.1\.", "shortcut.norm."),
)


def read_arrays(path: Path, trust: bool) -> Weights:
    """The tensors of a `.safetensors`, `.pth` or `.pkl` file, by their own names.

    A `.pkl` of detectron2's model zoo is a bare pickle of NumPy arrays; nothing but arrays is built from it.

    Raises:
        InputError: there is no such file.
        ArtifactError: it is a pickle and `trust` is off, or holds no weights.
    """
    if not path.is_file():
        raise InputError(f"weights '{path}' do not exist", "Check the path")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if not trust:
        raise ArtifactError(
            f"'{path}' is a pickle, which can run code of whoever made it", "Add --trust if you know where it is from"
        )
    try:
        with open(path, "rb") as file:
            is_archive = file.read(2) == b"PK"
            file.seek(0)
            content = torch.load(file, "cpu", weights_only=True) if is_archive else _ArraysOnly(file).load()
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ArtifactError(f"'{path}' holds no weights that can be read: {str(error).splitlines()[0]}") from None
    for key in ("model", "blobs"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if isinstance(content, Mapping):
        content = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in content.items()}
        content = {name: value for name, value in content.items() if isinstance(value, Tensor)} or content
    return weights_of_container(content, str(path))


class _ArraysOnly(pickle.Unpickler):
    """Arrays in plain containers, and an error for all else."""

    _allowed = ("_reconstruct", "ndarray", "dtype", "scalar", "OrderedDict", "encode", "_frombuffer")

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if name in self._allowed and module.split(".")[0] in ("numpy", "collections", "_codecs"):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"'{module}.{name}' is no array")


def is_pyramid(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a whole detector, by any family's names, have a feature pyramid."""
    return any("fpn" in name for name in weights)


def levels_of(weights: Mapping[str, Tensor]) -> tuple[float, float] | None:
    """(mean, standard deviation) in levels by which their training normalised, as a mean over the channels; None where
    neither the file nor the family tells."""
    if "pixel_mean" in weights and "pixel_std" in weights:
        return float(weights["pixel_mean"].mean()), float(weights["pixel_std"].mean())
    if "conv1_w" in weights:
        return 113.899, 1.0
    if "rpn.head.cls_logits.weight" in weights or "layer1.0.conv1.weight" in weights:
        return 114.495, 57.63
    return None


def renamed(weights: Mapping[str, Tensor], pyramid: bool) -> Weights:
    """Weights of a known family by the names of a network.

    Args:
        weights: as a file has them.
        pyramid: the network's form, which says where its ResNet stands.
    """
    known = {name: value for name, value in weights.items() if not NOT_WEIGHTS.search(name)}
    body = "backbone.bottom_up." if pyramid else "backbone."
    if "conv1_w" in known:
        known = _of_caffe2(known)
    elif "rpn.head.cls_logits.weight" in known or "layer1.0.conv1.weight" in known:
        known = _of_torchvision(known)
    placed = {}
    for name, value in known.items():
        if name.startswith("res5.") and not pyramid:
            name = f"roi_heads.{name}"
        elif name.startswith(("stem.", "res")):
            name = body + name
        placed[name] = value
    return placed


def _of_caffe2(weights: Weights) -> Weights:
    named = {}
    for name, value in weights.items():
        for pattern, replacement in _CAFFE2:
            name = re.sub(pattern, replacement, name)
        named[name] = value
    # Their norm is a scale and a shift; ours then has the statistics that leave those as they are.
    for name in [name for name in named if name.endswith(".norm.weight")]:
        base = name.removesuffix("weight")
        named[f"{base}running_mean"] = torch.zeros_like(named[name])
        named[f"{base}running_var"] = torch.ones_like(named[name]) - 1e-5
    return _background_last(named)


def _of_torchvision(weights: Weights) -> Weights:
    named = {}
    for name, value in weights.items():
        for pattern, replacement in _TORCHVISION:
            name = re.sub(pattern, replacement, name)
        if not name.startswith(("backbone.fpn", "proposal_generator.", "roi_heads.")):
            name = name.removeprefix("backbone.body.")
            for pattern, replacement in _TORCHVISION_BODY:
                name = re.sub(pattern, replacement, name)
        named[name] = value
    return _background_last(named)


def _background_last(weights: Weights) -> Weights:
    """Predictors whose first class is the background, as ours: it comes last, and has no box."""
    predictor = "roi_heads.box_predictor."
    moved = {}
    for name, value in weights.items():
        if name.startswith(f"{predictor}cls_score."):
            value = torch.cat([value[1:], value[:1]])
        elif name.startswith(f"{predictor}bbox_pred."):
            value = value[4:]
        moved[name] = value
    return moved


def fill(network: nn.Module, weights: Mapping[str, Tensor], where: str, body_only: bool) -> list[str]:
    """Put weights into a network; returns the names that keep their start values.

    Args:
        weights: by the network's names.
        body_only: the file has a ResNet alone: everything else may be missing.

    Raises:
        ArtifactError: a tensor is missing, of another shape, or of a part that the network lacks; the message names
            the first ones.
    """
    state = network.state_dict()
    counters = {name for name in weights if name.endswith("num_batches_tracked") and name not in state}
    weights = {name: value for name, value in weights.items() if name not in counters}
    missing = sorted(set(state) - set(weights))
    if body_only:
        needed = [n for n in missing if n.startswith(("backbone.", "roi_heads.res5.")) and ".fpn_" not in n]
    else:
        needed = missing
    needed = [name for name in needed if not name.endswith("num_batches_tracked")]
    if needed:
        raise ArtifactError(f"'{where}' lacks {_listed(needed)}", "Choose the network options that the weights have")
    if unknown := sorted(set(weights) - set(state)):
        raise ArtifactError(
            f"'{where}' has {_listed(unknown)}, which the network lacks", "Choose the network options that it has"
        )
    for name, value in weights.items():
        if value.shape != state[name].shape:
            raise ArtifactError(
                f"'{name}' of '{where}' is {tuple(value.shape)}, the network's {tuple(state[name].shape)}",
                "Choose the network options that the weights have",
            )
    network.load_state_dict(dict(weights), strict=False)
    return missing


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + rest
