"""What strangers' files are made of in these tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

ULTRALYTICS: dict[str, Any] = {
    "author": "Ultralytics",
    "description": "Ultralytics YOLOv8n model",
    "task": "detect",
    "license": "AGPL-3.0 License",
    "names": "{0: 'bird', 1: 'drone'}",
}


def write_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    arrays: Mapping[str, np.ndarray],
    *,
    opset: int = 18,
    domains: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Path:
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(list(nodes), "stranger", list(inputs), list(outputs), weights)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    path.write_bytes(model.SerializeToString())
    return path
