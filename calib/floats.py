"""What calibration and casting start from: a float model with a contract, not quantised and not cast before."""

from __future__ import annotations

import os

import onnx
from onnx import TensorProto

from irforge.contract import Contract
from irforge.errors import ArtifactError

# QuantizeLinear takes FP16 from 19 on; JetPack 6's parser reads opsets up to 20 and IR versions up to 10.
OLDEST_OPSET, NEWEST_OPSET, NEWEST_IR = 19, 20, 10


def require_float_model(model: onnx.ModelProto, contract: Contract, where: str | os.PathLike[str]) -> None:
    """Refuse what is no FP32 deployable.

    Raises:
        ArtifactError: quantised or cast already.
    """
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    remedy = "Start from the FP32 file that 'irforge export' wrote"
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in nodes):
        raise ArtifactError(f"'{where}' is quantised already", remedy)
    halves = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    if contract.provenance.precision != "fp32" or halves:
        precision = contract.provenance.precision if contract.provenance.precision != "fp32" else "fp16"
        raise ArtifactError(f"'{where}' is {precision} already", remedy)


def raise_opset(model: onnx.ModelProto, where: str | os.PathLike[str]) -> None:
    """Bring opset 18 to 19 and the IR version to at most 10, in place; functions with them.

    No operator that was new in 19 takes back what 18 allowed, so that the number is all that changes.

    Raises:
        ArtifactError: another opset.
    """
    entries = [entry for part in (model, *model.functions) for entry in part.opset_import]
    for entry in entries:
        if entry.domain not in ("", "ai.onnx"):
            continue
        if entry.version == OLDEST_OPSET - 1:
            entry.version = OLDEST_OPSET
        if not OLDEST_OPSET <= entry.version <= NEWEST_OPSET:
            raise ArtifactError(
                f"'{where}' has opset {entry.version}; FP16 Q/DQ needs {OLDEST_OPSET}, and JetPack 6 reads"
                f" up to {NEWEST_OPSET}",
                f"Export it again with --opset {NEWEST_OPSET}",
            )
    if model.ir_version < 9:
        model.ir_version = 9
    if model.ir_version > NEWEST_IR:
        raise ArtifactError(
            f"'{where}' has IR version {model.ir_version}; JetPack 6 reads up to {NEWEST_IR}",
            f"Export it again with --opset {NEWEST_OPSET}",
        )
