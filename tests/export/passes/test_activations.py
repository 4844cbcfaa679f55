"""Mish in sigmoids is Mish, also where its logarithm would overflow."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from irforge.export.passes import spell_out_mish
from irforge.graph import Graph

# The reference evaluator's sigmoid takes exp(x) on both sides before it chooses.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")


def _spelled(kind: str) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["": 20]> g ({kind}[n] x) => ({kind}[n] y) {{ y = Mish(x) }}'
    model = onnx.parser.parse_model(text)
    graph = Graph(model)
    assert spell_out_mish(graph) == 1
    graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    assert "Mish" not in [node.op_type for node in model.graph.node]
    return model


def _mish(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return wide * np.tanh(np.logaddexp(0, wide))


def test_mish_is_the_same_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-30, 30, 2001), [-1e4, -100, 0, 100, 1e4]]).astype(np.float32)
    (y,) = ReferenceEvaluator(_spelled("float")).run(None, {"x": x})
    np.testing.assert_allclose(y, _mish(x), rtol=1e-6, atol=1e-7)


def test_fp16_overflows_nowhere() -> None:
    x = np.concatenate([np.linspace(-20, 20, 801), [-6e4, 6e4]]).astype(np.float16)
    model = _spelled("float16")
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT16
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(y.astype(np.float64), _mish(x), rtol=4e-3, atol=1e-3)


def test_every_factor_is_bounded() -> None:
    """Calibration looks at each of them, and finds none that grows as exp(x) does."""
    model = _spelled("float")
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None) for node in model.graph.node[:-2]
    )
    x = np.linspace(-1e4, 1e4, 101).astype(np.float32)
    _, *factors = ReferenceEvaluator(model).run(None, {"x": x})
    assert len(factors) == len(model.graph.node) - 2
    assert max(np.abs(factor[np.isfinite(factor)]).max() for factor in factors[:-1]) <= 2
    assert all(np.isfinite(factor).all() for factor in factors)


@pytest.mark.parametrize("kind", ["Relu", "Softplus"])
def test_other_activations_stay(kind: str) -> None:
    text = f'<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] y) {{ y = {kind}(x) }}'
    assert spell_out_mish(Graph(onnx.parser.parse_model(text))) == 0
