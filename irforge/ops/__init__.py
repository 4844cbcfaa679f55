"""The custom operators of irforge, and their three lives: as a body of standard operators in the file, which anything
runs; as a TensorRT plugin; as a kernel of ONNX Runtime. `docs/custom-ops.md` shows how to add one.
"""

from __future__ import annotations

from collections import Counter

from onnx import ModelProto, helper

from irforge.ops.base import DOMAIN, VERSION, CustomOp
from irforge.ops.channel_gate import CHANNEL_GATE
from irforge.ops.mutual_gate import MUTUAL_GATE, QUANTIZED_MUTUAL_GATE
from irforge.ops.roi_align import ROI_ALIGN
from irforge.ops.spatial_gate import SPATIAL_GATE

__all__ = [
    "CHANNEL_GATE",
    "CUSTOM_OPS",
    "DOMAIN",
    "MUTUAL_GATE",
    "QUANTIZED_MUTUAL_GATE",
    "ROI_ALIGN",
    "SPATIAL_GATE",
    "VERSION",
    "CustomOp",
    "add_bodies",
    "count_custom_ops",
    "drop_bodies",
]

CUSTOM_OPS: dict[str, CustomOp] = {
    op.name: op for op in (MUTUAL_GATE, QUANTIZED_MUTUAL_GATE, CHANNEL_GATE, SPATIAL_GATE, ROI_ALIGN)
}

for _op in CUSTOM_OPS.values():
    _op.register()


def count_custom_ops(model: ModelProto) -> dict[str, int]:
    """How many nodes of each custom operator the main graph has."""
    return dict(Counter(node.op_type for node in model.graph.node if node.domain == DOMAIN))


def add_bodies(model: ModelProto) -> None:
    """Give the file the bodies of the custom operators that it uses, and of no others, in place."""
    drop_bodies(model)
    used = count_custom_ops(model)
    standard = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    model.functions.extend(CUSTOM_OPS[name].function(standard) for name in sorted(used) if name in CUSTOM_OPS)
    declared = [entry for entry in model.opset_import if entry.domain == DOMAIN]
    for entry in declared:
        model.opset_import.remove(entry)
    if used:
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def drop_bodies(model: ModelProto) -> None:
    """Leave the custom operators to native code alone, in place: a runtime that lacks it then fails, and cannot fall
    back to the body in silence."""
    kept = [function for function in model.functions if function.domain != DOMAIN]
    del model.functions[:]
    model.functions.extend(kept)
