"""The graph view tells the truth before and after edits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irforge.errors import ArtifactError
from irforge.graph import Graph, attribute, infer_types, macs, parameter_count, reads, set_attribute, topological_order


def _model() -> onnx.ModelProto:
    """x -> Conv -> c -> Relu -> r -> Add(r, c) -> y, and a dead Abs."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Abs", ["c"], ["unused"], name="abs"),
        helper.make_node("Add", ["r", "c"], ["y"], name="add"),
    ]
    weight = np.linspace(-1, 1, 2 * 9, dtype=np.float32).reshape(2, 1, 3, 3)
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, "H", "W"])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(weight, "orphan")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _run(model: onnx.ModelProto) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    x = np.random.default_rng(0).normal(size=(2, 1, 5, 6)).astype(np.float32)
    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def test_who_makes_and_reads_what() -> None:
    graph = Graph(_model())
    assert graph.producer("c").name == "conv"
    assert graph.producer("x") is None
    assert [node.name for node in graph.consumers("c")] == ["relu", "abs", "add"]
    assert graph.sole_consumer("r").name == "add"
    assert graph.sole_consumer("c") is None
    assert graph.sole_consumer("y") is None
    assert (graph.inputs, graph.outputs, graph.opset) == (["x"], ["y"], 20)
    assert graph.array("w").shape == (2, 1, 3, 3)
    assert graph.array("c") is None


def test_shapes_and_types_are_inferred_also_of_an_unsorted_graph() -> None:
    model = _model()
    model.graph.node.sort(key=lambda node: node.name)
    graph = Graph(model)
    assert graph.shape("r")[:2] == ("N", 2)
    assert graph.dtype("r") == TensorProto.FLOAT
    assert graph.shape("nowhere") is None
    assert infer_types(model, {"x": (1, 1, 8, 16)})["y"] == (TensorProto.FLOAT, (1, 2, 8, 16))


def test_tidy_sorts_and_drops_dead_parts_and_held_nodes_stay_valid() -> None:
    model = _model()
    before = _run(model)
    graph = Graph(model)
    relu = graph.producer("r")
    model.graph.node.sort(key=lambda node: node.name)
    graph.touch()
    graph.tidy()
    assert [node.name for node in model.graph.node] == ["conv", "relu", "add"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]
    np.testing.assert_array_equal(_run(model), before)
    relu.op_type = "Abs"
    assert [node.op_type for node in model.graph.node] == ["Conv", "Abs", "Add"]


def test_rerouting_keeps_output_names() -> None:
    model = _model()
    graph = Graph(model)
    doubled = graph.add("Mul", ["r", graph.add_array(np.float32(2), "two")], "doubled")
    graph.replace(graph.producer("y"), doubled)
    graph.tidy()
    assert graph.outputs == ["y"]
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "Mul"]
    onnx.checker.check_model(model, full_check=True)
    with pytest.raises(ArtifactError, match="cannot be taken over"):
        graph.reroute("y", "x")


def test_fresh_names_are_new() -> None:
    graph = Graph(_model())
    assert graph.fresh("new") == "new"
    names = {graph.fresh(hint) for hint in ("conv", "w", "x", "r", "new", "new")}
    assert len(names) == 6
    assert not names & {"conv", "w", "x", "r", "new"}


def test_a_cycle_is_named() -> None:
    a, b = helper.make_node("Relu", ["q"], ["p"], name="a"), helper.make_node("Relu", ["p"], ["q"], name="b")
    with pytest.raises(ArtifactError, match="cycle through node 'a'"):
        topological_order([a, b])


def test_what_a_subgraph_takes_from_outside_counts_as_read() -> None:
    branch = helper.make_graph(
        [helper.make_node("Add", ["outer", "inner"], ["out"]), helper.make_node("Relu", ["outer"], ["inner"])],
        "branch", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )  # fmt: skip
    node = helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch)
    assert reads(node) == ["flag", "outer"]


def test_constants_in_every_form_have_a_value() -> None:
    model = _model()
    for name, value in (
        ("value", numpy_helper.from_array(np.float32([1, 2]))),
        ("value_float", 1.5),
        ("value_ints", [1, 2, 3]),
    ):
        model.graph.node.append(helper.make_node("Constant", [], [f"k_{name}"], **{name: value}))
    graph = Graph(model)
    assert graph.array("k_value").tolist() == [1, 2]
    assert graph.array("k_value_float") == np.float32(1.5)
    assert graph.array("k_value_ints").dtype == np.int64


def test_attributes_are_read_and_set() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    set_attribute(node, "pads", [0, 0, 0, 0])
    assert attribute(node, "pads") == [0, 0, 0, 0]
    assert attribute(node, "group", 1) == 1


def test_macs_count_each_kind_by_its_formula() -> None:
    assert macs(_model(), {"x": (1, 1, 8, 16)}) == {"c": 8 * 16 * 2 * 9}
    with pytest.raises(ArtifactError, match="give the size"):
        macs(_model())
    value = helper.make_tensor_value_info
    weights = [
        numpy_helper.from_array(np.zeros((4, 2, 3, 3), np.float32), "w"),
        numpy_helper.from_array(np.zeros((4, 3, 2, 2), np.float32), "t"),
        numpy_helper.from_array(np.zeros((5, 7), np.float32), "m"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["x", "t"], ["b"], strides=[2, 2]),
        helper.make_node("MatMul", ["x", "m"], ["d"]),
    ]
    outputs = [value(name, TensorProto.FLOAT, None) for name in "abd"]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [1, 4, 6, 5])], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert macs(model) == {"a": 4 * 3 * 3 * 2 * 9, "b": 4 * 6 * 5 * 3 * 4, "d": 4 * 6 * 7 * 5}
    assert parameter_count(model) == 4 * 2 * 9 + 4 * 3 * 4 + 35


def test_parameters_are_what_layers_read_and_not_the_tables_of_a_decode() -> None:
    value = helper.make_tensor_value_info
    constants = {
        "w": np.zeros((8, 4, 3, 3), np.int8),
        "scale": np.ones(8, np.float32),
        "bias": np.zeros((1, 8, 1, 1), np.float32),
        "grid": np.zeros((1, 1, 6, 5), np.float32),
        "one": np.ones((), np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["kernel"], axis=0),
        helper.make_node("Conv", ["x", "kernel"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["a", "bias"], ["b"]),
        helper.make_node("Mul", ["b", "grid"], ["c"]),
        helper.make_node("Add", ["c", "one"], ["d"]),
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    outputs = [value("d", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, [1, 4, 6, 5])], outputs, weights)
    assert parameter_count(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])) == 8 * 4 * 9 + 8
