"""Small graphs as text, and the check that every pass has to pass: the same values from a valid graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from irforge.graph import Graph

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def model_of(
    body: str, x: str = "N, 8, 16, 24", z: str = "N, 8, 8, 12", outputs: str = "y", **weights: np.ndarray | list[int]
) -> onnx.ModelProto:
    """Textual nodes over two maps x and z of the given shapes; lists of integers become int64."""
    results = ", ".join(f"float[N_{name}, C_{name}, H_{name}, W_{name}] {name}" for name in outputs.split())
    text = f"""<ir_version: 10, opset_import: ["": 20]>
        g (float[{x}] x, float[{z}] z) => ({results}) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, None if isinstance(value, np.ndarray) else np.int64), name)
        for name, value in weights.items()
    )
    return model


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return dict(Counter(node.op_type for node in model.graph.node))


def values(model: onnx.ModelProto) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = {"N": 2, "H": 16, "W": 24, "h": 8, "w": 12}
    feeds = {}
    for value in model.graph.input:
        sides = [side.dim_value or sizes[side.dim_param] for side in value.type.tensor_type.shape.dim]
        feeds[value.name] = rng.normal(size=sides).astype(np.float32)
    return [np.asarray(found) for found in ReferenceEvaluator(model).run(None, feeds)]


def rewrite(model: onnx.ModelProto, *passes: Callable[[Graph], int]) -> list[int]:
    """Run passes in place; returns what each did, after holding the result to the values of the original."""
    before = values(model)
    graph, counts = Graph(model), []
    for step in passes:
        counts.append(step(graph))
        graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    for found, expected in zip(values(model), before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return counts
