"""Merged convolutions compute what the single ones did; where merging would copy maps, they stay single."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from irforge.export.passes import (
    fold_constants,
    merge_parallel_convolutions,
    merge_summed_convolutions,
    pad_hidden_channels,
)
from irforge.graph import Graph
from tests.export.passes.rewriting import floats, kinds, model_of, rewrite

CONV3 = "Conv<pads = [1, 1, 1, 1]>"
UP = 'Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'


def test_heads_on_one_map_read_it_once() -> None:
    model = model_of(
        f"""a = {CONV3}(x, a1, ab) ma = Mish(a) heat = Conv(ma, a2, a2b)
            b = {CONV3}(x, b1) mb = Mish(b) box = Conv(mb, b2, b2b)""",
        outputs="heat box",
        a1=floats(6, 8, 3, 3), ab=floats(6), a2=floats(1, 6, 1, 1), a2b=floats(1),
        b1=floats(5, 8, 3, 3), b2=floats(4, 5, 1, 1), b2b=floats(4),
    )  # fmt: skip
    assert rewrite(model, merge_parallel_convolutions) == [2]
    assert kinds(model) == {"Conv": 2, "Mish": 1, "Split": 1}
    graph = Graph(model)
    first, last = graph.of_type("Conv")
    # Rules that go by the names of weights still find those that were merged.
    assert (first.input[1], last.input[1]) == ("a1+b1", "a2+b2")
    assert graph.array(last.input[1]).shape == (5, 11, 1, 1)


def test_maps_that_are_only_enlarged_come_from_one_convolution() -> None:
    def model(read: str) -> onnx.ModelProto:
        return model_of(
            f"""a = Conv(z, a1) {read} u = {UP}(r, , two)
                b = Conv(z, b1) v = {UP}(b, , two) w = Concat<axis = 1>(u, v) y = Add(w, x)""",
            a1=floats(3, 8, 1, 1), b1=floats(5, 8, 1, 1), p1=floats(3, 3, 1, 1), two=np.float32([1, 1, 2, 2]),
        )  # fmt: skip

    enlarged = model("r = Identity(a)")
    assert rewrite(enlarged, fold_constants, merge_parallel_convolutions) == [1, 1]
    assert kinds(enlarged)["Conv"] == 1
    # For a convolution its part of the result would be copied.
    assert rewrite(model("r = Conv(a, p1)"), merge_parallel_convolutions) == [0]


@pytest.mark.parametrize(
    "second",
    ["Conv<strides = [2, 2]>(x, w)", "Conv<group = 2>(x, g)", "Conv(z, w)"],
    ids=["stride", "groups", "source"],
)
def test_convolutions_that_differ_stay_apart(second: str) -> None:
    body = f"a = Conv(x, w) ma = Relu(a) r = Conv(ma, w) b = {second} mb = Relu(b) s = Conv(mb, w)"
    model = model_of(body, outputs="r s", w=floats(8, 8, 1, 1), g=floats(8, 4, 1, 1))
    assert rewrite(model, merge_parallel_convolutions) == [0]


def _descents(second: str = "Conv<group = 8, pads = [1, 1, 1, 1]>(b, d2)") -> dict[str, object]:
    return {
        "body": f"""b = Relu(x)
            p = Conv<group = 8, pads = [1, 1, 1, 1]>(x, d1) q = {second}
            r = Conv(p, w1, b1) s = Conv(q, w2, b2)
            t = Add(r, x) u = Add(t, s) y = Relu(u)""",
        "d1": floats(8, 1, 3, 3), "d2": floats(8, 1, 3, 3),
        "w1": floats(8, 8, 1, 1), "w2": floats(8, 8, 1, 1), "b1": floats(8), "b2": floats(8),
    }  # fmt: skip


def test_a_sum_of_convolutions_is_one_over_their_concatenation() -> None:
    model = model_of(**_descents())
    assert rewrite(model, merge_summed_convolutions) == [1]
    assert kinds(model) == {"Relu": 2, "Conv": 3, "Concat": 1, "Add": 1}


def test_a_map_that_is_there_anyway_is_not_copied_into_a_concatenation() -> None:
    """The second convolution reads what no convolution wrote for it."""
    assert rewrite(model_of(**_descents("Sigmoid(b)")), merge_summed_convolutions) == [0]


@pytest.mark.parametrize(("width", "padded"), [(7, 1), (17, 1), (8, 0), (2, 0)])
def test_hidden_channels_come_by_eight_unless_most_would_be_zeros(width: int, padded: int) -> None:
    model = model_of(
        "a = Conv(x, w1, b1) b = Relu(a) y = Conv(b, w2)",
        w1=floats(width, 8, 1, 1), b1=floats(width), w2=floats(8, width, 1, 1),
    )  # fmt: skip
    assert rewrite(model, pad_hidden_channels) == [padded]
    graph = Graph(model)
    assert graph.array(graph.of_type("Conv")[1].input[1]).shape[1] == (-(-width // 8) * 8 if padded else width)
