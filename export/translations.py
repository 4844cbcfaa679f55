"""From torch's custom operators to nodes of the `irforge` domain: one entry each, for torch's exporter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript.values import Opset

from irforge.ops import DOMAIN, MUTUAL_GATE, VERSION, CustomOp
from irforge.ops.base import PLUGIN_ATTRIBUTES
from irforge.train.ops import mutual_gate  # noqa: F401 - its import registers torch.ops.irforge.mutual_gate


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch's exporter has to write for each of irforge's torch operators."""
    return {torch.ops.irforge.mutual_gate.default: _as_node(MUTUAL_GATE)}


def _as_node(op: CustomOp) -> Callable[..., Any]:
    write = getattr(Opset(DOMAIN, VERSION), op.name)

    def translate(*inputs: Any) -> Any:
        return write(*inputs, **PLUGIN_ATTRIBUTES)

    return translate
