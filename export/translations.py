"""From torch's custom operators to nodes of the `irforge` domain: one entry each, for torch's exporter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript.values import Opset

from irforge.ops import DOMAIN, MUTUAL_GATE, ROI_ALIGN, VERSION, CustomOp
from irforge.ops.base import PLUGIN_ATTRIBUTES
from irforge.train.ops import mutual_gate, roi_align  # noqa: F401 - their import registers torch.ops.irforge.*


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What torch's exporter has to write for each of irforge's torch operators."""
    return {
        torch.ops.irforge.mutual_gate.default: _as_node(MUTUAL_GATE),
        torch.ops.irforge.roi_align.default: _as_node(ROI_ALIGN),
    }


def _as_node(op: CustomOp) -> Callable[..., Any]:
    write = getattr(Opset(DOMAIN, VERSION), op.name)

    def translate(*arguments: Any) -> Any:
        # Torch's operator takes the node's inputs, then its attributes.
        inputs, values = arguments[: len(op.inputs)], arguments[len(op.inputs) :]
        return write(*inputs, **dict(zip(op.attributes, values, strict=True)), **PLUGIN_ATTRIBUTES)

    return translate
