"""Which parameters SGD decays by how much."""

from __future__ import annotations

from typing import Any

from torch import nn

from irforge.train.recipe import Optimizer

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def decay_groups(network: nn.Module, wanted: Optimizer) -> list[dict[str, Any]]:
    """The trained parameters as groups of an optimizer: those of norms, those called `bias`, and the others.

    By name and by module, as detectron2 sorts them: attention's `in_proj_bias` is among the others there too. Where
    biases and norms have no decay of their own all is one group.
    """
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if wanted.bias_decay is None and wanted.norm_decay is None:
        return [{"params": list(named.values())}]
    norms = {id(p) for part in network.modules() if isinstance(part, NORMS) for p in part.parameters(recurse=False)}
    decays = {"norm": wanted.norm_decay, "bias": wanted.bias_decay, "other": None}
    groups: dict[str, list[nn.Parameter]] = {kind: [] for kind in decays}
    for name, parameter in named.items():
        kind = "norm" if id(parameter) in norms else "bias" if name.split(".")[-1] == "bias" else "other"
        groups[kind].append(parameter)
    return [
        {"params": groups[kind], "weight_decay": wanted.weight_decay if decay is None else decay}
        for kind, decay in decays.items()
        if groups[kind]
    ]
