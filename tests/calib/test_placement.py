from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from onnx import TensorProto

from irforge.calib.placement import CPU, TENSORRT, Placement, Rules, place
from irforge.calib.ranges import TensorRange, load_ranges
from irforge.graph import Graph
from tests.calib.conftest import Net, attentive_net

FLOAT = TensorProto.FLOAT
SIZES = {"frames": (1, 1, 32, 32)}


def _ranges(net: Net, **absmax: float) -> dict[str, TensorRange]:
    names = [name for node in net.nodes for name in node.output]
    return {
        name: TensorRange(
            min=-absmax.get(name, 1.0) / 2,
            max=absmax.get(name, 1.0),
            absmax=absmax.get(name, 1.0),
            mean_abs=0.1,
            count=10,
            zeros=0,
            subnormal=0,
            thresholds={"minmax": absmax.get(name, 1.0), "percentile": absmax.get(name, 1.0) / 4},
        )
        for name in names
    }


def _place(
    net: Net, method: str = "minmax", rules: Rules = TENSORRT, keep: Sequence[str] = (), **absmax: float
) -> Placement:
    return place(Graph(net.model()), _ranges(net, **absmax), method, rules, keep=keep, sizes=SIZES)


def _stem(net: Net, channels: int = 16) -> str:
    return net.conv(net.node("Cast", "frames", to=FLOAT), 1, channels, 1)


def _reasons(placement: Placement) -> dict[str, str]:
    return {kept.node: kept.reason for kept in placement.kept}


def test_nearly_all_work_of_an_attentive_network_is_quantised(attentive_ranges: Path) -> None:
    net = attentive_net()
    graph = Graph(net.model())
    placement = place(graph, load_ranges(attentive_ranges).tensors, "minmax", sizes=SIZES)
    assert placement.share > 0.98
    assert placement.share + sum(kept.share for kept in placement.kept) == pytest.approx(1)
    kernels = {graph.producer(name).attribute[0].ints[0] for name in placement.convolutions}  # type: ignore[union-attr]
    assert kernels == {1, 3}
    assert set(_reasons(placement).values()) == {"fewer than 8 channels"}


def test_a_convolution_reads_int8_and_its_result_becomes_int8_after_the_activation() -> None:
    net = Net()
    first = net.conv(_stem(net), 16, 16, 3)
    active = net.node("Relu", first)
    second = net.conv(active, 16, 16, 3)
    net.node("Relu", net.conv(second, 16, 1, 1), out="mask")
    placement = _place(net)
    assert placement.convolutions == [first, second]
    assert set(placement.points) == {net.nodes[1].output[0], active}


def test_nothing_is_quantised_on_the_way_to_the_outputs() -> None:
    """The last map, and a concat of boxes and scores behind it, have no int8 reader left."""
    net = Net()
    trunk = net.node("Relu", net.conv(_stem(net), 16, 16, 3))
    boxes, scores = net.conv(trunk, 16, 16, 1), net.node("Sigmoid", net.conv(trunk, 16, 16, 1))
    net.node("Concat", boxes, scores, axis=1, out="mask")
    placement = _place(net)
    assert {boxes, trunk}.issubset({*placement.convolutions, *placement.points})
    assert not {boxes, scores, "mask"}.intersection(placement.points)


def test_a_concat_and_what_it_joins_share_one_scale() -> None:
    net = Net()
    one, two = (net.node("Relu", net.conv(_stem(net), 16, 16, 3)) for _ in range(2))
    joined = net.node("Concat", one, two, axis=1)
    net.node("Relu", net.conv(net.conv(joined, 32, 16, 3), 16, 1, 1), out="mask")
    points = _place(net, **{one: 3.0, two: 7.0, joined: 7.0}).points
    assert points[one] == points[two] == points[joined]
    assert points[joined].reach == 7.0


def test_a_pool_moves_int8() -> None:
    net = Net()
    full = net.node("Relu", net.conv(_stem(net), 16, 16, 3))
    pooled = net.node("MaxPool", full, kernel_shape=[2, 2], strides=[2, 2])
    deep = net.conv(pooled, 16, 16, 3)
    net.node("Resize", net.conv(deep, 16, 1, 1), "", net.constant([1, 1, 2, 2]), out="mask")
    points = _place(net, **{full: 5.0, pooled: 4.0}).points
    assert points[full] == points[pooled]


def test_a_plain_residual_is_added_inside_the_convolution_that_makes_it() -> None:
    net = Net()
    entry = net.node("Relu", net.conv(_stem(net), 16, 16, 3))
    residual = net.conv(net.node("Relu", net.conv(entry, 16, 16, 3)), 16, 16, 3)
    joined = net.node("Relu", net.node("Add", residual, entry))
    net.node("Relu", net.conv(net.conv(joined, 16, 16, 3), 16, 1, 1), out="mask")
    for rules, expected in ((TENSORRT, False), (CPU, True)):
        points = _place(net, rules=rules).points
        assert {entry, joined} <= set(points)
        assert (residual in points) == expected


def test_a_gated_map_that_reductions_read_is_int8_for_tensorrt_only() -> None:
    net = attentive_net()
    gated = [node.output[0] for node in net.nodes if node.op_type == "Mul"][::2]
    assert set(gated[:2]) <= set(_place(net).points)
    assert not set(gated) & set(_place(net, rules=CPU).points)


def test_the_method_chooses_the_span_and_values_inside_it_stay() -> None:
    net = Net()
    active = net.node("Relu", net.conv(_stem(net), 16, 16, 3))
    net.node("Relu", net.conv(net.conv(active, 16, 16, 3), 16, 1, 1), out="mask")
    wide, narrow = (_place(net, method, **{active: 8.0}).points[active] for method in ("minmax", "percentile"))
    assert (wide.low, wide.high, wide.reach) == (-4.0, 8.0, 8.0)
    assert (narrow.low, narrow.high, narrow.reach) == (-2.0, 2.0, 2.0)


def test_patterns_keep_by_node_output_or_weight_name() -> None:
    net = Net()
    stem = _stem(net)
    first = net.conv(stem, 16, 16, 3, weight=net.weight(16, 16, 3, name="encoder.weight"))
    second = net.conv(first, 16, 16, 3)
    net.node("Relu", net.conv(second, 16, 1, 1), out="mask")
    for pattern in ("encoder.*", f"node_{first}", first):
        placement = _place(net, keep=[pattern])
        assert placement.convolutions == [second]
        assert _reasons(placement)[first] == f"kept by '{pattern}'"


def test_reasons_name_what_cannot_be_quantised() -> None:
    net = Net()
    stem = _stem(net)
    dead = net.conv(stem, 16, 16, 3)
    computed = net.node("Conv", dead, net.node("Neg", net.weight(16, 16, 1)), kernel_shape=[1, 1])
    pooled = net.node("GlobalAveragePool", computed)
    squeezed = net.conv(pooled, 16, 16, 1)
    gated = net.node("Mul", squeezed, computed)
    island = net.conv(gated, 16, 16, 1)
    depthwise = net.node("Conv", island, net.weight(16, 1, 3), group=16, pads=[1] * 4, kernel_shape=[3, 3])
    net.node("Relu", net.conv(depthwise, 16, 1, 1), out="mask")
    reasons = _reasons(
        place(Graph(net.model()), _ranges(net, **{dead: 0.0}), "minmax", apart={island: "an island"}, sizes=SIZES)
    )
    assert reasons[stem] == "fewer than 8 channels"
    assert reasons[dead] == "always zero on the calibration frames"
    assert reasons[computed] == "its weights are computed"
    assert reasons[squeezed] == "one pixel: a squeeze, not a map"
    assert reasons[island] == "an island"
    assert reasons[depthwise] == "fewer than 8 channels a group"


Edit = Callable[[dict[str, TensorRange]], object]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_tensor_without_range_is_not_quantised(missing: int) -> None:
    net = Net()
    stem = _stem(net)
    conv = net.conv(stem, 16, 16, 3)
    net.node("Relu", net.conv(conv, 16, 1, 1), out="mask")
    ranges = _ranges(net)
    del ranges[(stem, conv)[missing]]
    placement = place(Graph(net.model()), ranges, "minmax", sizes=SIZES)
    assert placement.convolutions == []
    assert "has no measured range" in _reasons(placement)[conv]


def test_a_matrix_product_with_weights_is_quantised_for_tensorrt_only() -> None:
    net = Net()
    tokens = net.node("Transpose", _stem(net), perm=[0, 2, 3, 1])
    product = net.node("MatMul", tokens, net.constant([[1.0] * 16] * 16))
    attention = net.node("MatMul", product, net.node("Transpose", product, perm=[0, 1, 3, 2]))
    net.node("ReduceMean", attention, net.constant([3], "int64"), keepdims=1, out="mask")
    placement = _place(net)
    assert placement.convolutions == [product] and list(placement.points) == [tokens]
    assert _reasons(placement)[attention] == "its weights are computed"
    assert product not in _place(net, rules=CPU).convolutions
