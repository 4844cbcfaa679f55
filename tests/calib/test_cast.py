from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irforge.artifact import check_model, load_model
from irforge.calib.cast import cast_to_half
from irforge.graph import Graph, attribute, infer_types
from tests.calib.conftest import Net, attentive_net

Run = Callable[[onnx.ModelProto | Path, np.ndarray], np.ndarray]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def test_everything_but_door_and_output_becomes_half(run_model: Run, frames_tensor: np.ndarray) -> None:
    model = attentive_net().model()
    before = run_model(model, frames_tensor)
    count = cast_to_half(model, ())
    check_model(model, "m", shapes=True)
    graph = Graph(model)
    assert count.kept == 0
    assert (graph.dtype("frames"), graph.dtype("mask")) == (TensorProto.UINT8, FLOAT)
    floats = [name for node in graph.nodes for name in node.output if graph.dtype(name) == FLOAT]
    assert floats == ["mask"]
    assert np.abs(run_model(model, frames_tensor) - before).max() < 0.02


def test_the_door_reaches_fp16_exactly(run_model: Run) -> None:
    net = Net()
    net.node("Relu", net.node("Cast", "frames", to=FLOAT), out="mask")
    model = net.model(side=16)
    cast_to_half(model, ())
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert [attribute(node, "to") for node in Graph(model).of_type("Cast")] == [HALF, FLOAT]
    assert np.array_equal(run_model(model, levels), levels.astype(np.float32))


def test_an_island_stays_in_fp32_behind_shared_casts(run_model: Run, frames_tensor: np.ndarray) -> None:
    net = Net()
    x = net.node("Cast", "frames", to=FLOAT, out="x")
    squares = [net.node("Mul", x, x, out="square"), net.node("Add", x, x, out="double")]
    net.node("Div", *squares, out="mask")
    model = net.model()
    count = cast_to_half(model, {"square", "mask", "x"})
    types = infer_types(model)
    assert types["square"][0] == FLOAT
    assert types["double"][0] == HALF
    assert (count.half, count.kept) == (1, 3)
    assert count.casts == 2
    assert np.isfinite(run_model(model, np.full_like(frames_tensor, 255))).all()


def test_inputs_that_an_operator_wants_in_fp32_stay_so() -> None:
    model = attentive_net().model()
    cast_to_half(model, ())
    graph = Graph(model)
    (resize,) = graph.of_type("Resize")
    assert graph.dtype(resize.input[2]) == FLOAT
    assert graph.dtype(resize.input[0]) == HALF


def test_a_weight_read_in_both_precisions_is_stored_in_both() -> None:
    net = Net()
    weight = net.weight(1, 1, 3, name="w")
    x = net.node("Cast", "frames", to=FLOAT, out="x")
    net.conv(net.conv(x, 1, 1, 3, weight=weight), 1, 1, 3, weight=weight)
    net.node("Identity", net.nodes[-1].output[0], out="mask")
    model = net.model()
    first, second = (node for node in model.graph.node if node.op_type == "Conv")
    cast_to_half(model, {second.output[0]})
    graph = Graph(model)
    assert {graph.dtype(node.input[1]) for node in graph.of_type("Conv")} == {FLOAT, HALF}
    assert first.input[1] != second.input[1]


def test_constant_nodes_and_fill_values_follow(run_model: Run, frames_tensor: np.ndarray) -> None:
    net = Net()
    x = net.node("Cast", "frames", to=FLOAT)
    two = net.node("Constant", value=numpy_helper.from_array(np.float32(2)))
    fill = net.node("ConstantOfShape", net.node("Shape", x), value=numpy_helper.from_array(np.float32([3])), out="fill")
    net.node("Add", net.node("Mul", x, two), fill, out="mask")
    model = net.model()
    before = run_model(model, frames_tensor)
    cast_to_half(model, ())
    assert infer_types(model)["fill"][0] == HALF
    assert np.array_equal(run_model(model, frames_tensor), before)


def test_an_output_that_the_graph_reads_too_keeps_its_name_and_type(run_model: Run, frames_tensor: np.ndarray) -> None:
    net = Net()
    x = net.node("Cast", "frames", to=FLOAT)
    logit = net.node("Sub", x, net.constant(100.0), out="logit")
    net.node("Sigmoid", logit, out="mask")
    model = net.model()
    model.graph.output.append(helper.make_tensor_value_info("logit", FLOAT, ["N", 1, 32, 32]))
    before = run_model(model, frames_tensor)
    cast_to_half(model, ())
    check_model(model, "m", shapes=True)
    types = infer_types(model)
    assert types["logit"][0] == types["mask"][0] == FLOAT
    assert np.abs(run_model(model, frames_tensor) - before).max() < 1e-3


def test_functions_and_metadata_stay(attentive: Path) -> None:
    model = load_model(attentive)
    body = helper.make_function(
        "irforge",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("irforge", 1))
    stem = next(node for node in model.graph.node if node.op_type == "Div")
    quotient = stem.output[0]
    stem.output[0] = "halved"
    model.graph.node.append(helper.make_node("Twice", ["halved"], [quotient], name="twice", domain="irforge"))
    metadata = [(entry.key, entry.value) for entry in model.metadata_props]
    cast_to_half(model, ())
    check_model(model, "m", shapes=True)
    assert list(model.functions) == [body]
    assert [(entry.key, entry.value) for entry in model.metadata_props] == metadata
    assert infer_types(model)[quotient][0] == HALF


def test_an_unsorted_graph_comes_out_sorted(run_model: Run, frames_tensor: np.ndarray) -> None:
    model = attentive_net().model()
    before = run_model(model, frames_tensor)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])
    cast_to_half(model, ())
    check_model(model, "m", shapes=True)
    assert np.abs(run_model(model, frames_tensor) - before).max() < 0.02


@pytest.mark.parametrize("keep", ["all", "none"])
def test_casting_is_repeatable(keep: str) -> None:
    first, second = attentive_net().model(), attentive_net().model()
    for model in (first, second):
        cast_to_half(model, {node.output[0] for node in model.graph.node} if keep == "all" else ())
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
