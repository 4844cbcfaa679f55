"""Published weights of two-stage detectors by our names.

Three families are known. detectron2's, with DeFRCN's, RISF's and GLMD-CA's: the names are the network's own. Caffe2's
(MSRA's ResNets), with `res2_0_branch2a_w`. torchvision's ResNets and `fasterrcnn_resnet50_fpn`, whose background is the
first class, whose RoIAlign is not aligned and whose anchors are rounded to pixels: half a pixel off until fine-tuned.
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

NOT_WEIGHTS = re.compile(r"(^|\.)(pixel_mean|pixel_std|cell_anchors\.\d+)$|_momentum$|^(lr|fc1000_[wb]|pred_[wb])$")
"""What checkpoints hold beside weights, or beside a detector's."""

_CAFFE2_NORMS = {"s": "weight", "b": "bias"}
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


def renamed(weights: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> Weights:
    """Weights of a known family by the names of a network.

    Args:
        weights: as a file has them.
        network: the state dict to be filled, which says where a bare ResNet goes.
    """
    known = {name: value for name, value in weights.items() if not NOT_WEIGHTS.search(name)}
    body = "backbone.bottom_up." if "backbone.bottom_up.stem.conv1.weight" in network else "backbone."
    if "conv1_w" in known:
        known = _of_caffe2(known)
    elif "rpn.head.cls_logits.weight" in known or "layer1.0.conv1.weight" in known:
        known = _of_torchvision(known, network)
    placed = {}
    for name, value in known.items():
        if name.startswith("res5.") and body == "backbone.":
            name = f"roi_heads.{name}"
        elif name.startswith(("stem.", "res")):
            name = body + name
        placed[name] = value
    return placed


def _of_caffe2(weights: Weights) -> Weights:
    branches = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
    named = {}
    for name, value in weights.items():
        name = re.sub(r"^(res_)?conv1_", "stem.conv1_", name)
        name = re.sub(r"^res(\d)_(\d+)_branch(1|2[abc])_", lambda m: f"res{m[1]}.{m[2]}.{branches[m[3]]}_", name)
        name = re.sub(r"_bn_([sb])$", lambda m: f".norm.{_CAFFE2_NORMS[m[1]]}", name)
        named[re.sub(r"_w$", ".weight", name)] = value
    # Their norm is a scale and a shift; ours then has the statistics that leave those as they are.
    for name in [name for name in named if name.endswith(".norm.weight")]:
        base = name.removesuffix("weight")
        named[f"{base}running_mean"] = torch.zeros_like(named[name])
        named[f"{base}running_var"] = torch.ones_like(named[name]) - 1e-5
    return named


def _of_torchvision(weights: Weights, network: Mapping[str, Tensor]) -> Weights:
    named = {}
    for name, value in weights.items():
        if name.startswith("fc."):
            continue
        for pattern, replacement in _TORCHVISION:
            name = re.sub(pattern, replacement, name)
        body = name.removeprefix("backbone.body.")
        if not name.startswith(("backbone.fpn", "proposal_generator.", "roi_heads.")):
            for pattern, replacement in _TORCHVISION_BODY:
                body = re.sub(pattern, replacement, body)
            name = body
        if name.startswith("roi_heads.box_predictor.cls_score."):
            value = torch.cat([value[1:], value[:1]])
        elif name.startswith("roi_heads.box_predictor.bbox_pred."):
            value = value[4:]
        named[name] = value
    if not any(name.endswith("num_batches_tracked") for name in network):
        named = {name: value for name, value in named.items() if not name.endswith("num_batches_tracked")}
    return named


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
