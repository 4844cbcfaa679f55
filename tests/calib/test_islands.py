from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from irforge.calib.cast import cast_to_half
from irforge.calib.islands import fp32_islands, last_products
from irforge.calib.ranges import TensorRange, load_ranges
from irforge.graph import Graph
from irforge.ops import CUSTOM_OPS, add_bodies
from tests.calib.conftest import Net, attentive_net

FLOAT = TensorProto.FLOAT


def _islands(model: onnx.ModelProto, **measured: dict[str, float]) -> dict[str, str]:
    tensors = {name: _range(**fields) for name, fields in measured.items()} or None
    found = fp32_islands(model, tensors)
    assert all(name == island.node for name, island in found.items())
    return {name: island.reason for name, island in found.items()}


def _range(absmax: float = 1.0, mean_abs: float = 0.1, subnormal: float = 0.0) -> TensorRange:
    return TensorRange(
        min=-absmax,
        max=absmax,
        absmax=absmax,
        mean_abs=mean_abs,
        count=100,
        zeros=0,
        subnormal=subnormal,
        thresholds={"minmax": absmax},
    )


def _chain(*kinds: str, **attributes: Any) -> onnx.ModelProto:
    net = Net()
    x = net.node("Cast", "frames", to=FLOAT)
    for index, kind in enumerate(kinds):
        x = net.node(kind, x, out=f"{kind.lower()}{index}", **(attributes if index == 0 else {}))
    net.node("Relu", x, out="mask")
    return net.model()


def test_without_ranges_an_attentive_network_keeps_map_means_and_its_last_gate() -> None:
    model = attentive_net().model()
    means = [node.output[0] for node in model.graph.node if node.op_type == "ReduceMean"]
    found = _islands(model)
    assert set(found) == {*means[::2], "mask"}
    assert found["mask"] == "writes an output, which is float32"
    assert found[means[0]] == "sums over the whole map"


def test_with_its_ranges_it_keeps_no_more(attentive_ranges: Path) -> None:
    model = attentive_net().model()
    measured = fp32_islands(model, load_ranges(attentive_ranges).tensors)
    assert set(measured) == set(_islands(model))


def test_a_value_near_the_limit_keeps_who_makes_and_who_reads_it() -> None:
    found = _islands(_chain("Abs", "Neg", "Sin"), neg1={"absmax": 9000})
    assert set(found) == {"neg1", "sin2"}
    assert found["neg1"] == "|neg1| reaches 9000; FP16 ends at 65504"


def test_a_small_and_mostly_subnormal_tensor_keeps_its_maker() -> None:
    found = _islands(_chain("Abs", "Neg"), neg1={"subnormal": 0.8, "absmax": 0.001})
    assert found == {"neg1": "80% of 'neg1' is below FP16's normal values"}
    assert not _islands(_chain("Abs", "Neg"), neg1={"subnormal": 0.8, "absmax": 1.0})


@pytest.mark.parametrize(("mean", "kept"), [(1.0, False), (400.0, True)])
def test_a_short_sum_is_kept_by_what_was_measured(mean: float, kept: bool) -> None:
    net = Net()
    x = net.conv(net.node("Cast", "frames", to=FLOAT), 1, 32, 1)
    net.node("ReduceMean", x, net.constant([1], np.int64), keepdims=1, out="mean")
    net.node("Relu", "mean", out="mask")
    found = _islands(net.model(), **{x: {"absmax": 2000, "mean_abs": mean}})
    assert ("mean" in found) == kept


@pytest.mark.parametrize("kind", ["Softmax", "LpNormalization", "MeanVarianceNormalization"])
def test_normalisers_stay(kind: str) -> None:
    assert _islands(_chain(kind))[f"{kind.lower()}0"] == f"{kind} sums and divides"


@pytest.mark.parametrize(("side", "kept"), [(4, False), (32, True)])
def test_a_large_average_window_stays(side: int, kept: bool) -> None:
    model = _chain("AveragePool", kernel_shape=[side, side], pads=[0, 0, 0, 0])
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert bool(_islands(model)) == kept


def test_raw_counts_stay_in_fp32_up_to_the_first_convolution() -> None:
    net = Net()
    low = net.node("ReduceMin", "frames", net.constant([2, 3], np.int64), keepdims=1, out="low")
    stretched = net.node("Sub", "frames", low, out="stretched")
    net.node("Relu", net.conv(stretched, 1, 1, 3), out="mask")
    model = net.model()
    model.graph.input[0].type.tensor_type.elem_type = FLOAT
    found = fp32_islands(model, raw_counts=True)
    assert set(found) == {"low", "stretched"}


@pytest.mark.parametrize("name", [name for name, op in CUSTOM_OPS.items() if not op.wide_inputs])
def test_our_own_operators_take_half_precision(name: str) -> None:
    net = Net()
    maps = net.conv(net.node("Cast", "frames", to=FLOAT), 1, 4, 1)
    weights = {"ChannelGate": ((2, 4, 1, 1), (4, 2, 1, 1)), "SpatialGate": ((1, 2, 7, 7),)}.get(name)
    inputs = [maps, *(net.constant(np.ones(shape)) for shape in weights)] if weights else [maps, maps]
    op = CUSTOM_OPS[name]
    net.nodes.append(op.node(inputs, "gated", **dict.fromkeys(op.attributes, 0.1)))
    net.node("ReduceMax", net.node("Cast", "gated", to=FLOAT), net.constant([1], np.int64), keepdims=1, out="mask")
    model = net.model()
    add_bodies(model)
    assert "gated" not in fp32_islands(model)


def test_what_makes_the_boxes_that_a_map_is_pooled_from_stays_and_so_do_the_boxes() -> None:
    """Convolutions follow, yet it decodes; the map itself, and what is made of its bins, goes to FP16."""
    net = Net()
    maps = net.conv(net.node("Cast", "frames", to=FLOAT), 1, 4, 3)
    rows = net.node("Reshape", net.conv(maps, 4, 4, 1), net.constant([0, 4, -1], np.int64), out="rows")
    boxes = net.node("Exp", net.node("Transpose", rows, perm=[0, 2, 1], out="columns"), out="boxes")
    op, settings = CUSTOM_OPS["FixedRoiAlign"], {"scale": 0.25, "bins": 7, "every": 2, "sampling": 2}
    net.nodes.append(op.node([maps, boxes], "bins", **settings))
    small = net.node("Relu", net.conv("bins", 4, 1, 1), out="small")
    net.node("Cast", net.node("Relu", small, out="last"), to=FLOAT, out="mask")
    model = net.model()
    add_bodies(model)
    found = fp32_islands(model, decodes=True)
    assert {"rows", "columns", "boxes"} <= set(found) and not {maps, "bins"} & set(found)
    cast_to_half(model, set(found))
    graph = Graph(model)
    (node,) = (node for node in model.graph.node if node.op_type == "FixedRoiAlign")
    assert [graph.dtype(name) for name in node.input] == [TensorProto.FLOAT16, FLOAT]


def test_whole_numbers_beyond_2048_stay() -> None:
    net = Net()
    wide = net.node("Cast", net.node("Cast", "frames", to=TensorProto.INT64), to=FLOAT, out="wide")
    net.node("Relu", wide, out="mask")
    assert _islands(net.model())["wide"] == "whole numbers beyond 2048 need FP32"


def test_a_constant_beyond_fp16_stays() -> None:
    net = Net()
    net.node("Relu", net.node("Mul", net.node("Cast", "frames", to=FLOAT), net.constant(1e6), out="big"), out="mask")
    assert _islands(net.model())["big"] == "a constant beyond FP16's limit"


@pytest.mark.parametrize(
    ("nodes", "kept"),
    [
        ([helper.make_node("Add", ["a", "a"], ["b"])], False),
        (
            [
                helper.make_node("Constant", [], ["two"], value_float=2.0),
                helper.make_node("Mul", ["a", "two"], ["b"]),
            ],
            True,
        ),
        ([helper.make_node("Cast", ["a"], ["b"], to=FLOAT)], True),
    ],
)
def test_a_function_goes_to_fp16_only_if_its_body_takes_any_type(nodes: list[onnx.NodeProto], kept: bool) -> None:
    net = Net()
    x = net.node("Cast", "frames", to=FLOAT)
    net.nodes.append(helper.make_node("Twice", [x], ["twice"], domain="irforge"))
    net.node("Relu", "twice", out="mask")
    model = net.model()
    model.opset_import.append(helper.make_opsetid("irforge", 1))
    model.functions.append(helper.make_function("irforge", "Twice", ["a"], ["b"], nodes, [helper.make_opsetid("", 20)]))
    assert ("twice" in _islands(model)) == kept


def _box_net() -> onnx.ModelProto:
    """A convolution, a gate on its result, a head, and a decoder that multiplies two computed matrices."""
    net = Net()
    x = net.conv(net.node("Cast", "frames", to=FLOAT), 1, 8, 3)
    gated = net.node("Mul", x, net.node("Sigmoid", x, out="gate"), out="gated")
    head = net.conv(gated, 8, 1, 1)
    net.node("Mul", head, net.constant([2.0], np.float32), out="scaled")
    net.node("Relu", net.node("MatMul", "scaled", "scaled", out="product"), out="mask")
    return net.model()


def test_a_decoder_of_boxes_stays_in_fp32_and_its_heads_do_not() -> None:
    found = {name: island.reason for name, island in fp32_islands(_box_net(), decodes=True).items()}
    assert set(found) == {"scaled", "product", "mask"}
    assert set(found.values()) == {"decodes: pixels need more than FP16's 11 bits"}
    assert "scaled" not in fp32_islands(_box_net())


def test_the_last_products_are_the_heads() -> None:
    model = _box_net()
    heads = [node.output[0] for node in model.graph.node if node.op_type == "Conv"][-1:]
    assert last_products(Graph(model)) == set(heads)


def test_features_that_are_compared_stay_in_fp32_from_their_norm_on() -> None:
    net = Net()
    features = net.conv(net.node("Cast", "frames", to=FLOAT), 1, 8, 3)
    norm = net.node("ReduceL2", features, net.constant([1], np.int64), keepdims=1, out="norm")
    unit = net.node("Div", features, norm, out="unit")
    net.node("Exp", net.conv(unit, 8, 1, 1), out="mask")
    found = {name: island.reason for name, island in fp32_islands(net.model(), compares=True).items()}
    assert set(found) == {"norm", "unit", "mask"}
    assert set(found.values()) == {"compares: a cosine needs more than FP16's 11 bits"}
    assert not {"norm", "unit"} & set(fp32_islands(net.model()))
